"""One object's masks through a video: the frames in which it appears, in order, and its masks there.

Most objects of a long video are seen for seconds. What is stored grows with the masks, not with the
video.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import overload

import numpy as np
from pycocotools import mask as coco

from tubelet.core.errors import FormatError
from tubelet.core.masks.rle import RLE, areas, as_coco

FRAME = np.int32  # a frame's number


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SparseMasks(Sequence[RLE | None]):
    """A sequence with one RLE per frame, None where the object is absent, that stores no None.

    `sparse` makes one of any sequence. It equals a tuple with the same entries.

    Example:
        >>> from tubelet.core.masks import RLE
        >>> from tubelet.core.masks.sparse import SparseMasks
        >>> masks = SparseMasks(length=4, frames=np.array([1, 2], np.int32), present=(RLE((4, 6), b"0h0"),) * 2)
        >>> masks
        SparseMasks(frames=2 of 4)
        >>> masks[0], masks[1], list(masks.items())[1]
        (None, RLE(size=(4, 6), counts=b'0h0'), (2, RLE(size=(4, 6), counts=b'0h0')))
        >>> masks.between(0, 2), masks[1:3]
        (SparseMasks(frames=1 of 4), SparseMasks(frames=2 of 2))
    """

    length: int  # frames of the video
    frames: np.ndarray  # int32 [n], the frames in which the object appears, ascending
    present: Sequence[RLE]  # [n], its masks there; in memory, packed, or in a file

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return f"{type(self).__name__}(frames={len(self.frames)} of {self.length})"

    def __iter__(self) -> Iterator[RLE | None]:
        following = 0
        for t, rle in self.items():
            yield from repeat(None, t - following)
            yield rle
            following = t + 1
        yield from repeat(None, self.length - following)

    @overload
    def __getitem__(self, t: int) -> RLE | None: ...
    @overload
    def __getitem__(self, t: slice) -> SparseMasks: ...
    def __getitem__(self, t: int | slice) -> RLE | SparseMasks | None:
        if isinstance(t, slice):
            return self._every(range(self.length)[t])

        frame = range(self.length)[t]
        row = bisect_left(self.frames, frame)
        is_present = row < len(self.frames) and self.frames[row] == frame
        return self.present[row] if is_present else None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SparseMasks):
            same_frames = self.length == other.length and np.array_equal(self.frames, other.frames)
            return same_frames and tuple(self.present) == tuple(other.present)
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def items(self) -> Iterator[tuple[int, RLE]]:
        """Each frame in which the object appears, with its mask, in order."""
        return zip(self.frames.tolist(), self.present, strict=True)

    def where(self, chosen: np.ndarray) -> SparseMasks:
        """Only the chosen of the n masks, bool [n]; the object is absent from the other frames."""
        rows = np.flatnonzero(chosen)
        return SparseMasks(self.length, self.frames[rows], _rows(self.present, rows))

    def between(self, start: int, stop: int) -> SparseMasks:
        """Only the masks of the frames from `start` up to, not including, `stop`."""
        return self.where((self.frames >= start) & (self.frames < stop))

    def joined(self, other: SparseMasks) -> SparseMasks:
        """The masks of both. Raises FormatError if the lengths differ or both have a mask in one frame."""
        if self.length != other.length:
            raise FormatError(f"tracks disagree on length: {self.length} and {other.length} frames")
        common = np.intersect1d(self.frames, other.frames)
        if len(common):
            raise FormatError(f"both tracks have a mask in frame {common[0]}")

        entries = sorted([*self.items(), *other.items()])
        frames = np.array([t for t, _ in entries], FRAME)
        return SparseMasks(self.length, frames, tuple(rle for _, rle in entries))

    def _every(self, kept: range) -> SparseMasks:
        """The masks of some frames, which are numbered anew from 0."""
        distance = self.frames - kept.start
        frames = distance // kept.step
        rows = np.flatnonzero((distance % kept.step == 0) & (frames >= 0) & (frames < len(kept)))
        if kept.step < 0:
            rows = rows[::-1]
        return SparseMasks(len(kept), frames[rows].astype(FRAME), _rows(self.present, rows))


def sparse(rles: Sequence[RLE | None]) -> SparseMasks:
    """The sparse form of one RLE or None per frame; what is sparse already is returned as it is.

    Example:
        >>> from tubelet.core.masks import RLE
        >>> from tubelet.core.masks.sparse import sparse
        >>> sparse((None, RLE((4, 6), b"0h0"), None)).frames
        array([1], dtype=int32)
    """
    if isinstance(rles, SparseMasks):
        return rles
    frames = [t for t, rle in enumerate(rles) if rle is not None]
    return SparseMasks(len(rles), np.array(frames, FRAME), tuple(rle for rle in rles if rle is not None))


def spatio_temporal_iou(first: Sequence[RLE | None], second: Sequence[RLE | None]) -> float:
    """Compute the IoU of two tracks: intersections over unions, each summed over all frames.

    A frame without the object is None. The result is 0 if both tracks are empty. Raises FormatError
    if the tracks differ in length or mask size. Source: the YouTube-VIS evaluation.

    Example:
        >>> from tubelet.core import masks
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> masks.spatio_temporal_iou([rle, rle], [rle, None])
        0.5
    """
    first = sparse(first)
    second = sparse(second)
    if len(first) != len(second):
        raise FormatError(f"tracks disagree on length: {len(first)} and {len(second)} frames")

    _, rows, other_rows = np.intersect1d(first.frames, second.frames, assume_unique=True, return_indices=True)
    both = [(first.present[a], second.present[b]) for a, b in zip(rows.tolist(), other_rows.tolist(), strict=True)]
    for a, b in both:
        if a.size != b.size:
            raise FormatError(f"tracks disagree on mask size: {a.size} and {b.size}")
    if not both:
        return 0.0

    intersections = [coco.merge(as_coco(pair), intersect=True) for pair in both]
    intersection = float(coco.area(intersections).sum())
    union = float(areas(first.present).sum() + areas(second.present).sum()) - intersection
    return intersection / union if union else 0.0


def _rows(present: Sequence[RLE], rows: np.ndarray) -> Sequence[RLE]:
    """The masks at these rows; neighbours are cut out together."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return present[rows[0] : rows[-1] + 1]
    return tuple(present[row] for row in rows.tolist())
