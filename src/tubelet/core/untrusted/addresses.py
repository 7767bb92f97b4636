"""Fetch a file from an http or https address, within bounds of size and time. What it is, only its content says."""

from __future__ import annotations

import base64
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from tubelet.core.errors import InputError
from tubelet.core.untrusted.public_hosts import PublicHTTPHandler, PublicHTTPSHandler

LARGEST_DOWNLOAD = 4 << 30  # bytes
PATIENCE = 600.0  # seconds for the whole file
SILENCE = 20.0  # seconds without a byte
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_CHUNK = 1 << 18
_KEPT = "!$%&'()*+,/:;=?@[]~"  # in a path or query, beside letters and digits; a percent sign is of an escape
_STREAMS = ("multipart/x-mixed-replace", "mpegurl", "dash+xml")  # types of what has no end, or lists other addresses
_PAGES = (b"<!doctype html", b"<html", b"<head")
_PLAYLISTS = (b"#extm3u", b"<mpd", b"<?xml", b"ffconcat", b"v=0", b"[playlist]")


def is_address(source: object) -> bool:
    """Whether this text begins with a scheme and `://`; anything else is a path, wherever it has a colon.

    A scheme has two letters or more: one is a drive. A folder whose name could be one is reached by `./`.

    Example:
        >>> from tubelet.core.untrusted.addresses import is_address
        >>> [is_address(source) for source in ("rtsp://camera/1", "s3://bucket", "films/a://b.mp4", "./s3://b", "c://b")]
        [True, True, False, False, False]
    """
    return isinstance(source, str) and _ADDRESS.match(source) is not None


def is_web_address(source: object) -> bool:
    """Whether this is an http or https address.

    Example:
        >>> from tubelet.core.untrusted.addresses import is_web_address
        >>> is_web_address("https://example.org/dog.mp4"), is_web_address("dog.mp4")
        (True, False)
    """
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def name_of(address: str) -> str:
    """The file's name in an address without its suffix, else the host: for people, nothing is opened by it.

    Example:
        >>> from tubelet.core.untrusted.addresses import name_of
        >>> name_of("https://example.org/films/my%20dog.mp4?size=2"), name_of("https://example.org/")
        ('my dog', 'example.org')
    """
    parts = _split(address)
    stem = Path(unquote(parts.path)).stem
    return re.sub(r"[/\\\0]", "_", stem).lstrip(".") or parts.hostname or "video"


def fetch(
    address: str,
    target: Path,
    *,
    largest: int | None = None,
    patience: float = PATIENCE,
    public: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> None:
    """Write the file at an address to `target`.

    Args:
        address: http or https.
        target: The file to write.
        largest: Most bytes; LARGEST_DOWNLOAD by default.
        patience: Seconds for the whole file.
        public: Connect to public addresses of the internet alone, at every redirect, and through no proxy: for
            addresses that somebody else gives, who must not reach this machine or its network.
        progress: Called with the bytes so far and all of them, None if unknown; may raise to stop.

    Raises:
        InputError: if it cannot be fetched, is a page, a playlist or a live stream, or exceeds the bounds.
    """
    shown = _shown(address)
    largest = largest or LARGEST_DOWNLOAD
    deadline = time.monotonic() + patience
    try:
        with _opener(public).open(_request(address), timeout=SILENCE) as response, open(target, "wb") as file:
            _check_type(response.headers.get_content_type(), shown)
            total = _check_length(response.headers.get("Content-Length"), largest, shown)
            size = 0
            for part in _parts(response, largest, deadline, shown):
                file.write(part)
                size += len(part)
                progress(size, total)
    except urllib.error.HTTPError as error:
        raise InputError(f"{shown}: the server answers {error.code} ({error.reason})") from None
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{shown}: cannot be fetched ({str(reason).lower()})") from None


def _parts(response: Any, largest: int, deadline: float, shown: str) -> Iterator[bytes]:
    """The content, checked as it comes."""
    size = 0
    while part := response.read1(_CHUNK):
        if size == 0:
            _check_start(part, shown)
        size += len(part)
        if size > largest or time.monotonic() > deadline:
            more = f"is still sending after {size} bytes"
            raise InputError(
                f"{shown}: {more}; if it is a live stream, read it with `tubelet stream` or tubelet.stream"
            )
        yield part
    if size == 0:
        raise InputError(f"{shown}: an empty file")


def _check_type(kind: str, shown: str) -> None:
    if any(word in kind.lower() for word in _STREAMS):
        raise InputError(f"{shown}: a live stream ({kind}); read it with `tubelet stream` or tubelet.stream")


def _check_length(length: str | None, largest: int, shown: str) -> int | None:
    """The length that the server declares, bytes. Raises InputError if it is over `largest`."""
    if length is None or not length.isdecimal():
        return None
    if int(length[:20]) > largest:
        raise InputError(f"{shown}: expected a file of at most {largest} bytes, found {length[:20]}")
    return int(length[:20])


def _check_start(start: bytes, shown: str) -> None:
    """Raise InputError for a page or a playlist, which could name other files and addresses."""
    head = start[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(_PAGES):
        raise InputError(f"{shown}: a page, not a video; give the address of the video file itself")
    if head.startswith(_PLAYLISTS):
        raise InputError(f"{shown}: a playlist; read it with `tubelet stream` or tubelet.stream")


def _request(address: str) -> urllib.request.Request:
    """The request; a user's name and password are sent to this server alone, not after a redirect."""
    parts = _split(address)
    user, at, host = parts.netloc.rpartition("@")
    escaped = parts._replace(netloc=host, path=quote(parts.path, _KEPT), query=quote(parts.query, _KEPT), fragment="")
    request = urllib.request.Request(urlunsplit(escaped))
    if at:
        token = base64.b64encode(unquote(user).encode()).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _opener(public: bool) -> urllib.request.OpenerDirector:
    """Opens http and https alone, also after a redirect; of `public` hosts alone, if asked for."""
    # a proxy would look up the name itself, so that its address could not be checked
    anywhere = (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler())
    opener = urllib.request.OpenerDirector()
    for handler in (
        *((PublicHTTPHandler(), PublicHTTPSHandler()) if public else anywhere),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "tubelet")]
    return opener


def _shown(address: str) -> str:
    """The address without a user's name and password, and without its query, which may hold a token."""
    parts = _split(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _split(address: str) -> Any:
    try:
        return urlsplit(address)
    except ValueError:
        raise InputError(f"{address[:100]}: not an address") from None
