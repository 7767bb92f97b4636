"""Windows that overlap, made one: frame by frame, each as soon as no later window can touch it.

What several windows say of a frame is averaged. Of a frame that no window predicts (a spread window picks a few), what
its neighbours say is blended; beyond the first and the last it is copied. Masks of objects and maps of classes are
joined alike: they differ in what is said of a frame, `Said`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, Self, TypeVar


class Said(Protocol):
    """What windows say of one frame."""

    def plus(self, other: Self) -> Self:
        """Together with what another window says of the same frame."""
        ...

    def mean(self) -> Self:
        """As if one window had said the average of all."""
        ...

    def towards(self, later: Self, weight: float) -> Self:
        """The mean of a frame that lies `weight` of the way to a later one."""
        ...


SoftFrame = TypeVar("SoftFrame", bound=Said)


class WindowOverlaps(Generic[SoftFrame]):
    """Joins what windows say. Holds only the frames that a later window may still touch, or that are blended from."""

    def __init__(self) -> None:
        self.pending: dict[int, SoftFrame] = {}
        self._next = 0

    def add(self, t: int, said: SoftFrame) -> None:
        """Take in what one window says of frame t."""
        self.pending[t] = self.pending[t].plus(said) if t in self.pending else said

    def release(self, before: int) -> Iterator[tuple[int, SoftFrame | None]]:
        """Finish the frames up to, not including, `before`, in order; None where no window said anything at all."""
        while self._next < before:
            t, self._next = self._next, self._next + 1
            yield t, self._frame(t)

    def rest(self) -> Iterator[tuple[int, SoftFrame | None]]:
        """Finish what is left, where no further window comes."""
        yield from self.release(1 + max(self.pending, default=-1))

    def _frame(self, t: int) -> SoftFrame | None:
        if t in self.pending:
            for passed in [p for p in self.pending if p < t]:
                del self.pending[passed]
            return self.pending[t].mean()
        earlier = max((p for p in self.pending if p < t), default=None)
        later = min((p for p in self.pending if p > t), default=None)
        if earlier is not None and later is not None:
            weight = (t - earlier) / (later - earlier)
            return self.pending[earlier].towards(self.pending[later], weight)
        only = earlier if later is None else later
        return None if only is None else self.pending[only].mean()
