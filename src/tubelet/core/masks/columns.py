"""Masks of many tracks as vertical strokes, and the pixels that the strokes of two tracks share.

A stroke is a run of the object within one image column. Two masks share pixels where a stroke of one
and a stroke of the other are in the same column of the same frame. Most columns have a single stroke,
so one table of strokes by column finds the partners of thousands of strokes at once; the others are
reached from there one after another.

Letters: N tracks, K parts of tracks, M masks, W image width, R strokes, C columns of all frames of all tracks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from tubelet.core.masks.packed import Tube
from tubelet.core.masks.run_codec import Runs, decode
from tubelet.core.masks.sparse import FRAME

LAST_FRAME = np.iinfo(FRAME).max
STROKES_AT_ONCE = 1 << 16  # that are compared; fits into a processor's cache
DEEPEST = 16  # strokes in one column above which a binary search is faster than going through them


class TrackMasks(NamedTuple):
    """The M masks of N tracks of one image size, numbered track by track.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.columns import TrackMasks
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 3), bool))
        >>> TrackMasks.of(pack([[None, rle], [rle, rle]], size=(4, 3))).frames
        array([1, 0, 1], dtype=int32)
    """

    size: tuple[int, int]  # height, width
    data: list[bytes]  # [N], the compressed counts of each track
    starts: np.ndarray  # int [M], first byte of each mask in its track's data
    lengths: np.ndarray  # int [M], bytes of each mask
    frames: np.ndarray  # int [M]
    bounds: np.ndarray  # int [N + 1], first mask of each track

    @classmethod
    def of(cls, tubes: Sequence[Tube]) -> TrackMasks:
        """Number the masks of tracks, at least one."""
        starts = [tube.present.starts for tube in tubes]
        return cls(
            tubes[0].size,
            [tube.data for tube in tubes],
            np.concatenate([of_track[:-1] for of_track in starts]),
            np.concatenate([of_track[1:] - of_track[:-1] for of_track in starts]),
            np.concatenate([tube.frames for tube in tubes]),
            np.cumsum([0, *(len(tube.frames) for tube in tubes)]),
        )

    def first_from(self, frames: np.ndarray) -> np.ndarray:
        """The number of each track's first mask in or after each of its frames, int [N, F] -> [N, F]."""
        longest = 1 + max(self.frames.max(initial=0), frames.max(initial=0))
        offsets = np.arange(len(self.data))[:, None] * longest
        of_masks = np.repeat(offsets[:, 0], np.diff(self.bounds)) + self.frames
        return np.searchsorted(of_masks, offsets + frames)

    def between(self, begin: int = 0, end: int | None = None) -> Parts:
        """The masks of all tracks in the frames from `begin` up to `end`, which are numbered from 0."""
        tracks = np.arange(len(self.data))
        if begin == 0 and end is None:
            return Parts(tracks, self.bounds[:-1], self.bounds[1:], np.zeros(len(tracks), np.int64))
        frames = np.array([[begin, LAST_FRAME if end is None else end]])
        first, last = self.first_from(np.repeat(frames, len(tracks), 0)).T
        return Parts(tracks, first, last, np.full(len(tracks), -begin))


class Parts(NamedTuple):
    """Parts of K tracks: each one the masks of some frames in a row."""

    track: np.ndarray  # int [K]
    begin: np.ndarray  # int [K], number of the first mask
    end: np.ndarray  # int [K], number of the last mask plus one
    origin: np.ndarray  # int [K], what is added to the numbers of frames

    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """The number of each mask, and the part that it is in, int [M] each."""
        num_masks = self.end - self.begin
        part = np.repeat(np.arange(len(num_masks)), num_masks)
        before = np.cumsum(num_masks) - num_masks
        return np.arange(len(part)) + (self.begin - before)[part], part


class Strokes(NamedTuple):
    """The M masks of K parts of tracks, of one image size, as strokes.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.columns import TrackMasks, strokes
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 3), bool))
        >>> tracks = TrackMasks.of(pack([[None, rle]], size=(4, 3)))
        >>> found = strokes(tracks, tracks.between())
        >>> found.column.tolist(), found.top.tolist(), found.bottom.tolist()
        ([3, 4, 5], [0, 0, 0], [4, 4, 4])
        >>> found.bounds.tolist()
        [0, 3]
    """

    size: tuple[int, int]  # height, width
    column: np.ndarray  # int [R], frame * W + image column; ascending within a part
    top: np.ndarray  # int [R], first row
    bottom: np.ndarray  # int [R], last row plus one
    bounds: np.ndarray  # int [M + 1], first stroke of each mask
    masks: list[int]  # [K + 1], first mask of each part in `bounds`
    starts: list[int]  # [K + 1], first stroke of each part


def strokes(tracks: TrackMasks, parts: Parts) -> Strokes:
    """Decode parts of tracks, at least one.

    The frames up to the last one, with `origin` added, have at most 2^31 pixels.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.columns import TrackMasks, strokes
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 3), bool))
        >>> tracks = TrackMasks.of(pack([[rle, rle]], size=(4, 3)))
        >>> strokes(tracks, tracks.between(begin=1)).column.tolist()
        [0, 1, 2]
    """
    height, width = tracks.size
    numbers, part = parts.masks()
    frames = tracks.frames[numbers] + parts.origin[part]
    first = np.concatenate([[0], np.cumsum(parts.end - parts.begin)])
    runs, _ = decode(np.frombuffer(_bytes_of(tracks, parts), np.uint8), tracks.lengths[numbers])
    assert runs is not None, "the masks of a tube are valid"

    bounds = runs.starts
    positions = _positions(runs, frames * (height * width), height * width)
    column = positions // np.int32(height)
    top = column * np.int32(height)
    np.subtract(positions, top, out=top)
    bottom = top + runs.lengths
    if bottom.max(initial=0) > height or runs.lengths.min(initial=1) == 0:
        column, top, bottom, bounds = _split(column, top, bottom, bounds, height)

    rows = np.int16 if height < 1 << 15 else np.int32
    return Strokes(
        tracks.size,
        column.astype(np.intp),
        top.astype(rows),
        bottom.astype(rows),
        bounds,
        first.tolist(),
        bounds[first].tolist(),
    )


def _bytes_of(tracks: TrackMasks, parts: Parts) -> bytes:
    """The compressed counts of all masks of some parts, joined."""
    has_masks = parts.begin < parts.end
    last = parts.end[has_masks] - 1
    track = parts.track[has_masks].tolist()
    begin = tracks.starts[parts.begin[has_masks]].tolist()
    end = (tracks.starts[last] + tracks.lengths[last]).tolist()
    return b"".join([tracks.data[n][first:stop] for n, first, stop in zip(track, begin, end, strict=True)])


def _positions(runs: Runs, offsets: np.ndarray, pixels: int) -> np.ndarray:
    """Compute where each run of the object begins, int32 [R].

    Args:
        runs: Of M masks.
        offsets: Position of each mask's first pixel, int [M].
        pixels: Height times width.
    """
    steps = runs.gaps.copy()  # from the beginning of the run before
    steps[1:] += runs.lengths[:-1]

    # a mask that begins after another one: from the end of that one's last run
    has_runs = runs.starts[1:] > runs.starts[:-1]
    begin = runs.starts[:-1][has_runs]
    ends = offsets[has_runs] + pixels - runs.tails[has_runs]
    steps[begin] += (offsets[has_runs] - np.concatenate([[0], ends[:-1]])).astype(np.int32)

    np.cumsum(steps, out=steps)
    return steps


def _split(
    column: np.ndarray, top: np.ndarray, bottom: np.ndarray, bounds: np.ndarray, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split runs at the borders of columns, and leave out runs without pixels."""
    counts = np.where(bottom > top, (bottom - 1) // height + 1, 0)
    part = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # number within its run
    first_row = np.where(part == 0, np.repeat(top, counts), 0)
    last_row = np.minimum(np.repeat(bottom, counts) - part * height, height)
    new_bounds = np.concatenate([[0], np.cumsum(counts)])[bounds]
    return np.repeat(column, counts) + part, first_row, last_row, new_bounds


class Lookup(NamedTuple):
    """Tables that find strokes by their column.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.columns import lookup
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 3), bool))
        >>> (tube,) = pack([[None, rle]], size=(4, 3))
        >>> lookup([tube]).first_bottom.tolist()
        [0, 0, 0, 4, 4, 4]
    """

    height: int
    width: int
    origins: list[int]  # [N], number of the first frame of each track
    first_top: np.ndarray  # int [C], of a column's first stroke; 0 where there is none
    first_bottom: np.ndarray  # int [C]
    second: np.ndarray  # int [C], number of a column's second stroke, 0 where there is none; empty if all have none

    # all strokes, by column and row
    column: np.ndarray  # int [R]
    top: np.ndarray  # int [R]
    bottom: np.ndarray  # int [R]
    continues: np.ndarray  # bool [R], whether the next stroke is in the same column


def lookup(tubes: Sequence[Tube], begin: int = 0, end: int | None = None) -> Lookup:
    """Make the tables of the frames from `begin` up to `end` of N tracks of one image size, at least one.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.columns import lookup
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 3), bool))
        >>> lookup(pack([[rle, None], [rle, rle]], size=(4, 3))).origins
        [0, 2]
    """
    ends = [len(tube) if end is None else min(end, len(tube)) for tube in tubes]
    origins = [0, *accumulate(max(last - begin, 0) for last in ends)]
    tracks = TrackMasks.of(tubes)
    parts = tracks.between(begin, end)
    moved = parts._replace(origin=parts.origin + origins[:-1])
    size, column, top, bottom, *_ = strokes(tracks, moved)
    height, width = size
    num_columns = origins.pop() * width

    follows = np.zeros(len(column) + 1, bool)  # whether a stroke is in the column of the one before it
    np.equal(column[1:], column[:-1], out=follows[1:-1])
    first = np.flatnonzero(~follows[:-1])
    first_column = column[first]
    first_top = np.zeros(num_columns, top.dtype)
    first_bottom = np.zeros(num_columns, top.dtype)
    first_top[first_column] = top[first]
    first_bottom[first_column] = bottom[first]

    second = np.zeros(0, np.int32)
    if len(first) < len(column):
        second = np.zeros(num_columns, np.int32)
        second[first_column] = np.where(follows[first + 1], first + 1, 0)

    return Lookup(height, width, origins, first_top, first_bottom, second, column, top, bottom, follows[1:])


def shared_pixels(
    source: Strokes,
    table: Lookup,
    numbers: Sequence[int] | None = None,
    *,
    shift: int = 0,
    by_mask: bool = False,
) -> np.ndarray:
    """Count the pixels that parts of tracks share with what the table has in their frames.

    Args:
        source: The strokes of the parts.
        table: Of other tracks.
        numbers: Of K parts, ascending; all by default.
        shift: Number of frames to go forward in the table.
        by_mask: Count mask by mask.

    Returns:
        int64 [K], or [masks of all K parts] if `by_mask`.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.columns import TrackMasks, lookup, shared_pixels, strokes
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 3), bool))
        >>> tubes = pack([[rle, rle], [rle, None]], size=(4, 3))
        >>> tracks = TrackMasks.of(tubes)
        >>> found = strokes(tracks, tracks.between())
        >>> shared_pixels(found, lookup(tubes[:1]))
        array([24, 12])
        >>> shared_pixels(found, lookup(tubes[:1]), [1], by_mask=True)
        array([12])
    """
    counts = [np.zeros(0, np.int64)]
    for chunk in _chunks(source, range(len(source.starts) - 1) if numbers is None else numbers):
        column, top, bottom, sizes = _strokes_of(source, chunk, by_mask)
        shared = _shared(table, column + shift * table.width if shift else column, top, bottom)
        counts.append(sums_between(np.concatenate([[0], np.cumsum(sizes)]), shared))
    return np.concatenate(counts)


def _chunks(source: Strokes, numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Split numbers of parts into chunks of about STROKES_AT_ONCE."""
    begin = 0
    num_strokes = 0
    for end, number in enumerate(numbers, 1):
        num_strokes += source.starts[number + 1] - source.starts[number]
        if num_strokes >= STROKES_AT_ONCE or end == len(numbers):
            yield numbers[begin:end]
            begin = end
            num_strokes = 0


def _strokes_of(
    source: Strokes, numbers: Sequence[int], by_mask: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Column, top and bottom of the strokes of some parts, and how many each part or mask has."""
    if len(numbers) == numbers[-1] - numbers[0] + 1:  # without gaps: nothing to copy
        stretches = [(numbers[0], numbers[-1] + 1)]
    else:
        stretches = [(number, number + 1) for number in numbers]

    spans = [slice(source.starts[begin], source.starts[end]) for begin, end in stretches]
    if by_mask:
        bounds = [source.bounds[source.masks[begin] : source.masks[end] + 1] for begin, end in stretches]
    else:
        bounds = [np.array(source.starts[begin : end + 1]) for begin, end in stretches]
    sizes = [each[1:] - each[:-1] for each in bounds]
    if len(stretches) == 1:
        (span,) = spans
        return source.column[span], source.top[span], source.bottom[span], sizes[0]

    return (
        np.concatenate([source.column[span] for span in spans]),
        np.concatenate([source.top[span] for span in spans]),
        np.concatenate([source.bottom[span] for span in spans]),
        np.concatenate(sizes),
    )


def sums_between(begins: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum the values from each of `begins` up to the next one, int64.

    Example:
        >>> from tubelet.core.masks.columns import sums_between
        >>> sums_between(np.array([0, 2, 2, 3]), np.array([5, 6, 7]))
        array([11,  0,  7])
    """
    sums = np.zeros(len(begins) - 1, np.int64)
    has_values = begins[1:] > begins[:-1]
    if has_values.any():
        sums[has_values] = np.add.reduceat(values, begins[:-1][has_values], dtype=np.int64)
    return sums


def _shared(table: Lookup, column: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Count the pixels that each stroke shares with the strokes of the table."""
    shared = _overlap(top, bottom, table.first_top.take(column), table.first_bottom.take(column))
    if len(table.second):
        _add_others(shared, table, column, top, bottom)
    return shared


def _add_others(shared: np.ndarray, table: Lookup, column: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> None:
    """Add to `shared` what strokes share with the second, the third, ... stroke of their column."""
    number = table.second.take(column)
    strokes = np.flatnonzero(number)
    number = number[strokes]
    for _ in range(DEEPEST - 1):
        shared[strokes] += _overlap(top[strokes], bottom[strokes], table.top[number], table.bottom[number])
        continues = table.continues[number]
        strokes = strokes[continues]
        number = number[continues] + 1
        if not len(strokes):
            return
    shared[strokes] = _search(table, column[strokes], top[strokes], bottom[strokes])


def _overlap(top: np.ndarray, bottom: np.ndarray, other_top: np.ndarray, other_bottom: np.ndarray) -> np.ndarray:
    end = np.minimum(bottom, other_bottom)
    begin = np.maximum(top, other_top)
    np.minimum(begin, end, out=begin)  # where they do not meet; np.maximum(rows, 0) is slower than all of this
    return np.subtract(end, begin, out=end)


def _search(table: Lookup, column: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """As `_shared`, by a binary search: the pixels of the table above a stroke's end, less those above its begin."""
    begins = table.column * table.height + table.top
    lengths = (table.bottom - table.top).astype(np.int64)
    before = np.cumsum(lengths) - lengths

    def pixels_above(positions: np.ndarray) -> np.ndarray:
        number = np.searchsorted(begins, positions, side="right") - 1
        inside = np.minimum(positions - begins[number], lengths[number])
        return np.where(number < 0, 0, before[number] + inside)

    return pixels_above(column * table.height + bottom) - pixels_above(column * table.height + top)
