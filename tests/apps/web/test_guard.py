"""What the server refuses before it looks at a request, and what it says of itself."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from tubelet.apps import serve
from tubelet.apps.web.guard import COOKIE, Access, Guard
from tubelet.core.errors import InputError

TOKEN = "a token of some length"


def client(access: Access, host: str = "127.0.0.1:8000") -> TestClient:
    def fine(request: Request) -> Response:
        return PlainTextResponse("fine")

    def broken(request: Request) -> Response:
        raise RuntimeError("secret detail in /home/somebody")

    routes = [Route("/", fine, methods=["GET", "POST"]), Route("/broken", broken)]
    return TestClient(Guard(Starlette(routes=routes), access), base_url=f"http://{host}", follow_redirects=False)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "localhost:9", "[::1]:8000"])
def test_this_machine_is_answered(host: str) -> None:
    assert client(Access()).get("/", headers={"Host": host}).text == "fine"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7", "", "a@localhost", "[::1"])
def test_a_name_that_is_made_to_point_here_is_refused(host: str) -> None:
    for method in ("GET", "POST"):
        assert client(Access()).request(method, "/", headers={"Host": host}).status_code == 421


def test_a_server_that_listens_wider_knows_addresses_and_its_public_name_but_no_other() -> None:
    access = Access(token=None, wide=True, public="https://video.example.org")
    assert client(access, "192.168.0.7:8000").get("/").status_code == 200
    assert client(access, "video.example.org").get("/").status_code == 200
    assert client(access, "evil.example").get("/").status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:8000", "http://127.0.0.1:9"])
def test_a_post_of_another_page_is_refused(origin: str) -> None:
    assert client(Access()).post("/", headers={"Origin": origin}).status_code == 403


def test_a_post_that_says_it_is_cross_site_is_refused() -> None:
    assert client(Access()).post("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_our_own_page_and_programs_may_post() -> None:
    asking = client(Access())
    assert asking.post("/", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    assert asking.post("/").status_code == 200


def test_behind_a_proxy_the_public_origin_may_post() -> None:
    access = Access(public="https://video.example.org")
    asking = client(access, "video.example.org")
    assert asking.post("/", headers={"Origin": "https://video.example.org"}).status_code == 200
    assert asking.post("/", headers={"Origin": "https://evil.example"}).status_code == 403


def test_without_the_token_nothing_is_shown() -> None:
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"{COOKIE}=wrong"}, {"Cookie": "\x00;=;"}):
        assert client(Access(token=TOKEN)).get("/", headers=given).status_code == 401
    assert client(Access(token=TOKEN)).get("/?token=wrong").status_code == 401


def test_the_token_travels_once_in_the_address_and_then_as_a_cookie_that_scripts_cannot_read() -> None:
    asking = client(Access(token="long-enough-to-be-a-token"))
    handed = asking.get("/", params={"token": "long-enough-to-be-a-token", "a": "b"})
    assert (handed.status_code, handed.headers["location"]) == (303, "/?a=b")
    flags = handed.headers["set-cookie"].lower()
    assert "httponly" in flags
    assert "samesite=strict" in flags
    assert asking.get("/").text == "fine"  # the client keeps the cookie


def test_a_token_in_the_address_never_leads_to_another_host() -> None:
    handed = client(Access(token=TOKEN)).get("//evil.example/", params={"token": TOKEN})
    assert handed.headers["location"].startswith("/")
    assert not handed.headers["location"].startswith("//")


def test_a_program_may_carry_the_token_as_a_header() -> None:
    assert client(Access(token=TOKEN)).get("/", headers={"Authorization": f"Bearer {TOKEN}"}).text == "fine"


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, bytes]] = []
    compare: Callable[[bytes, bytes], bool] = secrets.compare_digest
    monkeypatch.setattr(secrets, "compare_digest", lambda a, b: (seen.append((a, b)), compare(a, b))[1])
    client(Access(token=TOKEN)).get("/", headers={"Authorization": "Bearer guess"})
    assert seen == [(TOKEN.encode(), b"guess")]


def test_every_answer_forbids_what_the_page_does_not_need() -> None:
    for answer in (
        client(Access()).get("/"),
        client(Access(), "evil.example").get("/"),
        client(Access()).get("/broken"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_no_stack_trace_and_no_message_reaches_a_browser() -> None:
    answer = client(Access()).get("/broken")
    assert answer.status_code == 500
    assert answer.text == "Internal Server Error"


def test_listening_wider_makes_a_token_and_listening_here_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(serve.TOKEN, raising=False)
    assert serve.choose_access("127.0.0.1", None) == Access()
    made = {serve.choose_access("0.0.0.0", None).token for _ in range(4)}
    assert len(made) == 4
    assert all(token is not None and len(token) >= 32 for token in made)
    assert serve.choose_access("127.0.0.1", "https://video.example.org/").public == "https://video.example.org"
    assert serve.choose_access("127.0.0.1", "https://video.example.org").token


def test_a_token_that_could_be_guessed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(serve.TOKEN, "short")
    with pytest.raises(InputError, match="at least 16 characters"):
        serve.choose_access("0.0.0.0", None)


@pytest.mark.parametrize("public", ["junk", "http://", "http://x/y", "http://[::1", "http://a\nb", "http://a b"])
def test_an_address_that_is_none_is_refused(public: str) -> None:
    with pytest.raises(InputError, match="--public: expected an address"):
        serve.choose_access("127.0.0.1", public)


def test_a_host_of_any_length_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="--host: expected an address") as caught:
        serve.listen("a" * 300 + ".com", 0)
    assert len(str(caught.value)) < 200


def test_a_place_that_is_taken_is_one_clear_line() -> None:
    taken = serve.listen("127.0.0.1", 0)
    with taken, pytest.raises(InputError, match="choose another with --host and --port"):
        serve.listen("127.0.0.1", taken.getsockname()[1])


def test_who_comes_before_the_server_is_up_waits() -> None:
    with serve.listen("127.0.0.1", 0) as listener:
        place = listener.getsockname()
        with socket.create_connection(place, timeout=60) as caller:
            assert caller.getpeername() == place
