"""The page of `tubelet stream`: the newest picture as motion JPEG. A slow viewer skips pictures; none are queued."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import cv2
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp

from tubelet.apps import serve
from tubelet.apps.web.assets import asset
from tubelet.apps.web.bodies import Bodies
from tubelet.apps.web.guard import Access, Guard
from tubelet.apps.web.limits import Patience
from tubelet.apps.web.shares import Shares

if TYPE_CHECKING:
    from tubelet.core.types import Frame

QUALITY = 85
BOUNDARY = "picture"
MAX_VIEWERS = 8
EACH = 6  # requests of one address at the same time
PATIENCE = Patience(reader=15)
POLL_SECONDS = 0.01


class Newest:
    """The newest picture; drawn and compressed only while there are viewers."""

    def __init__(self) -> None:
        self.number = 0  # of pictures so far
        self.jpeg = b""
        self.caption = "waiting for the first picture"
        self.viewers = 0
        self.ended = False

    def offer(self, frame: Frame, rate: float) -> None:
        """Replace the picture by a finished frame; `rate` is the current number of frames a second."""
        from tubelet.apps.picture import picture

        objects = [f"{name} {id}" for name, id in zip(frame.names, frame.ids.tolist(), strict=True)]
        names = ", ".join(objects) or "no object"
        self.caption = f"{rate:.1f} frames/s · {names}"

        if self.viewers:
            image = picture(frame, rate)[..., ::-1]
            _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            self.jpeg = jpeg.tobytes()
            self.number += 1


@contextmanager
def show_live(host: str, port: int) -> Iterator[Callable[[Frame, float], None]]:
    """Serve the page in a thread while the block runs; yields the function that takes frames and their rate."""
    import uvicorn

    from tubelet.apps.web.connections import bounded

    newest = Newest()
    access = serve.choose_access(host, None)

    with closing(serve.listen(host, port)) as listener:
        settings = uvicorn.Config(
            build(newest, access),
            http=bounded(PATIENCE),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            limit_concurrency=64,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="page", daemon=True)
        thread.start()
        serve.announce(host, listener, access)
        try:
            yield newest.offer
        finally:
            newest.ended = True
            server.should_exit = True
            thread.join(3)


def build(newest: Newest, access: Access) -> ASGIApp:
    """Build the application: the page, its stream of pictures, and the caption below them."""
    app = FastAPI(title="tubelet", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def index(request: Request) -> Response:
        return asset("live.html", request)

    @app.get("/page/{name}")
    def part(name: str, request: Request) -> Response:
        if name not in ("live.js", "style.css", "icon.svg"):
            return PlainTextResponse("not here", 404)
        return asset(name, request)

    @app.get("/live")
    def live() -> Response:
        if newest.viewers >= MAX_VIEWERS:
            return PlainTextResponse("busy: as many are looking as are allowed", 503, {"Retry-After": "10"})
        return StreamingResponse(_pictures(newest), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")

    @app.get("/caption")
    def caption() -> Response:
        return PlainTextResponse(newest.caption)

    return Bodies(Guard(Shares(app, EACH), access), PATIENCE)


async def _pictures(newest: Newest) -> AsyncIterator[bytes]:
    """Yield each new picture as a part of a multipart response, as fast as the viewer takes them."""
    newest.viewers += 1
    try:
        shown = newest.number
        while not newest.ended:
            if newest.number == shown:
                await asyncio.sleep(POLL_SECONDS)
                continue

            shown = newest.number
            jpeg = newest.jpeg
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"
    finally:
        newest.viewers -= 1
