"""How often one user, or one address, may ask, and how often an address may guess a token.

Requests fill a bucket that leaks: `rate` of them a second go on for ever, and BURST seconds' worth at once. A guess is
a token that is nobody's; the same one again is no new guess, because a page with an old token asks again and again.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable

BURST = 10.0  # seconds
MOST_KEYS = 10_000  # that are remembered; then those that asked longest ago are forgotten
MINUTE = 60.0

Clock = Callable[[], float]


class Buckets:
    """One bucket for each key. Not thread-safe: only the event loop uses it.

    >>> buckets = Buckets(rate=2, burst=3, clock=lambda: 0.0)
    >>> [buckets.wait("a"), buckets.wait("a"), buckets.wait("a"), buckets.wait("a"), buckets.wait("b")]
    [0.0, 0.0, 0.0, 0.5, 0.0]
    """

    def __init__(self, rate: float, burst: float | None = None, clock: Clock = time.monotonic) -> None:
        self.rate = rate  # a second; 0 is no limit
        self._burst = rate * BURST if burst is None else burst
        self._clock = clock
        self._full: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> level, and when it was

    def wait(self, key: str) -> float:
        """Seconds until this key may ask; 0 if it may now, which counts as a request."""
        if not self.rate:
            return 0.0
        now = self._clock()
        level, since = self._full.get(key, (0.0, now))
        level = max(level - (now - since) * self.rate, 0.0)
        if level + 1 > self._burst:
            return (level + 1 - self._burst) / self.rate

        self._full[key] = (level + 1, now)
        self._full.move_to_end(key)
        if len(self._full) > MOST_KEYS:
            self._full.popitem(last=False)
        return 0.0


class Guesses:
    """The wrong tokens of each address in the last minute. Not thread-safe."""

    def __init__(self, most: int, clock: Clock = time.monotonic) -> None:
        self._most = most  # 0 is no limit
        self._clock = clock
        self._wrong: OrderedDict[str, dict[bytes, float]] = OrderedDict()  # address -> hash of a token -> when first

    def wait(self, address: str) -> float:
        """Seconds until an address may try a token."""
        recent = self._recent(address)
        if not self._most or len(recent) < self._most:
            return 0.0
        return min(recent.values()) + MINUTE - self._clock()

    def note(self, address: str, token: str) -> None:
        """Note that a token of this address was nobody's."""
        recent = self._recent(address)
        recent.setdefault(hashlib.sha256(token.encode()).digest(), self._clock())
        self._wrong[address] = recent
        self._wrong.move_to_end(address)
        if len(self._wrong) > MOST_KEYS:
            self._wrong.popitem(last=False)

    def _recent(self, address: str) -> dict[bytes, float]:
        start = self._clock() - MINUTE
        return {token: when for token, when in self._wrong.get(address, {}).items() if when > start}


class Rates:
    """The limits of one server."""

    def __init__(self, requests_a_second: float, guesses_a_minute: int, clock: Clock = time.monotonic) -> None:
        self.addresses = Buckets(requests_a_second, clock=clock)
        self.users = Buckets(requests_a_second, clock=clock)
        self.guesses = Guesses(guesses_a_minute, clock=clock)


def retry_after(seconds: float) -> dict[str, str]:
    """The header that says when to ask again."""
    return {"Retry-After": str(max(math.ceil(seconds), 1))}
