"""Packed tracks: all masks of a track in one byte string, checked and measured many tracks at a time.

A results file has hundreds of thousands of masks. Checking them one by one takes longer than
evaluating them.
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
from tubelet.core.masks.sparse import FRAME, SparseMasks, sparse

OFTEN = 4  # an object that is in one frame of so many, or in more, is often present


class Broken(NamedTuple):
    """Why a track cannot be packed: its first invalid mask.

    Example:
        >>> from tubelet.core.masks.packed import TrackCounts, pack_counts
        >>> pack_counts([TrackCounts.dense(b"0h1", np.array([3]), (4, 6))])[0].frame
        0
    """

    frame: int  # position of the invalid mask in the track
    reason: str


@dataclass(frozen=True, slots=True)
class PackedMasks(Sequence[RLE]):
    """The n masks of a track in one byte string.

    Example:
        >>> from tubelet.core.masks.packed import PackedMasks
        >>> PackedMasks((4, 6), b"0h00h0", np.array([0, 3, 6]))[1]
        RLE(size=(4, 6), counts=b'0h0')
    """

    size: tuple[int, int]  # height, width
    data: bytes  # compressed counts of all masks, joined
    starts: np.ndarray  # int [n + 1], where the counts of each mask begin in `data`

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, n: int) -> RLE: ...
    @overload
    def __getitem__(self, n: slice) -> tuple[RLE, ...]: ...
    def __getitem__(self, n: int | slice) -> RLE | tuple[RLE, ...]:
        rows = range(len(self))[n]
        if isinstance(rows, range):
            return tuple(self[row] for row in rows)
        return RLE(self.size, self.data[self.starts[rows] : self.starts[rows + 1]])


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Tube(SparseMasks):
    """One object's masks in all T frames of a video, packed and measured.

    It is a sequence of RLEs, or None for frames without the object, and can be used as `Track.rles`.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> (tube,) = pack([(rle, None)], size=(4, 6))
        >>> tube
        Tube(size=(4, 6), frames=1 of 2)
        >>> tube[0] == rle, tube.areas.tolist()
        (True, [24, 0])
    """

    present: PackedMasks
    measured: np.ndarray  # the facts of all T frames, or only of the n frames with a mask
    pixels: int  # total area
    held: int  # number of frames with a pixel of the object

    def __repr__(self) -> str:
        return f"Tube(size={self.size}, frames={self.held} of {len(self)})"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.present.size

    @property
    def data(self) -> bytes:
        """The compressed counts of all its masks, joined."""
        return self.present.data

    @property
    def facts(self) -> np.ndarray:
        """Area, first and last image column in each frame, int32 [T, 3]; 0, 1, 0 where absent or empty."""
        if len(self.measured) == len(self):
            return self.measured
        facts = _absent(len(self))
        facts[self.frames] = self.measured
        return facts

    @property
    def areas(self) -> np.ndarray:
        """Number of pixels in each frame, int64 [T]; 0 where absent or empty."""
        return self.facts[:, AREA].astype(np.int64)

    def may_meet(self, other: Tube) -> bool:
        """False if both are seen for a short part of the video, and the parts have no frame in common."""
        if len(self.measured) == len(self) or len(other.measured) == len(other):
            return True
        if not len(self.frames) or not len(other.frames):
            return False
        return bool(self.frames[0] <= other.frames[-1] and other.frames[0] <= self.frames[-1])


class TrackCounts(NamedTuple):
    """The compressed counts of a track's n masks, joined, as they come from outside: not checked yet.

    Example:
        >>> from tubelet.core.masks.packed import TrackCounts
        >>> TrackCounts.dense(b"0h0", np.array([0, 3]), (4, 6)).frames
        array([1], dtype=int32)
    """

    data: bytes
    frames: np.ndarray  # int32 [n], the frames with a mask, ascending
    lengths: np.ndarray  # int64 [n], bytes of each mask in `data`, at least 1
    length: int  # frames of the video
    size: tuple[int, int]  # height and width that the masks must have

    @classmethod
    def dense(cls, data: bytes, lengths: np.ndarray, size: tuple[int, int]) -> TrackCounts:
        """From the bytes of every frame, int64 [T], 0 where the object is absent."""
        (frames,) = lengths.nonzero()
        of_masks = lengths if len(frames) == len(lengths) else lengths[frames]
        return cls(data, frames.astype(FRAME), of_masks, len(lengths), size)


def pack(tracks: Sequence[Sequence[RLE | None]], size: tuple[int, int]) -> list[Tube]:
    """Pack the tracks of one video.

    Raises FormatError if a mask has another size or invalid runs.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.packed import pack
        >>> rles = masks.encode(np.ones((3, 4, 6), bool))
        >>> pack([rles], size=(4, 6))
        [Tube(size=(4, 6), frames=3 of 3)]
    """
    packed = pack_counts([_track_counts(sparse(rles), size) for rles in tracks])
    for tube in packed:
        if isinstance(tube, Broken):
            raise FormatError(f"frame {tube.frame}: {tube.reason}")
    return [tube for tube in packed if isinstance(tube, Tube)]


def _track_counts(rles: SparseMasks, size: tuple[int, int]) -> TrackCounts:
    counts = []
    for t, rle in rles.items():
        if tuple(rle.size) != tuple(size):
            raise FormatError(f"frame {t}: expected a mask of size {list(size)} (height, width), got {rle.size}")
        counts.append(rle.counts)

    lengths = np.fromiter(map(len, counts), np.int64, len(counts))
    is_present = lengths > 0  # counts of no bytes are no mask
    return TrackCounts(b"".join(counts), rles.frames[is_present], lengths[is_present], len(rles), size)


def pack_counts(tracks: Sequence[TrackCounts]) -> list[Tube | Broken]:
    """Pack N tracks whose compressed counts are joined already.

    Returns for each track a Tube, or a Broken if it has an invalid mask.

    Example:
        >>> from tubelet.core.masks.packed import TrackCounts, pack_counts
        >>> pack_counts([TrackCounts.dense(b"0h0", np.array([3, 0]), (4, 6))])
        [Tube(size=(4, 6), frames=1 of 2)]
    """
    keep_freed_memory()
    tubes: list[Tube | Broken] = []
    start = 0
    while start < len(tracks):
        stop = _batch_end(tracks, start)
        tubes.extend(_pack_batch(tracks[start:stop]))
        start = stop
    return tubes


def _batch_end(tracks: Sequence[TrackCounts], start: int) -> int:
    """The end of the batch that begins with track `start`: one track or more."""
    stop = start
    num_bytes = 0
    num_pixels = 0
    while stop < len(tracks) and (stop == start or (num_bytes < BATCH_BYTES and num_pixels < BATCH_PIXELS)):
        height, width = tracks[stop].size
        num_bytes += len(tracks[stop].data)
        num_pixels += tracks[stop].length * height * width
        stop += 1
    return stop


def _pack_batch(tracks: Sequence[TrackCounts]) -> list[Tube | Broken]:
    lengths = np.concatenate([track.lengths for track in tracks])  # [masks of all tracks]
    num_masks = [len(track.lengths) for track in tracks]
    sizes = [track.size for track in tracks]
    height = np.repeat([size[0] for size in sizes], num_masks)
    pixels = np.repeat([size[0] * size[1] for size in sizes], num_masks)

    symbols = np.frombuffer(b"".join([track.data for track in tracks]), np.uint8)
    measured, valid = measure(symbols, lengths, height, pixels)
    if not valid.all():
        return _pack_one_by_one(tracks, ~valid)

    starts = np.concatenate([[0], np.cumsum(lengths)])
    bounds = np.concatenate([[0], np.cumsum(num_masks)]).tolist()
    area = _sums_between(bounds, measured[:, AREA])
    num_held = _sums_between(bounds, measured[:, AREA] > 0)
    facts = _facts(tracks, measured, bounds)

    tubes: list[Tube | Broken] = []
    for n, (begin, end) in enumerate(pairwise(bounds)):
        track = tracks[n]
        present = PackedMasks(track.size, track.data, starts[begin : end + 1] - starts[begin])
        tubes.append(Tube(track.length, track.frames, present, facts[n], area[n], num_held[n]))

    return tubes


def _facts(tracks: Sequence[TrackCounts], measured: np.ndarray, bounds: list[int]) -> list[np.ndarray]:
    """The facts of each track: of all its frames, which is faster to use, if that takes little more memory."""
    if any(OFTEN * len(track.frames) < track.length for track in tracks):
        return [measured[begin:end] for begin, end in pairwise(bounds)]
    every = _absent(sum(track.length for track in tracks))
    every[_rows(tracks)] = measured
    return np.split(every, np.cumsum([track.length for track in tracks[:-1]]))


def _rows(tracks: Sequence[TrackCounts]) -> np.ndarray:
    """The position of each mask among all frames of all tracks."""
    first = np.cumsum([0, *(track.length for track in tracks[:-1])])
    return np.concatenate([track.frames for track in tracks]) + np.repeat(first, [len(t.frames) for t in tracks])


def _absent(length: int) -> np.ndarray:
    """The facts of frames without the object, int32 [length, 3]."""
    facts = np.zeros((length, 3), np.int32)
    facts[:, LEFT] = 1
    return facts


def _sums_between(bounds: list[int], values: np.ndarray) -> list[int]:
    """Sum the values of each track, whose masks are from one bound to the next."""
    running = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    sums: list[int] = np.diff(running[bounds]).tolist()
    return sums


def _pack_one_by_one(tracks: Sequence[TrackCounts], suspect: np.ndarray) -> list[Tube | Broken]:
    """Check suspect masks one by one: rewrite those in an unusual but valid encoding, report the others.

    A run may for example be encoded with more symbols than it needs.
    """
    packed: dict[int, Tube | Broken] = {}
    rewritten: dict[int, TrackCounts] = {}
    first = 0
    for n, track in enumerate(tracks):
        bounds = np.concatenate([[0], np.cumsum(track.lengths)])
        counts = [track.data[begin:end] for begin, end in pairwise(bounds)]
        try:
            for row in np.flatnonzero(suspect[first : first + len(counts)]).tolist():
                counts[row] = _rewrite(counts[row], track.size)
        except FormatError as error:
            packed[n] = Broken(int(track.frames[row]), str(error))
        else:
            lengths = np.array([len(mask_counts) for mask_counts in counts], np.int64)
            rewritten[n] = track._replace(data=b"".join(counts), lengths=lengths)
        first += len(counts)

    if rewritten:
        packed.update(zip(rewritten, _pack_batch(list(rewritten.values())), strict=True))
    return [packed[n] for n in range(len(tracks))]


def _rewrite(counts: bytes, size: tuple[int, int]) -> bytes:
    """Encode a mask again as pycocotools does; raises FormatError if it is invalid."""
    masks.check_counts(counts, size, "mask")
    rle = masks.from_json({"size": size, "counts": masks.runs(counts).tolist()}, size)
    assert rle is not None
    return rle.counts
