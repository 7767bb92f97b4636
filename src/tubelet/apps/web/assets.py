"""Serve the page's own files from memory: read and compressed once, looked up by name and never by path.

What several HTML files have in common is in page/parts: a comment `<!-- parts/head.html -->` stands for such a file.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI, Request
from starlette.responses import Response

PAGE = Path(__file__).with_name("page")
INCLUDED = re.compile(rb"<!-- (parts/[a-z]+\.html) -->")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """The content of one file of the page."""

    body: bytes
    compressed: bytes  # gzip
    type: str  # MIME
    tag: str  # for the ETag header


def add(app: FastAPI) -> None:
    """Add the routes that serve the page's files."""

    @app.get("/")
    def index(request: Request) -> Response:
        return asset("index.html", request)

    @app.get("/page/{name}")
    def part(name: str, request: Request) -> Response:
        return asset(name, request)

    @app.get("/favicon.ico")
    def icon(request: Request) -> Response:
        return asset("icon.svg", request)


def asset(name: str, request: Request) -> Response:
    """Answer with a file of the page, compressed if the browser accepts gzip; 304 if it has this version already.

    Raises KeyError for an unknown name; the disk is not searched.
    """
    content = assets()[name]
    headers = {"ETag": content.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}

    if request.headers.get("if-none-match") == content.tag:
        return Response(None, 304, headers)

    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(content.compressed, 200, headers, content.type)

    return Response(content.body, 200, headers, content.type)


@cache
def assets() -> dict[str, Asset]:
    """All files of the page by name, read at the first call."""
    files = {}
    for path in sorted(PAGE.iterdir()):
        if path.suffix not in TYPES:
            continue
        body = INCLUDED.sub(_part, path.read_bytes())
        digest = hashlib.sha256(body).hexdigest()
        files[path.name] = Asset(
            body=body,
            compressed=gzip.compress(body, 9, mtime=0),
            type=TYPES[path.suffix],
            tag=f'"{digest[:16]}"',
        )
    return files


def _part(place: re.Match[bytes]) -> bytes:
    """The content of a file of page/parts, without its last line break."""
    return (PAGE / place[1].decode()).read_bytes().removesuffix(b"\n")
