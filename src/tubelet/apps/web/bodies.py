"""What a request's body may cost: so many bytes, at no less than a rate, and none after it was refused.

A sender has some seconds of credit. Waiting for bytes spends it, bytes earn it back at the least rate, never beyond
what it was. So a pause is forgiven, and a byte every five seconds is not. The server's own slowness costs no credit.
"""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tubelet.apps.web.limits import Patience

LARGEST = 100_000  # bytes of a body that is no upload
LINGER_BYTES = 64_000_000  # thrown away after a refusal, of a body whose length was declared
LINGER_ENDLESS = 4_000_000  # the same, of one that may never end


class Bodies:
    """ASGI middleware around everything that reads bodies or refuses to; the path `unbounded` counts its own bytes."""

    def __init__(self, app: ASGIApp, patience: Patience, unbounded: str = "") -> None:
        self.app = app
        self.patience = patience
        self.unbounded = unbounded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        largest = None if scope["path"] == self.unbounded else LARGEST
        body = _Body(scope, receive, send, self.patience, largest)
        await self.app(scope, body.receive, body.send)


class _Body:
    """One request's body, and its answer."""

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
        """The next message; raises HTTPException for a body that is too slow or too large."""
        if not self._unread:
            return await self._receive()
        started = time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(min(self._credit, self._end - started), 0))
        except TimeoutError:
            return self._refuse(408, "the request came too slowly and was given up")
        size = len(message.get("body", b""))
        self._credit -= time.monotonic() - started - size / self._patience.rate
        self._credit = min(self._credit, self._patience.body)
        self._unread = message.get("more_body", False)
        self._size += size
        if self._largest is not None and self._size > self._largest:
            return self._refuse(413, f"this request is too large: at most {self._largest:,} bytes are taken")
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on. Where the body was not read to its end, the connection is closed after it."""
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
        """Throw away some of the rest: a sender that is cut off at once never reads the answer."""
        end = time.monotonic() + self._patience.linger
        largest = LINGER_ENDLESS if self._endless else LINGER_BYTES
        taken = 0
        while self._unread and taken < largest:
            try:
                message = await asyncio.wait_for(self._receive(), max(end - time.monotonic(), 0))
            except TimeoutError:
                return
            taken += len(message.get("body", b""))
            self._unread = message.get("more_body", False)

    def _refuse(self, status: int, line: str) -> Message:
        if self._answered:  # whoever waits for the end of the connection gets it
            return {"type": "http.disconnect"}
        raise HTTPException(status, line)
