"""No address takes all: of each, so many requests at the same time, whether they upload, watch or wait.

Behind a proxy on this machine the address is the one that the proxy tells (X-Forwarded-For).
"""

from __future__ import annotations

from collections import Counter

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

RETRY_AFTER = 5  # seconds


class Shares:
    """ASGI middleware; `each` 0 is no limit."""

    def __init__(self, app: ASGIApp, each: int) -> None:
        self.app = app
        self.each = each
        self._running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asker = address(HTTPConnection(scope))
        if self.each and self._running[asker] >= self.each:
            line = f"busy: {self.each} requests from your address are under way; try again in a while"
            await JSONResponse({"error": line}, 503, {"Retry-After": str(RETRY_AFTER)})(scope, receive, send)
            return
        self._running[asker] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._running[asker] -= 1
            if not self._running[asker]:
                del self._running[asker]


def address(request: HTTPConnection) -> str:
    """Where a request comes from, without the port."""
    return request.client.host if request.client else ""
