"""Masks of many tracks as vertical strokes, and the pixels that the strokes of two tracks share.

A stroke is a run of the object within one image column. Two masks share pixels where a stroke of one
and a stroke of the other are in the same column of the same frame. Most columns have a single stroke,
so one table of strokes by column finds the partners of thousands of strokes at once; the others are
reached from there one after another.

Letters: N tracks, F frames of all tracks, W image width, R strokes, C columns of all frames of one track.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tubelet.core.masks.packed import DecodedTracks, Tube
from tubelet.core.masks.run_codec import Runs, decode

STROKES_AT_ONCE = 1 << 16  # that are compared; fits into a processor's cache
DEEPEST = 16  # strokes in one column above which a binary search is faster than going through them


class Strokes(NamedTuple):
    """The masks of N tracks of one image size as strokes.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.columns import strokes
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 3), bool))
        >>> found = strokes(pack([[None, rle]], size=(4, 3)))
        >>> found.column.tolist(), found.top.tolist(), found.bottom.tolist()
        ([3, 4, 5], [0, 0, 0], [4, 4, 4])
        >>> found.bounds.tolist()
        [0, 0, 3]
    """

    size: tuple[int, int]  # height, width
    column: np.ndarray  # int [R], frame * W + image column; ascending within a track
    top: np.ndarray  # int [R], first row
    bottom: np.ndarray  # int [R], last row plus one
    bounds: np.ndarray  # int [F + 1], first stroke of each frame of each track
    frames: list[int]  # [N + 1], first frame of each track in `bounds`
    starts: list[int]  # [N + 1], first stroke of each track


def strokes(tubes: Sequence[Tube], begin: int = 0, end: int | None = None) -> Strokes:
    """Decode tracks of one image size, at least one; only the frames from `begin` up to `end`.

    These frames have at most 2^31 pixels. Shorter tracks have no more frames than they have.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.columns import strokes
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 3), bool))
        >>> strokes(pack([[rle, rle]], size=(4, 3)), begin=1).bounds.tolist()
        [0, 3]
    """
    spans = [tube.spans(min(begin, len(tube)), len(tube) if end is None else min(end, len(tube))) for tube in tubes]
    data = b"".join([counts for counts, _ in spans])
    lengths = np.concatenate([track_lengths for _, track_lengths in spans])  # bytes of each mask
    present = lengths > 0
    runs, _ = decode(np.frombuffer(data, np.uint8), lengths[present])
    assert runs is not None, "the masks of a tube are valid"
    num_frames = [len(track_lengths) for _, track_lengths in spans]
    return strokes_of(DecodedTracks(runs, present, num_frames, tubes[0].size))


def strokes_of(tracks: DecodedTracks) -> Strokes:
    """Make strokes of masks that are decoded already.

    Example:
        >>> from tubelet.core.masks.columns import strokes_of
        >>> from tubelet.core.masks.packed import DecodedTracks
        >>> from tubelet.core.masks.run_codec import decode
        >>> runs, _ = decode(np.frombuffer(b"44<", np.uint8), np.array([3]))
        >>> strokes_of(DecodedTracks(runs, np.array([False, True]), [2], (4, 5))).column.tolist()
        [6]
    """
    runs, present, num_frames, size = tracks
    height, width = size
    rows = np.int16 if height < 1 << 15 else np.int32
    frames = np.concatenate([[0], np.cumsum(num_frames)])
    num_strokes = np.zeros(len(present) + 1, np.int64)
    num_strokes[1:][present] = runs.starts[1:] - runs.starts[:-1]
    bounds = np.cumsum(num_strokes)

    frame = np.arange(len(present)) - np.repeat(frames[:-1], num_frames)
    positions = _positions(runs, frame[present] * height * width, height * width)
    column = positions // np.int32(height)
    top = column * np.int32(height)
    np.subtract(positions, top, out=top)
    bottom = top + runs.lengths
    if bottom.max(initial=0) > height or runs.lengths.min(initial=1) == 0:
        column, top, bottom, bounds = _split(column, top, bottom, bounds, height)

    return Strokes(
        size,
        column.astype(np.intp),
        top.astype(rows),
        bottom.astype(rows),
        bounds,
        frames.tolist(),
        bounds[frames].tolist(),
    )


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
    """Tables that find the strokes of one track by their column.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.columns import lookup, strokes
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 3), bool))
        >>> lookup(strokes(pack([[None, rle]], size=(4, 3))), 0).first_bottom.tolist()
        [0, 0, 0, 4, 4, 4]
    """

    height: int
    first_top: np.ndarray  # int [C], of a column's first stroke; 0 where there is none
    first_bottom: np.ndarray  # int [C]
    second: np.ndarray  # int [C], number of a column's second stroke, 0 where there is none; empty if all have none

    # all strokes, by column and row
    column: np.ndarray  # int [R]
    top: np.ndarray  # int [R]
    bottom: np.ndarray  # int [R]
    continues: np.ndarray  # bool [R], whether the next stroke is in the same column
    most: int  # strokes in one column


def lookup(source: Strokes, track: int) -> Lookup:
    """Make the tables of one track.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.columns import lookup, strokes
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 3), bool))
        >>> lookup(strokes(pack([[rle]], size=(4, 3))), 0).most
        1
    """
    height, width = source.size
    num_columns = (source.frames[track + 1] - source.frames[track]) * width
    span = slice(source.starts[track], source.starts[track + 1])
    column = source.column[span]
    top = source.top[span]
    bottom = source.bottom[span]

    follows = np.zeros(len(column) + 1, bool)  # whether a stroke is in the column of the one before it
    np.equal(column[1:], column[:-1], out=follows[1:-1])
    first = np.flatnonzero(~follows[:-1])
    first_column = column[first]
    first_top = np.zeros(num_columns, top.dtype)
    first_bottom = np.zeros(num_columns, top.dtype)
    first_top[first_column] = top[first]
    first_bottom[first_column] = bottom[first]

    second = np.zeros(0, np.int32)
    most = min(1, len(column))
    if len(first) < len(column):
        second = np.zeros(num_columns, np.int32)
        second[first_column] = np.where(follows[first + 1], first + 1, 0)
        most = int(np.diff(first, append=len(column)).max())

    return Lookup(height, first_top, first_bottom, second, column, top, bottom, follows[1:], most)


def shared_pixels(source: Strokes, tracks: Sequence[int], table: Lookup, *, by_frame: bool = False) -> np.ndarray:
    """Count the pixels that tracks share with the track of the table, which is of the same video.

    Args:
        source: The strokes of the tracks.
        tracks: Their K numbers, ascending.
        table: Of the other track.
        by_frame: Count frame by frame.

    Returns:
        int64 [K], or [frames of all K tracks] if `by_frame`.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.columns import lookup, shared_pixels, strokes
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 3), bool))
        >>> found = strokes(pack([[rle, rle], [rle, None]], size=(4, 3)))
        >>> shared_pixels(found, [0, 1], lookup(found, 0))
        array([24, 12])
        >>> shared_pixels(found, [1], lookup(found, 0), by_frame=True)
        array([12,  0])
    """
    counts = [np.zeros(0, np.int64)]
    for chunk in _chunks(source, tracks):
        column, top, bottom, sizes = _strokes_of(source, chunk, by_frame)
        shared = _shared(table, column, top, bottom)
        counts.append(_sums_between(np.concatenate([[0], np.cumsum(sizes)]), shared))
    return np.concatenate(counts)


def _chunks(source: Strokes, tracks: Sequence[int]) -> Iterator[Sequence[int]]:
    """Split tracks into chunks of about STROKES_AT_ONCE."""
    begin = 0
    num_strokes = 0
    for end, track in enumerate(tracks, 1):
        num_strokes += source.starts[track + 1] - source.starts[track]
        if num_strokes >= STROKES_AT_ONCE or end == len(tracks):
            yield tracks[begin:end]
            begin = end
            num_strokes = 0


def _strokes_of(
    source: Strokes, tracks: Sequence[int], by_frame: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Column, top and bottom of the strokes of some tracks, and how many each track or frame has."""
    if len(tracks) == tracks[-1] - tracks[0] + 1:  # without gaps: nothing to copy
        stretches = [(tracks[0], tracks[-1] + 1)]
    else:
        stretches = [(track, track + 1) for track in tracks]

    spans = [slice(source.starts[begin], source.starts[end]) for begin, end in stretches]
    if by_frame:
        bounds = [source.bounds[source.frames[begin] : source.frames[end] + 1] for begin, end in stretches]
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


def _sums_between(begins: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum the values from each of `begins` up to the next one, int64."""
    sums = np.zeros(len(begins) - 1, np.int64)
    has_values = begins[1:] > begins[:-1]
    if has_values.any():
        sums[has_values] = np.add.reduceat(values, begins[:-1][has_values], dtype=np.int64)
    return sums


def _shared(table: Lookup, column: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Count the pixels that each stroke shares with the strokes of the table."""
    if table.most > DEEPEST:
        return _search(table, column, top, bottom)

    shared = _overlap(top, bottom, table.first_top.take(column), table.first_bottom.take(column))
    if len(table.second):
        _add_others(shared, table, column, top, bottom)
    return shared


def _add_others(shared: np.ndarray, table: Lookup, column: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> None:
    """Add to `shared` what strokes share with the second, the third, ... stroke of their column."""
    number = table.second.take(column)
    strokes = np.flatnonzero(number)
    number = number[strokes]
    while len(strokes):
        shared[strokes] += _overlap(top[strokes], bottom[strokes], table.top[number], table.bottom[number])
        continues = table.continues[number]
        strokes = strokes[continues]
        number = number[continues] + 1


def _overlap(top: np.ndarray, bottom: np.ndarray, other_top: np.ndarray, other_bottom: np.ndarray) -> np.ndarray:
    end = np.minimum(bottom, other_bottom)
    begin = np.maximum(top, other_top)
    np.minimum(begin, end, out=begin)  # where they do not meet; np.maximum(rows, 0) is slower than all of this
    return np.subtract(end, begin, out=end)


def _search(table: Lookup, column: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The same by a binary search: the pixels of the table above the end of a stroke, less those above its begin."""
    begins = table.column * table.height + table.top
    lengths = (table.bottom - table.top).astype(np.int64)
    before = np.cumsum(lengths) - lengths

    def pixels_above(positions: np.ndarray) -> np.ndarray:
        number = np.searchsorted(begins, positions, side="right") - 1
        inside = np.minimum(positions - begins[number], lengths[number])
        return np.where(number < 0, 0, before[number] + inside)

    return pixels_above(column * table.height + bottom) - pixels_above(column * table.height + top)
