"""What one connection may cost: seconds for its headers, seconds for reading what was asked for, and a place.

Whoever connects has `Patience.head` seconds to say what is wanted. Where all places are taken, a newcomer gets that of
a connection that waits for a request, the oldest of the address that has most of them: so connections that never
finish their headers push out each other, and nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from tubelet.apps.web.limits import Patience

LOOK_EVERY = 1.0  # seconds


def bounded(patience: Patience) -> type[asyncio.Protocol]:
    """The class that uvicorn's `http` setting takes."""

    class Connection(_Connection):
        pass

    Connection.patience = patience
    return Connection


class _Connection(H11Protocol):
    patience: Patience
    head_since: float | None = None  # when the headers began that are not complete
    blocked_since: float | None = None  # when the reader stopped taking what is ready for it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_since = time.monotonic()
        self._look_again()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            _make_room([other for other in self.connections if isinstance(other, _Connection) and other is not self])

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

    def _look_again(self) -> None:
        self._timer = self.loop.call_later(min(LOOK_EVERY, self.patience.head), self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        self._look_again()
        now = time.monotonic()
        if self.transport.is_closing() and self.blocked_since is None:
            self.blocked_since = now  # closed as soon as the reader has taken the rest
        if self.blocked_since is not None and now - self.blocked_since > self.patience.reader:
            self.transport.abort()
        elif self.waits and self.head_since is not None and now - self.head_since > self.patience.head:
            self.transport.close()


def _make_room(connections: list[_Connection]) -> None:
    waiting = [other for other in connections if other.waits and not other.transport.is_closing()]
    if not waiting:
        return  # uvicorn answers 503
    shares = Counter(_address(connection) for connection in waiting)
    greatest = max(shares, key=lambda address: shares[address])
    mine = [connection for connection in waiting if _address(connection) == greatest]
    min(mine, key=lambda connection: connection.head_since or 0.0).transport.abort()


def _address(connection: Any) -> str:
    return connection.client[0] if connection.client else ""
