"""Limit how many requests one address may have open at the same time, whether they upload, watch or wait.

Behind a proxy on this machine, the address is the one in the proxy's X-Forwarded-For header.
"""

from __future__ import annotations

import ipaddress
from collections import Counter

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

RETRY_AFTER = 5  # seconds


class Shares:
    """ASGI middleware that answers 503 to an address with `each` requests under way; 0 is no limit."""

    def __init__(self, app: ASGIApp, each: int) -> None:
        self.app = app
        self.each = each
        self._running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = address(HTTPConnection(scope))
        if self.each and self._running[client] >= self.each:
            line = f"busy: {self.each} requests from your address are under way; try again in a while"
            response = JSONResponse({"error": line}, 503, {"Retry-After": str(RETRY_AFTER)})
            await response(scope, receive, send)
            return

        self._running[client] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]


def address(request: HTTPConnection) -> str:
    """The IP address that a request comes from, of IPv6 its network of 64 bits; empty if unknown.

    Whoever has one address of such a network has all of them.
    """
    host = request.client.host if request.client else ""
    if ":" not in host:
        return host
    try:
        return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False).network_address)
    except ValueError:
        return host
