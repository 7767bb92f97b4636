"""Tracks packed: every mask of a track in one string, checked and measured once, many tracks at a time.

A result file holds hundreds of thousands of masks; one at a time, checking them costs more than evaluating them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.masks import RLE
from tubelet.core.masks.run_codec import AREA, BATCH_BYTES, BATCH_PIXELS, LEFT, keep_freed_memory, measure


class Broken(NamedTuple):
    """Why a track cannot be packed."""

    frame: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Tube(Sequence[RLE | None]):
    """One object's masks through a video, packed; as a sequence it yields what `Track.rles` promises."""

    size: tuple[int, int]  # height, width
    data: bytes  # the frames' compressed counts, one after another
    starts: np.ndarray  # int [T + 1], where each frame's counts begin, from the first on; an absent frame has none
    facts: np.ndarray  # int32 [T, 3]: pixels, first and last image column; 0, 1, 0 where there is nothing
    pixels: int  # of all frames
    held: int  # frames that hold any

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, t: int) -> RLE | None: ...
    @overload
    def __getitem__(self, t: slice) -> tuple[RLE | None, ...]: ...
    def __getitem__(self, t: int | slice) -> RLE | tuple[RLE | None, ...] | None:
        if isinstance(t, slice):
            return tuple(self[n] for n in range(len(self))[t])
        n = range(len(self))[t]
        counts = self.data[self.starts[n] - self.starts[0] : self.starts[n + 1] - self.starts[0]]
        return RLE(self.size, counts) if counts else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Tube(size={self.size}, frames={self.held} of {len(self)})"

    @property
    def areas(self) -> np.ndarray:
        """Pixels in each frame, int64 [T]; 0 where absent or empty."""
        return self.facts[:, AREA].astype(np.int64)


def pack(tracks: Sequence[Sequence[RLE | None]], size: tuple[int, int]) -> list[Tube]:
    """Tracks of one video -> tubes; raises FormatError for a mask of another size or with broken runs."""
    counts = []
    for rles in tracks:
        for t, rle in enumerate(rles):
            if rle is not None and tuple(rle.size) != tuple(size):
                raise FormatError(f"frame {t}: expected a mask of size {list(size)} (height, width), got {rle.size}")
        counts.append([b"" if rle is None else rle.counts for rle in rles])
    lengths = [np.fromiter(map(len, track), np.int64, len(track)) for track in counts]
    packed = pack_counts([b"".join(track) for track in counts], lengths, [size] * len(counts))
    for tube in packed:
        if isinstance(tube, Broken):
            raise FormatError(f"frame {tube.frame}: {tube.reason}")
    return [tube for tube in packed if isinstance(tube, Tube)]


def pack_counts(
    data: Sequence[bytes], lengths: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]
) -> list[Tube | Broken]:
    """Compressed counts of N tracks, joined, with the length of each frame's part, 0 where absent -> N tubes."""
    keep_freed_memory()
    tubes: list[Tube | Broken] = []
    start = 0
    while start < len(data):
        stop, held, pixels = start, 0, 0
        while stop < len(data) and (stop == start or (held < BATCH_BYTES and pixels < BATCH_PIXELS)):
            held += len(data[stop])
            pixels += len(lengths[stop]) * sizes[stop][0] * sizes[stop][1]
            stop += 1
        tubes.extend(_pack_batch(data[start:stop], lengths[start:stop], sizes[start:stop]))
        start = stop
    return tubes


def _pack_batch(
    data: Sequence[bytes], lengths: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]
) -> list[Tube | Broken]:
    counted = np.concatenate(lengths)
    present = counted > 0
    frames = [len(part) for part in lengths]
    height = np.repeat([size[0] for size in sizes], frames)[present]
    pixels = np.repeat([size[0] * size[1] for size in sizes], frames)[present]
    measured, sound = measure(np.frombuffer(b"".join(data), np.uint8), counted[present], height, pixels)
    if not sound.all():
        suspect = np.zeros(len(counted), bool)
        suspect[present] = ~sound
        return _pack_examined(data, lengths, sizes, suspect)
    facts = np.zeros((len(counted), 3), np.int32)
    facts[:, LEFT] = 1
    facts[present] = measured
    starts = np.concatenate([[0], np.cumsum(counted)])
    bounds = np.concatenate([[0], np.cumsum(frames)]).tolist()
    totals = (
        np.diff(np.concatenate([[0], np.cumsum(part)])[bounds]).tolist()
        for part in (facts[:, AREA], facts[:, AREA] > 0)
    )
    return [
        Tube(size, joined, starts[begin : end + 1], facts[begin:end], pixels_held, frames_held)
        for joined, size, (begin, end), pixels_held, frames_held in zip(
            data, sizes, pairwise(bounds), *totals, strict=True
        )
    ]


def _pack_examined(
    data: Sequence[bytes], lengths: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]], suspect: np.ndarray
) -> list[Tube | Broken]:
    """Look at suspect masks one by one: those in an unusual but valid form are written anew, others break a track."""
    answers: dict[int, Tube | Broken] = {}
    again: list[tuple[int, bytes, np.ndarray]] = []
    first = 0
    for n, (joined, part, size) in enumerate(zip(data, lengths, sizes, strict=True)):
        bounds = np.concatenate([[0], np.cumsum(part)])
        counts = [joined[bounds[t] : bounds[t + 1]] for t in range(len(part))]
        try:
            for t in np.flatnonzero(suspect[first : first + len(part)]).tolist():
                counts[t] = _rewritten(counts[t], size)
        except FormatError as error:
            answers[n] = Broken(t, str(error))
        else:
            again.append((n, b"".join(counts), np.array([len(c) for c in counts], np.int64)))
        first += len(part)
    if again:
        numbers, repaired, new_lengths = zip(*again, strict=True)
        answers.update(zip(numbers, _pack_batch(repaired, new_lengths, [sizes[n] for n in numbers]), strict=True))
    return [answers[n] for n in range(len(data))]


def _rewritten(counts: bytes, size: tuple[int, int]) -> bytes:
    masks.check_counts(counts, size, "mask")
    rle = masks.from_json({"size": size, "counts": masks.runs(counts).tolist()}, size)
    assert rle is not None
    return rle.counts
