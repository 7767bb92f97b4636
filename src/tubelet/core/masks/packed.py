"""Packed tracks: all masks of a track in one byte string, checked and measured many tracks at a time.

A results file has hundreds of thousands of masks. Checking them one by one takes longer than
evaluating them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.masks import RLE
from tubelet.core.masks.run_codec import AREA, BATCH_BYTES, BATCH_PIXELS, LEFT, Runs, keep_freed_memory, measure


class Broken(NamedTuple):
    """Why a track cannot be packed: its first invalid mask.

    Example:
        >>> from tubelet.core.masks.packed import pack_counts
        >>> pack_counts([b"0h1"], [np.array([3])], [(4, 6)])[0].frame
        0
    """

    frame: int  # position of the invalid mask in the track
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Tube(Sequence[RLE | None]):
    """One object's masks in all T frames of a video, packed.

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

    size: tuple[int, int]  # height, width
    data: bytes  # compressed counts of all frames, joined
    # int [T + 1], frame t's counts are data[starts[t] - starts[0] : starts[t + 1] - starts[0]]
    starts: np.ndarray
    facts: np.ndarray  # int32 [T, 3]: area, first and last image column; 0, 1, 0 for an empty mask
    pixels: int  # total area
    held: int  # number of frames with a pixel of the object

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
        begin = self.starts[n] - self.starts[0]
        end = self.starts[n + 1] - self.starts[0]
        counts = self.data[begin:end]
        return RLE(self.size, counts) if counts else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Tube(size={self.size}, frames={self.held} of {len(self)})"

    @property
    def areas(self) -> np.ndarray:
        """Number of pixels in each frame, int64 [T]; 0 where absent or empty."""
        return self.facts[:, AREA].astype(np.int64)


class DecodedTracks(NamedTuple):
    """The decoded masks of N tracks of one image size.

    Example:
        >>> from tubelet.core.masks.packed import DecodedTracks
        >>> from tubelet.core.masks.run_codec import decode
        >>> runs, _ = decode(np.frombuffer(b"44<", np.uint8), np.array([3]))
        >>> DecodedTracks(runs, np.array([False, True]), [2], (4, 5)).size
        (4, 5)
    """

    runs: Runs  # of all masks
    present: np.ndarray  # bool [frames of all tracks], whether a frame has a mask
    num_frames: list[int]  # [N]
    size: tuple[int, int]  # height, width


Compare = Callable[[int, Sequence[Tube], DecodedTracks], None]


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
    counts = []
    for rles in tracks:
        for t, rle in enumerate(rles):
            if rle is not None and tuple(rle.size) != tuple(size):
                raise FormatError(f"frame {t}: expected a mask of size {list(size)} (height, width), got {rle.size}")
        counts.append([b"" if rle is None else rle.counts for rle in rles])

    joined = [b"".join(track) for track in counts]
    lengths = [np.fromiter(map(len, track), np.int64, len(track)) for track in counts]
    packed = pack_counts(joined, lengths, [size] * len(counts))

    for tube in packed:
        if isinstance(tube, Broken):
            raise FormatError(f"frame {tube.frame}: {tube.reason}")
    return [tube for tube in packed if isinstance(tube, Tube)]


def pack_counts(
    data: Sequence[bytes],
    lengths: Sequence[np.ndarray],
    sizes: Sequence[tuple[int, int]],
    compare: Compare | None = None,
) -> list[Tube | Broken]:
    """Pack N tracks whose compressed counts are joined already.

    Args:
        data: For each track, the compressed counts of all its frames, joined.
        lengths: For each track, how many bytes of `data` each frame has, int64 [T]; 0 where absent.
        sizes: For each track, height and width of the masks.
        compare: Called with tracks that are packed together, if they are of one size and all valid:
            with the number of the first, the tracks, and their masks as just decoded.

    Returns:
        For each track a Tube, or a Broken if it has an invalid mask.

    Example:
        >>> from tubelet.core.masks.packed import pack_counts
        >>> pack_counts([b"0h0"], [np.array([3, 0])], [(4, 6)])
        [Tube(size=(4, 6), frames=1 of 2)]
    """
    keep_freed_memory()
    tubes: list[Tube | Broken] = []
    start = 0
    while start < len(data):
        stop = _batch_end(data, lengths, sizes, start)
        compare_batch = None if compare is None else partial(compare, start)
        tubes.extend(_pack_batch(data[start:stop], lengths[start:stop], sizes[start:stop], compare_batch))
        start = stop
    return tubes


def _batch_end(
    data: Sequence[bytes], lengths: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]], start: int
) -> int:
    """The end of the batch that begins with track `start`: one track or more."""
    stop = start
    num_bytes = 0
    num_pixels = 0
    while stop < len(data) and (stop == start or (num_bytes < BATCH_BYTES and num_pixels < BATCH_PIXELS)):
        height, width = sizes[stop]
        num_bytes += len(data[stop])
        num_pixels += len(lengths[stop]) * height * width
        stop += 1
    return stop


def _pack_batch(
    data: Sequence[bytes],
    lengths: Sequence[np.ndarray],
    sizes: Sequence[tuple[int, int]],
    compare: Callable[[Sequence[Tube], DecodedTracks], None] | None,
) -> list[Tube | Broken]:
    all_lengths = np.concatenate(lengths)  # [T of all tracks]
    num_frames = [len(track_lengths) for track_lengths in lengths]
    present = all_lengths > 0
    height = np.repeat([size[0] for size in sizes], num_frames)[present]
    pixels = np.repeat([size[0] * size[1] for size in sizes], num_frames)[present]

    measured, valid, runs = measure(np.frombuffer(b"".join(data), np.uint8), all_lengths[present], height, pixels)
    if not valid.all():
        suspect = np.zeros(len(all_lengths), bool)
        suspect[present] = ~valid
        return _pack_one_by_one(data, lengths, sizes, suspect)

    facts = np.zeros((len(all_lengths), 3), np.int32)
    facts[:, LEFT] = 1
    facts[present] = measured

    starts = np.concatenate([[0], np.cumsum(all_lengths)])
    bounds = np.concatenate([[0], np.cumsum(num_frames)]).tolist()
    area = _sums_between(bounds, facts[:, AREA])
    num_present = _sums_between(bounds, facts[:, AREA] > 0)

    tubes: list[Tube] = []
    for n, (begin, end) in enumerate(pairwise(bounds)):
        track_starts = starts[begin : end + 1]
        tubes.append(Tube(sizes[n], data[n], track_starts, facts[begin:end], area[n], num_present[n]))

    if compare is not None and len(set(sizes)) == 1 and max(num_frames) * sizes[0][0] * sizes[0][1] <= BATCH_PIXELS:
        assert runs is not None, "all masks are valid"
        compare(tubes, DecodedTracks(runs, present, num_frames, sizes[0]))
    return list[Tube | Broken](tubes)


def _sums_between(bounds: list[int], values: np.ndarray) -> list[int]:
    """Sum the values of each track, whose frames are from one bound to the next."""
    running = np.concatenate([[0], np.cumsum(values)])
    sums: list[int] = np.diff(running[bounds]).tolist()
    return sums


def _pack_one_by_one(
    data: Sequence[bytes], lengths: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]], suspect: np.ndarray
) -> list[Tube | Broken]:
    """Check suspect masks one by one: rewrite those in an unusual but valid encoding, report the others.

    A run may for example be encoded with more symbols than it needs.
    """
    packed: dict[int, Tube | Broken] = {}
    rewritten: list[tuple[int, bytes, np.ndarray]] = []
    first = 0
    for n, (joined, track_lengths, size) in enumerate(zip(data, lengths, sizes, strict=True)):
        bounds = np.concatenate([[0], np.cumsum(track_lengths)])
        counts = [joined[begin:end] for begin, end in pairwise(bounds)]
        try:
            for t in np.flatnonzero(suspect[first : first + len(counts)]).tolist():
                counts[t] = _rewrite(counts[t], size)
        except FormatError as error:
            packed[n] = Broken(t, str(error))
        else:
            new_lengths = np.array([len(frame_counts) for frame_counts in counts], np.int64)
            rewritten.append((n, b"".join(counts), new_lengths))
        first += len(counts)

    if rewritten:
        numbers, new_data, all_new_lengths = zip(*rewritten, strict=True)
        tubes = _pack_batch(new_data, all_new_lengths, [sizes[n] for n in numbers], None)
        packed.update(zip(numbers, tubes, strict=True))
    return [packed[n] for n in range(len(data))]


def _rewrite(counts: bytes, size: tuple[int, int]) -> bytes:
    """Encode a mask again as pycocotools does; raises FormatError if it is invalid."""
    masks.check_counts(counts, size, "mask")
    rle = masks.from_json({"size": size, "counts": masks.runs(counts).tolist()}, size)
    assert rle is not None
    return rle.counts
