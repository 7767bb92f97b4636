"""Where to look: places at which a result is more often wrong than elsewhere.

Nothing is learned here: a score that is low, two objects of one class that meet, an object that comes back after a
gap, one that ends where another of its class begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Literal, NamedTuple

import numpy as np

from tubelet.core.records import Prediction, Track

LOW_SCORE = 0.6
MEETING = 0.3  # overlap (IoU of boxes) from which two objects of a class may have been exchanged
SAME = 0.7  # overlap from which two objects of any class may be one
GAP = 5  # frames without the object
NEAR = 15  # frames from the end of one object to the beginning of another
REACH = 1.0  # distance between the two, in sides of the box

Reason = Literal["low score", "meeting", "twice", "gap", "same object?"]


class Doubt(NamedTuple):
    """A frame to look at, the tracks that it is about, and why."""

    frame: int
    tracks: tuple[int, ...]
    reason: Reason

    def __str__(self) -> str:
        return f"frame {self.frame}: {self.reason} ({', '.join(map(str, self.tracks))})"


class _Path(NamedTuple):
    """A track's frames and its box in each."""

    track: Track
    frames: np.ndarray  # int64 [n]
    boxes: np.ndarray  # float64 [n, 4]


def doubts(prediction: Prediction) -> list[Doubt]:
    """The doubtful places of a result, in the order of the video.

    Example:
        >>> from tubelet.editing.doubts import doubts
        >>> mask, = tubelet.core.masks.encode(np.ones((1, 4, 6), bool))
        >>> rles = (mask,) + (None,) * 6 + (mask,)
        >>> track = tubelet.Track(id=3, label=0, score=0.9, rles=rles)
        >>> prediction = tubelet.Prediction(video="dog", size=(4, 6), length=8, tracks=(track,), classes=("dog",))
        >>> print(*doubts(prediction))
        frame 7: gap (3)
    """
    paths = [_path(track) for track in prediction.tracks]
    paths = [path for path in paths if len(path.frames)]

    found: list[Doubt] = []
    for path in paths:
        found += _alone(path)
    for first, second in combinations(paths, 2):
        found += _meetings(first, second)
        found += _continued(first, second)
        found += _continued(second, first)
    return sorted(found)


def _path(track: Track) -> _Path:
    return _Path(track, track.frames, track.boxes)


def _alone(path: _Path) -> Iterator[Doubt]:
    """A low score, and frames after a gap."""
    id = path.track.id
    if path.track.score < LOW_SCORE:
        yield Doubt(int(path.frames[0]), (id,), "low score")
    for before, after in pairwise(path.frames.tolist()):
        if after - before > GAP:
            yield Doubt(after, (id,), "gap")


def _meetings(first: _Path, second: _Path) -> Iterator[Doubt]:
    """The first frame of each time in which two objects overlap."""
    shared, rows, columns = np.intersect1d(first.frames, second.frames, assume_unique=True, return_indices=True)
    overlaps = _overlaps(first.boxes[rows], second.boxes[columns])
    same_class = first.track.label == second.track.label

    least = MEETING if same_class else SAME
    reason: Reason = "meeting" if same_class else "twice"
    meets = overlaps >= least
    begins = meets & ~np.concatenate([[False], meets[:-1]])
    for t in shared[begins].tolist():
        yield Doubt(t, (first.track.id, second.track.id), reason)


def _continued(ended: _Path, begun: _Path) -> Iterator[Doubt]:
    """Where one object ends and another of its class begins soon after, nearby."""
    last, first = int(ended.frames[-1]), int(begun.frames[0])
    if ended.track.label != begun.track.label or not 0 < first - last <= NEAR:
        return
    end, begin = ended.boxes[-1], begun.boxes[0]
    distance = np.abs(end[:2] + end[2:] - begin[:2] - begin[2:]) / 2
    sides = np.maximum(end[2:] - end[:2], begin[2:] - begin[:2])
    if (distance <= REACH * sides).all():
        yield Doubt(first, (ended.track.id, begun.track.id), "same object?")


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (x1, y1, x2, y2) row by row, float64 [n]."""
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    shared = sides.clip(min=0).prod(1)
    areas = (first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1)
    overlaps: np.ndarray = shared / np.maximum(areas - shared, 1.0)
    return overlaps
