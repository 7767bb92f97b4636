"""Behind a reverse proxy: who is believed, and the example of the docs with a real nginx, where there is one."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tubelet.apps import serve
from tubelet.apps.web import server
from tubelet.apps.web.audit import FILE
from tubelet.apps.web.guard import Access
from tubelet.core.errors import InputError
from user_fixtures import Page, page, token_of, user

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
HOST = "video.example.org"
PUBLIC = f"https://{HOST}"
DOCS = Path(__file__).resolve().parents[3] / "docs" / "serve.md"
SECONDS = 30.0


@contextmanager
def behind(proxy: str | None, root: Path) -> Iterator[tuple[Page, int]]:
    """A server of one user that believes `proxy`, and its port."""
    with page(root, user("anna")) as served, serve.listen("127.0.0.1", 0) as listener:
        access = Access(users=(user("anna"),), public=PUBLIC)
        running = serve.configured(server.build(served.jobs, access), proxy=proxy, ending=served.jobs.end_streams)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield served, listener.getsockname()[1]
        running.should_exit = True
        thread.join(SECONDS)


def addresses(root: Path) -> list[str]:
    """Whom the audit log names, line by line."""
    return [json.loads(line)["address"] for line in (root / FILE).read_text().splitlines()]


def refused(port: int, source: str, forwarded: str) -> None:
    """Send a request that the audit log has a line for."""
    transport = httpx.HTTPTransport(local_address=source)
    with httpx.Client(transport=transport, timeout=SECONDS) as asking:
        answer = asking.get(f"http://127.0.0.1:{port}/", headers={"X-Forwarded-For": forwarded})
    assert answer.status_code == 401


def test_the_named_proxy_alone_is_believed_when_it_tells_an_address(tmp_path: Path) -> None:
    with behind("127.0.0.2", tmp_path) as (_, port):
        refused(port, "127.0.0.2", "192.0.2.7")
        refused(port, "127.0.0.1", "192.0.2.8")
        refused(port, "127.0.0.2", "6.6.6.6, 192.0.2.9")  # what a browser said of itself comes first
    assert addresses(tmp_path) == ["192.0.2.7", "127.0.0.1", "192.0.2.9"]


def test_without_a_public_address_no_proxy_is_believed(tmp_path: Path) -> None:
    with behind(None, tmp_path) as (_, port):
        refused(port, "127.0.0.1", "192.0.2.7")
    assert addresses(tmp_path) == ["127.0.0.1"]


@pytest.mark.parametrize("proxy", ["*", "", "10.0.0.0/8", "proxy.example.org", "127.0.0.1,10.0.0.1"])
def test_a_proxy_is_one_address(proxy: str) -> None:
    with pytest.raises(InputError, match="--proxy: expected an address"):
        serve.check_proxy(proxy)


# nginx


@contextmanager
def nginx(folder: Path, port: int) -> Iterator[httpx.Client]:
    """The example of the docs before the server at `port`, and a browser that knows its certificate."""
    if NGINX is None or shutil.which("openssl") is None:
        pytest.skip("no nginx, or no openssl, on this machine")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    command = ["openssl", "req", "-x509", *curve, *names, "-days", "2", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)

    door = folder / "door"
    block = example()
    for old, new in (
        ("listen 443", f"listen unix:{door}"),
        ("/etc/ssl/video.example.org.pem", str(certificate)),
        ("/etc/ssl/video.example.org.key", str(key)),
        ("127.0.0.1:8000", f"127.0.0.1:{port}"),
    ):
        assert old in block
        block = block.replace(old, new)
    temporary = "".join(f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    settings = f"daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{}}"
    (folder / "nginx.conf").write_text(f"{settings} http {{ access_log off; {temporary} {block} }}")

    verify = ssl.create_default_context(cafile=str(certificate))
    transport = httpx.HTTPTransport(uds=str(door), verify=verify, retries=5)
    with subprocess.Popen([NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]) as process:
        try:
            while not door.exists():
                assert process.poll() is None, "nginx refused the example"
                time.sleep(0.02)
            once = {"Connection": "close"}  # nginx ends a connection where a body was refused, and that may come late
            with httpx.Client(transport=transport, base_url=PUBLIC, timeout=SECONDS, headers=once) as asking:
                yield asking
        finally:
            process.terminate()


def example() -> str:
    """The block for nginx in the docs."""
    found = re.search(r"```nginx\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_nginx_of_the_docs_carries_log_in_uploads_and_progress(tmp_path: Path) -> None:
    (tmp_path / "nginx").mkdir()
    with behind("127.0.0.1", tmp_path / "data") as (_, port), nginx(tmp_path / "nginx", port) as asking:
        assert asking.get("/").status_code == 401

        entered = asking.get("/", params={"token": token_of("anna")}, headers={"X-Forwarded-For": "6.6.6.6"})
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        assert "secure" in entered.headers["set-cookie"].lower()
        shown = asking.get("/")
        assert shown.status_code == 200
        assert "max-age" in shown.headers["strict-transport-security"]
        assert asking.get("/api/about").json()["user"] == "anna"

        ours, theirs = {"Origin": PUBLIC}, {"Origin": "https://evil.example"}
        assert asking.post("/api/videos", content=b"x", headers=theirs).status_code == 403
        large = asking.post("/api/videos", content=bytes(3_000_000), headers=ours)  # more than nginx takes by itself
        assert (large.status_code, large.json()["error"]) == (422, "this file is not a video that can be read")
        video = asking.post("/api/example", headers=ours).json()["id"]

        job = asking.post("/api/jobs", json={"video": video, "model": "default"}, headers=ours).json()["id"]
        with asking.stream("GET", f"/api/jobs/{job}/events") as events:
            line = next(events.iter_lines())  # it comes while the stream goes on
        assert json.loads(line.removeprefix("data: "))["state"] == "queued"
        assert asking.delete(f"/api/jobs/{job}", headers=ours).status_code == 204
    assert set(addresses(tmp_path / "data")) == {
        "unix:"
    }  # as nginx calls its door, and not as the browser called itself
