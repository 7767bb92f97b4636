"""Limit how long a connection may stay idle, and which connection is closed when there are too many.

A client has `Patience.head` seconds to send its headers and `Patience.reader` seconds to read what is ready for it. If
the server has its maximum of connections, a new one replaces one without a request: the oldest of the address with most
of them. So connections that never finish their headers only replace each other.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from tubelet.apps.web.limits import Patience

CHECK_EVERY = 1.0  # seconds


def bounded(patience: Patience) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn's `http` setting, with these time limits."""

    class Connection(_Connection):
        pass

    Connection.patience = patience
    return Connection


class _Connection(H11Protocol):
    patience: Patience
    head_since: float | None = None  # start of the wait for complete headers
    blocked_since: float | None = None  # when the client stopped reading what is ready for it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_since = time.monotonic()
        self._schedule_check()

        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            others = [
                connection
                for connection in self.connections
                if isinstance(connection, _Connection) and connection is not self
            ]
            _make_room(others)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.waits:
            self.head_since = None
        elif self.head_since is None:
            self.head_since = time.monotonic()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.blocked_since = time.monotonic()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.blocked_since = None

    @property
    def waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _schedule_check(self) -> None:
        delay = min(CHECK_EVERY, self.patience.head)
        self._timer = self.loop.call_later(delay, self._check)

    def _check(self) -> None:
        """Close this connection if the client is too slow."""
        self._schedule_check()
        now = time.monotonic()
        if self.transport.is_closing() and self.blocked_since is None:
            self.blocked_since = now  # it closes as soon as the client has read the rest

        if self.blocked_since is not None and now - self.blocked_since > self.patience.reader:
            self.transport.abort()
        elif self.waits and self.head_since is not None and now - self.head_since > self.patience.head:
            self.transport.close()


def _make_room(connections: list[_Connection]) -> None:
    """Close one connection that waits for a request, of the address with most of them."""
    waiting = [connection for connection in connections if connection.waits and not connection.transport.is_closing()]
    if not waiting:
        return  # uvicorn answers 503

    counts = Counter(_address(connection) for connection in waiting)
    busiest = max(counts, key=lambda address: counts[address])
    candidates = [connection for connection in waiting if _address(connection) == busiest]
    oldest = min(candidates, key=lambda connection: connection.head_since or 0.0)
    oldest.transport.abort()


def _address(connection: Any) -> str:
    return connection.client[0] if connection.client else ""
