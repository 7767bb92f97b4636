"""One sender or reader cannot keep the others out: over real connections to this machine, with short deadlines."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

import web_models
from toy import moving_patches
from tubelet.apps import serve
from tubelet.apps.web import live, server
from tubelet.apps.web.guard import Access
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.refusals import Busy
from tubelet.apps.web.jobs.store import Store
from tubelet.apps.web.limits import Limits, Patience
from tubelet.apps.web.shares import Shares
from tubelet.apps.web.uploads import Slots
from tubelet.video.writer import VideoWriter

WAIT = 60.0  # seconds within which anything has to end at all
SHORT = Patience(head=0.3, body=0.3, reader=0.3, linger=0.3)
HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "


@contextmanager
def serving(app: Any, **settings: Any) -> Iterator[int]:
    """The port of a server in a thread."""
    listener = serve.listen("127.0.0.1", 0)
    running = serve.configured(app, **settings)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    running.should_exit = True
    thread.join(WAIT)


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("film") / "patches.mp4"
    with VideoWriter(path, (48, 64), 10) as writer:
        for frame in moving_patches(4):
            writer.write(frame)
    return path.read_bytes()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """Without a worker: uploads need none."""
    store = Store(tmp_path_factory.mktemp("blocking") / "data")
    yield Jobs(store, Limits(megabytes=1), web_models.open_model, ["toy"])
    store.close()


@pytest.fixture(scope="module")
def page(jobs: Jobs) -> Iterator[int]:
    """The port of the whole application, with little patience for bodies."""
    with serving(server.build(jobs, Access(), SHORT)) as port:
        yield port


@pytest.fixture(scope="module")
def patient(jobs: Jobs) -> Iterator[int]:
    """The same with much patience."""
    with serving(server.build(jobs, Access(), Patience(body=WAIT, linger=WAIT))) as port:
        yield port


def connected(port: int, sent: bytes = b"", source: str | None = None) -> socket.socket:
    place = (source, 0) if source else None
    connection = socket.create_connection(("127.0.0.1", port), timeout=WAIT, source_address=place)
    connection.sendall(sent)
    return connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection; fails where it never does."""
    heard = b""
    try:
        while piece := connection.recv(65536):
            heard += piece
    except ConnectionError:
        pass
    connection.close()
    return heard


def post(path: str, *headers: str, host: str = "127.0.0.1") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.02)


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def test_connections_that_never_finish_their_headers_keep_nobody_out() -> None:
    with serving(answering, connections=20) as port, ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(connected(port, HALF))
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=WAIT).text == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="more than one address of this machine")
def test_an_address_that_takes_all_connections_pushes_out_only_its_own() -> None:
    with serving(answering, connections=20) as port, ExitStack() as stack:
        other = stack.enter_context(connected(port, HALF, source="127.0.0.2"))
        for _ in range(50):
            stack.enter_context(connected(port, HALF))
        other.sendall(b"y\r\nConnection: close\r\n\r\n")
        assert rest(other).endswith(b"ok")


@pytest.mark.parametrize("sent", [b"", HALF, b"GET /"])
def test_headers_that_do_not_come_close_the_connection(sent: bytes) -> None:
    with serving(answering, patience=SHORT) as port:
        assert rest(connected(port, sent)) == b""


def test_headers_of_a_second_request_have_to_come_as_well() -> None:
    with serving(answering, patience=Patience(head=2)) as port:
        connection = connected(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(HALF)
        assert rest(connection) in (b"", b"ok")


def test_a_reader_that_does_not_read_is_let_go() -> None:
    ended = threading.Event()

    async def long(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2000):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        ended.set()

    with serving(long, patience=SHORT) as port, connected(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        assert ended.wait(WAIT)


def drip(connection: socket.socket) -> None:
    """A byte now and then, until the server has had enough."""
    end = time.monotonic() + WAIT
    connection.settimeout(0.05)
    while time.monotonic() < end:
        try:
            connection.sendall(b"a")
            if connection.recv(1, socket.MSG_PEEK):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    connection.settimeout(WAIT)


def test_uploads_of_a_byte_now_and_then_are_given_up_and_others_get_through(page: int, patches: bytes) -> None:
    slow = [connected(page, post("/api/videos", "Content-Length: 900000")) for _ in range(2)]
    for connection in slow:
        drip(connection)
        assert b"HTTP/1.1 408 " in rest(connection)
    until(lambda: httpx.post(f"http://127.0.0.1:{page}/api/videos", content=patches, timeout=WAIT).status_code == 201)


def test_a_wish_that_comes_a_byte_now_and_then_is_given_up(page: int) -> None:
    connection = connected(page, post("/api/jobs", "Content-Type: application/json", "Content-Length: 5000"))
    drip(connection)
    assert b"HTTP/1.1 408 " in rest(connection)


def test_an_upload_with_pauses_goes_through(patient: int, patches: bytes) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(patches), 500):
            time.sleep(0.02)
            yield patches[start : start + 500]

    assert httpx.post(f"http://127.0.0.1:{patient}/api/videos", content=pieces(), timeout=WAIT).status_code == 201


def test_an_upload_that_goes_on_past_the_limit_is_cut_off(page: int) -> None:
    connection = connected(page, post("/api/videos", "Transfer-Encoding: chunked"))
    chunk = b"%x\r\n%b\r\n" % (100_000, bytes(100_000))
    sent = 0
    try:
        while sent < 1000:
            connection.sendall(chunk)
            sent += 1
    except ConnectionError:
        pass
    assert sent < 1000  # of 100 MB; the limit is 1 MB, and some lies in buffers
    connection.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (post("/api/videos", "Content-Length: 90000000"), 413),
        (post("/api/jobs", "Content-Type: application/json", "Content-Length: 90000000"), 408),
        (post("/api/videos", "Content-Length: 90000000", host="evil.example"), 421),
        (post("/api/videos", "Content-Length: 90000000", "Origin: http://evil.example"), 403),
        (post("/nothing", "Transfer-Encoding: chunked"), 404),
        (post("/api/example", "Transfer-Encoding: chunked"), 201),
    ],
)
def test_after_an_answer_to_an_unread_body_the_connection_is_closed(page: int, head: bytes, status: int) -> None:
    answer = rest(connected(page, head))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in answer.lower()


def test_the_refusal_can_be_read_by_a_sender_that_was_in_the_middle(patient: int) -> None:
    refused = httpx.post(f"http://127.0.0.1:{patient}/api/videos", content=bytes(1_500_000), timeout=WAIT)
    assert (refused.status_code, "at most 1 MB" in refused.json()["error"]) == (413, True)


def test_a_wish_of_many_megabytes_is_not_kept_in_memory(patient: int) -> None:
    wish = json.dumps({"video": "x", "model": "y" * 30_000_000}).encode()
    headers = {"Content-Type": "application/json"}
    refused = httpx.post(f"http://127.0.0.1:{patient}/api/jobs", content=wish, headers=headers, timeout=WAIT)
    assert (refused.status_code, "too large" in refused.json()["error"]) == (413, True)


@pytest.mark.parametrize("proxy", [None, "127.0.0.1"])
def test_an_address_has_its_share_of_requests_and_no_more(proxy: str | None) -> None:
    going = threading.Event()
    arrived = threading.Semaphore(0)

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        import asyncio

        arrived.release()
        while scope["path"] == "/wait" and not going.is_set():
            await asyncio.sleep(0.01)
        await answering(scope, receive, send)

    def ask(path: str, source: str = "192.0.2.1") -> httpx.Response:
        headers = {"X-Forwarded-For": source}
        return httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=WAIT)

    with serving(Shares(waiting, 2), proxy=proxy) as port:
        holders = [threading.Thread(target=ask, args=("/wait",)) for _ in range(2)]
        for holder in holders:
            holder.start()
            assert arrived.acquire(timeout=WAIT)
        refused = ask("/")
        assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)
        # only a proxy is believed when it tells of another address
        assert ask("/", source="192.0.2.2").status_code == (200 if proxy else 503)
        going.set()
        for holder in holders:
            holder.join(WAIT)
        until(lambda: ask("/").status_code == 200)


@pytest.mark.skipif(sys.platform != "linux", reason="more than one address of this machine")
def test_viewers_of_one_address_leave_room_for_others() -> None:
    look = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    with serving(live.build(live.Newest(), Access())) as port, ExitStack() as stack:

        def answer(source: str) -> bytes:
            return stack.enter_context(connected(port, look, source)).recv(12)

        assert [answer("127.0.0.1") for _ in range(live.EACH)] == [b"HTTP/1.1 200"] * live.EACH
        assert [answer("127.0.0.1"), answer("127.0.0.2")] == [b"HTTP/1.1 503", b"HTTP/1.1 200"]


def test_an_address_has_its_share_of_uploads_and_no_more() -> None:
    slots = Slots(Limits(uploads=3, uploads_each=2))
    with slots.taken("a", 5), slots.taken("a", 6):
        assert slots.expected == 11
        with pytest.raises(Busy, match="your uploads"), slots.taken("a", 1):
            pass
        with slots.taken("b", 0), pytest.raises(Busy, match="3 uploads are under way"), slots.taken("c", 0):
            pass
    with slots.taken("a", 0):
        assert slots.expected == 0


def test_the_example_asked_for_by_many_at_once_is_there_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    jobs = Jobs(store, Limits(), web_models.open_model, ["toy"])
    with serving(server.build(jobs, Access())) as port:
        address = f"http://127.0.0.1:{port}/api/example"
        asking = [threading.Thread(target=httpx.post, args=(address,), kwargs={"timeout": WAIT}) for _ in range(4)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(WAIT)
    assert len(store.videos()) == 1
    store.close()
