"""Join overlapping windows frame by frame, each frame as soon as no later window can change it.

The predictions of several windows for one frame are averaged. A frame without prediction (a spread window picks a few)
is blended from its neighbours; before the first and after the last predicted frame, the nearest one is copied. Masks of
objects and maps of classes are joined alike: each is a `FramePrediction`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, Self, TypeVar


class FramePrediction(Protocol):
    """The sum of the windows' predictions for one frame."""

    def plus(self, other: Self) -> Self:
        """The sum with another window's prediction for the same frame."""
        ...

    def mean(self) -> Self:
        """The average over windows, as a prediction of one window."""
        ...

    def towards(self, later: Self, weight: float) -> Self:
        """Blend linearly with a later frame: `weight` 0 is this one, 1 the later one."""
        ...


SoftFrame = TypeVar("SoftFrame", bound=FramePrediction)


class WindowOverlaps(Generic[SoftFrame]):
    """Joins predictions of windows; keeps only frames that a later window may change, or that are blended from.

    >>> overlaps = WindowOverlaps()
    >>> list(overlaps.release(2))
    [(0, None), (1, None)]
    """

    def __init__(self) -> None:
        self.pending: dict[int, SoftFrame] = {}
        self._next = 0

    def add(self, t: int, prediction: SoftFrame) -> None:
        """Add one window's prediction for frame t."""
        self.pending[t] = self.pending[t].plus(prediction) if t in self.pending else prediction

    def release(self, before: int) -> Iterator[tuple[int, SoftFrame | None]]:
        """Finish the frames up to, not including, `before`, in order; None if no window has predicted any."""
        while self._next < before:
            t = self._next
            self._next += 1
            yield t, self._frame(t)

    def rest(self) -> Iterator[tuple[int, SoftFrame | None]]:
        """Finish the remaining frames, after the last window."""
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
        nearest = earlier if later is None else later
        return None if nearest is None else self.pending[nearest].mean()
