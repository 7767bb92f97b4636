"""What a stranger's address may reach."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from tubelet.core.errors import InputError
from tubelet.core.untrusted import public_hosts
from tubelet.core.untrusted.addresses import fetch

PRIVATE = [
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
    "198.18.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "::127.0.0.1", "::ffff:127.0.0.1", "fe80::1%eth0",
    "fc00::1", "fec0::1", "ff02::1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:808:808::", "2001:0:1::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


class _Handler(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is its own."""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.path.split("?to=")[1])
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"film")


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server on 127.0.0.1, which also hears what is sent to 127.0.0.2."""
    _Handler.asked.clear()
    with ThreadingHTTPServer(("0.0.0.0", 0), _Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_addresses_of_machines_and_private_networks_are_not_public() -> None:
    assert [address for address in PRIVATE if public_hosts.is_public(address)] == []
    assert [address for address in PUBLIC if not public_hosts.is_public(address)] == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "0x7f.1", "[::1]"])
def test_this_machine_is_not_asked_however_it_is_written(host: str, port: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"only public addresses are fetched|cannot be fetched"):
        fetch(f"http://{host}:{port}/film", tmp_path / "film", public=True)
    assert _Handler.asked == []


def test_a_name_that_stands_for_this_machine_is_refused(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("8.8.8.8", "127.0.0.1")]
    monkeypatch.setattr(public_hosts.socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(InputError, match=r"films\.example: this address is of this machine or of a private network"):
        fetch("http://films.example/film", tmp_path / "film", public=True)
    assert _Handler.asked == []


def test_a_redirect_to_a_private_address_is_refused(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_hosts, "is_public", lambda address: address == "127.0.0.1")
    with pytest.raises(InputError, match=r"127\.0\.0\.2: this"):
        fetch(f"http://127.0.0.1:{port}/moved?to=http://127.0.0.2:{port}/film", tmp_path / "film", public=True)
    assert len(_Handler.asked) == 1
    fetch(f"http://127.0.0.1:{port}/moved?to=http://127.0.0.1:{port}/film", tmp_path / "film", public=True)
    assert (tmp_path / "film").read_bytes() == b"film"


def test_a_proxy_of_the_environment_is_not_used_for_a_strangers_address(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    with pytest.raises(InputError, match="only public addresses are fetched"):
        fetch("http://127.0.0.1:9/film", tmp_path / "film", public=True)
    assert _Handler.asked == []


def test_an_address_with_letters_of_any_language_is_asked_for_as_browsers_do(port: int, tmp_path: Path) -> None:
    fetch(f"http://127.0.0.1:{port}/f\xfc\xdfe%20und.mp4?q=\xe4", tmp_path / "film")
    assert _Handler.asked == ["/f%C3%BC%C3%9Fe%20und.mp4?q=%C3%A4"]
