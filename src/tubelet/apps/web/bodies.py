"""Limit the size and the slowness of request bodies.

Each request starts with `Patience.body` seconds of credit. Waiting for bytes spends it; received bytes earn it back at
`Patience.rate`, up to where it started. So one pause is forgiven, but one byte every five seconds is not. Time that the
server itself takes between two reads costs no credit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tubelet.apps.web.limits import Patience

LARGEST = 100_000  # bytes of a body that is not an upload
LINGER_BYTES = 64_000_000  # most that is read and dropped after a refusal, if the body's length was declared
LINGER_ENDLESS = 4_000_000  # the same for a chunked body, which may never end


class Bodies:
    """ASGI middleware that limits request bodies to LARGEST bytes and to the times of `patience`.

    The paths `unbounded` have no limit of bytes here: their routes count them themselves.
    """

    def __init__(self, app: ASGIApp, patience: Patience, unbounded: Collection[str] = ()) -> None:
        self.app = app
        self.patience = patience
        self.unbounded = unbounded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        largest = None if scope["path"] in self.unbounded else LARGEST
        body = _Body(scope, receive, send, self.patience, largest)
        await self.app(scope, body.receive, body.send)


class _Body:
    """One request's body and response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, patience: Patience, largest: int | None) -> None:
        self._receive = receive
        self._send = send
        self._patience = patience
        self._largest = largest

        headers = Headers(scope=scope)
        self._endless = "transfer-encoding" in headers
        self._unread = self._endless or headers.get("content-length", "0") != "0"

        self._credit = patience.body
        self._end = time.monotonic() + patience.whole
        self._size = 0
        self._answered = False

    async def receive(self) -> Message:
        """Receive the next message. Raises HTTPException if the body is too slow or too large."""
        if not self._unread:
            return await self._receive()

        started = time.monotonic()
        time_left = max(min(self._credit, self._end - started), 0)
        try:
            message = await asyncio.wait_for(self._receive(), time_left)
        except TimeoutError:
            return self._refuse(408, "the request came too slowly and was given up")

        size = len(message.get("body", b""))
        waited = time.monotonic() - started
        self._credit -= waited - size / self._patience.rate
        self._credit = min(self._credit, self._patience.body)
        self._unread = message.get("more_body", False)
        self._size += size

        if self._largest is not None and self._size > self._largest:
            return self._refuse(413, f"this request is too large: at most {self._largest:,} bytes are taken")
        return message

    async def send(self, message: Message) -> None:
        """Pass a message of the response on; if the body was not read to its end, close the connection afterwards."""
        if message["type"] == "http.response.start":
            self._answered = True
            if self._unread:
                MutableHeaders(scope=message)["Connection"] = "close"
        elif self._unread and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        """Read and drop some of the rest: a client that is cut off at once never reads the response."""
        end = time.monotonic() + self._patience.linger
        largest = LINGER_ENDLESS if self._endless else LINGER_BYTES
        dropped = 0
        while self._unread and dropped < largest:
            time_left = max(end - time.monotonic(), 0)
            try:
                message = await asyncio.wait_for(self._receive(), time_left)
            except TimeoutError:
                return
            dropped += len(message.get("body", b""))
            self._unread = message.get("more_body", False)

    def _refuse(self, status: int, line: str) -> Message:
        if self._answered:  # a second response is impossible, so the application sees a disconnected client
            return {"type": "http.disconnect"}
        raise HTTPException(status, line)
