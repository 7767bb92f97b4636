"""The page's own files: read once, packed once, found by name in a list and never on the disk."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI, Request
from starlette.responses import Response

PAGE = Path(__file__).with_name("page")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A file of the page, read once."""

    body: bytes
    packed: bytes
    type: str
    tag: str


def add(app: FastAPI) -> None:
    """Routes of the page."""

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
    """A file of the page. A name that is none of them is a KeyError: nothing is looked up on the disk."""
    found = assets()[name]
    headers = {"ETag": found.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == found.tag:
        return Response(None, 304, headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, 200, {**headers, "Content-Encoding": "gzip"}, found.type)
    return Response(found.body, 200, headers, found.type)


@cache
def assets() -> dict[str, Asset]:
    """All files of the page by name."""
    made = {}
    for path in sorted(PAGE.iterdir()):
        if path.suffix in TYPES:
            body = path.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            made[path.name] = Asset(body, gzip.compress(body, 9, mtime=0), TYPES[path.suffix], tag)
    return made
