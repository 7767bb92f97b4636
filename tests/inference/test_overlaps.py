"""What windows say of frames, joined: averages where they overlap, blends between them, copies beyond them."""

from __future__ import annotations

from dataclasses import dataclass

from tubelet.inference.overlaps import WindowOverlaps


@dataclass(frozen=True)
class Number:
    """The simplest thing that can be said of a frame."""

    total: float
    count: int = 1

    def plus(self, other: Number) -> Number:
        return Number(self.total + other.total, self.count + other.count)

    def mean(self) -> Number:
        return Number(self.total / self.count)

    def towards(self, later: Number, weight: float) -> Number:
        return Number((1 - weight) * self.mean().total + weight * later.mean().total)


def joined(said: dict[int, list[float]], length: int) -> list[float | None]:
    overlaps: WindowOverlaps[Number] = WindowOverlaps()
    for t, numbers in said.items():
        for number in numbers:
            overlaps.add(t, Number(number))
    return [None if frame is None else frame.total for _, frame in overlaps.release(length)]


def test_windows_that_overlap_are_averaged() -> None:
    assert joined({0: [1.0], 1: [1.0, 3.0], 2: [3.0, 4.0, 8.0]}, 3) == [1.0, 2.0, 5.0]


def test_frames_between_are_blended_and_those_outside_are_copied() -> None:
    assert joined({1: [2.0], 5: [4.0, 8.0]}, 7) == [2.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0]


def test_frames_of_which_nothing_was_said_are_none() -> None:
    assert joined({}, 2) == [None, None]


def test_frames_that_were_released_are_forgotten_but_for_the_one_to_blend_from() -> None:
    overlaps: WindowOverlaps[Number] = WindowOverlaps()
    overlaps.add(0, Number(0.0))
    assert [t for t, _ in overlaps.release(1)] == [0]
    overlaps.add(4, Number(4.0))
    assert [(t, frame.total) for t, frame in overlaps.release(3) if frame is not None] == [(1, 1.0), (2, 2.0)]
    assert list(overlaps.pending) == [0, 4]
    assert [t for t, _ in overlaps.rest()] == [3, 4]
    assert list(overlaps.pending) == [4]
    assert list(overlaps.rest()) == []
