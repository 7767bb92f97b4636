"""Count the pixels in the intersection of two packed tracks, over a video or frame by frame.

Tracks are decoded in batches, and compared as strokes (`core.masks.columns`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tubelet.core.masks.columns import TrackMasks, lookup, shared_pixels, strokes, sums_between
from tubelet.core.masks.packed import Tube
from tubelet.core.masks.run_codec import AREA, BATCH_BYTES, BATCH_PIXELS, LEFT, RIGHT, keep_freed_memory

AT_ONCE = 4096  # pairs per batch of `shared_at_most`
FRAMES_AT_ONCE = 1 << 20  # frames of all pairs of such a batch
MOST_PIXELS = 2 * BATCH_PIXELS  # of the frames in a table
MOST_PAIRS = 64  # per batch of `intersections`
MOST_BYTES = 4 * BATCH_BYTES  # of tracks that are decoded at once
MOST_COLUMNS = 1 << 24  # of the frames of tracks that are decoded at once

TrackPairs = Sequence[tuple[Tube, Tube]]  # the two tracks of a pair are of the same video


def intersections(pairs: TrackPairs) -> np.ndarray:
    """Count the pixels that the two tracks of each pair share over the whole video, int64 [K].

    A track in several pairs is decoded once if the pairs are next to each other.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.overlaps import intersections
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> first, second = pack([[rle, rle], [rle, None]], size=(4, 6))
        >>> intersections([(first, second), (first, first)])
        array([24, 48])
    """
    keep_freed_memory()
    shared = np.zeros(len(pairs), np.int64)
    begin = 0
    while begin < len(pairs):
        end = _batch_end(pairs, begin)
        shared[begin:end] = _intersections(pairs[begin:end])
        begin = end
    return shared


def _batch_end(pairs: TrackPairs, begin: int) -> int:
    """The end of the batch of pairs that starts at `begin`; all of one image size."""
    size = pairs[begin][0].size
    most_pairs = min(MOST_PAIRS, _tracks_of_a_table(size))
    seen: set[int] = set()
    num_bytes = 0
    end = begin
    while end < len(pairs) and pairs[end][0].size == size:
        if num_bytes >= BATCH_BYTES or end - begin == most_pairs:
            break
        for tube in pairs[end]:
            num_bytes += 0 if id(tube) in seen else len(tube.data)
            seen.add(id(tube))
        end += 1
    return end


def _tracks_of_a_table(size: tuple[int, int]) -> int:
    """How many tracks of an image size one table can have: a frame of each must fit."""
    height, width = size
    return max(MOST_PIXELS // (height * width), 1)


def _intersections(pairs: TrackPairs) -> np.ndarray:
    """The intersections of one batch."""
    firsts = list({id(first): first for first, _ in pairs}.values())
    seconds = list({id(second): second for _, second in pairs}.values())
    first_numbers = {id(tube): n for n, tube in enumerate(firsts)}
    partners: dict[int, list[tuple[int, int]]] = {id(tube): [] for tube in seconds}
    for k, (first, second) in enumerate(pairs):
        partners[id(second)].append((first_numbers[id(first)], k))

    tracks = TrackMasks.of(firsts)
    shared = np.zeros(len(pairs), np.int64)
    for begin, end in _frame_ranges(firsts, seconds):
        table = lookup(seconds, begin, end)
        found = strokes(tracks, tracks.between(begin, end))
        for origin, numbered in zip(table.origins, partners.values(), strict=True):
            numbered.sort()
            numbers = [n for n, _ in numbered]
            shared[[k for _, k in numbered]] += shared_pixels(found, table, numbers, shift=origin)
    return shared


def _frame_ranges(tubes: Sequence[Tube], others: Sequence[Tube]) -> Iterator[tuple[int, int | None]]:
    """Ranges of frames in which these tracks can be compared with a table of others, and one range if all can."""
    height, width = others[0].size
    everything = [*tubes, *others]
    length = max(len(tube) for tube in everything)
    num_bytes = sum(len(tube.data) for tube in everything)
    most_frames = min(
        MOST_PIXELS // (height * width * len(others)),
        MOST_COLUMNS // (width * len(everything)),
        length * MOST_BYTES // max(num_bytes, 1),
    )
    if most_frames >= length:
        yield 0, None
        return

    for begin in range(0, length, max(most_frames, 1)):
        yield begin, begin + max(most_frames, 1)


def shared_at_most(pairs: TrackPairs, num_parts: int = 1) -> np.ndarray:
    """Compute a cheap upper bound of `intersections`, in each part of the video, int64 [K, parts].

    It is the smaller of the two areas, summed over frames in which both have pixels in a range of
    columns that the two share. `part_borders` says which frames are in a part.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.overlaps import shared_at_most
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> first, second = pack([[rle, rle, rle], [rle, None, rle]], size=(4, 6))
        >>> shared_at_most([(first, second)], num_parts=3)
        array([[24,  0, 24]])
    """
    shared = np.zeros((len(pairs), num_parts), np.int64)
    for numbers in _batches_in_time(pairs):
        batch = [pairs[k] for k in numbers]
        first = np.concatenate([first.facts for first, _ in batch])  # [frames of all pairs, 3]
        second = np.concatenate([second.facts for _, second in batch])

        columns_meet = (first[:, LEFT] <= second[:, RIGHT]) & (second[:, LEFT] <= first[:, RIGHT])
        smaller = np.minimum(first[:, AREA], second[:, AREA])
        lengths = np.array([len(tube) for tube, _ in batch])
        borders = part_borders(lengths, num_parts) + (np.cumsum(lengths) - lengths)[:, None]
        begins = np.append(borders[:, :-1], borders[-1, -1])
        shared[numbers] = sums_between(begins, smaller * columns_meet).reshape(-1, num_parts)
    return shared


def part_borders(lengths: np.ndarray, num_parts: int) -> np.ndarray:
    """The first frame of each part of N videos, int [N], and the number of frames, int [N, parts + 1].

    Example:
        >>> from tubelet.core.masks.overlaps import part_borders
        >>> part_borders(np.array([30, 2]), num_parts=4)
        array([[ 0,  7, 15, 22, 30],
               [ 0,  0,  1,  1,  2]])
    """
    return lengths[:, None] * np.arange(num_parts + 1) // num_parts


def _batches_in_time(pairs: TrackPairs) -> Iterator[list[int]]:
    """The numbers of the pairs that may have a frame in common, up to AT_ONCE pairs and FRAMES_AT_ONCE at a time."""
    batch: list[int] = []
    num_frames = 0
    for k, (first, second) in enumerate(pairs):
        if not first.may_meet(second):
            continue
        batch.append(k)
        num_frames += len(first)
        if len(batch) == AT_ONCE or num_frames >= FRAMES_AT_ONCE:
            yield batch
            batch = []
            num_frames = 0
    if batch:
        yield batch


def frame_intersections(first: Sequence[Tube], second: Sequence[Tube]) -> np.ndarray:
    """Count the pixels that tracks of one video share in each frame, int64 [T, N, M].

    Args:
        first: N tracks.
        second: M tracks.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.overlaps import frame_intersections
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> first, second = pack([[rle, rle], [rle, None]], size=(4, 6))
        >>> frame_intersections([first], [second]).tolist()
        [[[24]], [[0]]]
    """
    keep_freed_memory()
    length = len(first[0]) if first else len(second[0]) if second else 0
    shared = np.zeros((length, len(first), len(second)), np.int64)

    meeting = _meet(first, second)
    if len(first) <= len(second):
        _fill(shared.transpose(0, 2, 1), second, first, meeting.T)
    else:
        _fill(shared, first, second, meeting)
    return shared


def _meet(first: Sequence[Tube], second: Sequence[Tube]) -> np.ndarray:
    """Whether tracks have pixels in a range of columns that both share, in any frame, bool [N, M]."""
    meeting = np.zeros((len(first), len(second)), bool)
    if second:
        right = np.stack([tube.facts[:, RIGHT] for tube in second])
        left = np.stack([tube.facts[:, LEFT] for tube in second])
        for n, tube in enumerate(first):
            meeting[n] = ((tube.facts[:, LEFT] <= right) & (left <= tube.facts[:, RIGHT])).any(1)
    return meeting


def _fill(shared: np.ndarray, many: Sequence[Tube], few: Sequence[Tube], meeting: np.ndarray) -> None:
    """Write into `shared` [T, many, few] the shared pixels of the tracks that are `meeting`, bool [many, few]."""
    columns = np.flatnonzero(meeting.any(0))
    if not len(columns):
        return

    batches = _track_batches(many, np.flatnonzero(meeting.any(1)))
    at_once = _tracks_of_a_table(few[0].size)
    for first in range(0, len(columns), at_once):
        _fill_columns(shared, many, few, meeting, columns[first : first + at_once], batches)


def _fill_columns(
    shared: np.ndarray,
    many: Sequence[Tube],
    few: Sequence[Tube],
    meeting: np.ndarray,
    columns: np.ndarray,
    batches: Sequence[np.ndarray],
) -> None:
    """Do that for those of the `few` that are numbered `columns`, with batches of the numbers of the `many`."""
    others = [few[m] for m in columns.tolist()]
    for begin, end in _frame_ranges([], others):
        table = lookup(others, begin, end)
        for rows in batches:
            tracks = TrackMasks.of([many[n] for n in rows.tolist()])
            parts = tracks.between(begin, end)
            found = strokes(tracks, parts)
            numbers, part = parts.masks()
            for m, origin in zip(columns.tolist(), table.origins, strict=True):
                is_chosen = meeting[rows, m]
                if 2 * is_chosen.sum() > len(rows):
                    is_chosen[:] = True  # faster without gaps
                chosen = np.flatnonzero(is_chosen).tolist()
                counts = shared_pixels(found, table, chosen, shift=origin, by_mask=True)
                counted = is_chosen[part]
                shared[tracks.frames[numbers[counted]], rows[part[counted]], m] = counts


def _track_batches(tubes: Sequence[Tube], numbers: np.ndarray) -> list[np.ndarray]:
    """Split the numbers of tracks into batches of about two BATCH_BYTES, which is faster here than one."""
    ends = np.cumsum([len(tubes[n].data) for n in numbers.tolist()])
    borders = np.flatnonzero(np.diff(ends // (2 * BATCH_BYTES))) + 1
    return np.split(numbers, borders)
