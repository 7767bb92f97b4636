"""Count the pixels in the intersection of two packed tracks, over a video or frame by frame.

Tracks are decoded in batches, and compared as strokes (`core.masks.columns`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tubelet.core.masks.columns import Lookup, lookup, shared_pixels, strokes, strokes_of
from tubelet.core.masks.packed import DecodedTracks, Tube
from tubelet.core.masks.run_codec import AREA, BATCH_BYTES, BATCH_PIXELS, LEFT, RIGHT, keep_freed_memory

AT_ONCE = 4096  # pairs per batch of `shared_at_most`
FRAMES_AT_ONCE = 1 << 20  # frames of all pairs of such a batch
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
    seen: set[int] = set()
    num_bytes = 0
    end = begin
    while end < len(pairs) and pairs[end][0].size == size:
        if num_bytes >= BATCH_BYTES or end - begin == MOST_PAIRS:
            break
        for tube in pairs[end]:
            num_bytes += 0 if id(tube) in seen else len(tube.data)
            seen.add(id(tube))
        end += 1
    return end


def _intersections(pairs: TrackPairs) -> np.ndarray:
    """The intersections of one batch."""
    # the first tracks come first, so that those of one second track are likely to be consecutive
    tubes = {id(tube): tube for tube in (*(first for first, _ in pairs), *(second for _, second in pairs))}
    numbers = {key: n for n, key in enumerate(tubes)}
    partners: dict[int, list[tuple[int, int]]] = {}
    for k, (first, second) in enumerate(pairs):
        partners.setdefault(numbers[id(second)], []).append((numbers[id(first)], k))

    shared = np.zeros(len(pairs), np.int64)
    ordered = list(tubes.values())
    for begin, end in _frame_ranges(ordered):
        found = strokes(ordered, begin, end)
        for second_number, numbered in partners.items():
            numbered.sort()
            tracks = [n for n, _ in numbered]
            shared[[k for _, k in numbered]] += shared_pixels(found, tracks, lookup(found, second_number))
    return shared


def _frame_ranges(tubes: Sequence[Tube]) -> Iterator[tuple[int, int | None]]:
    """Ranges of frames of which the strokes of these tracks fit into memory, and one range if all do."""
    height, width = tubes[0].size
    length = max(len(tube) for tube in tubes)
    num_bytes = sum(len(tube.data) for tube in tubes)
    most_frames = min(
        2 * BATCH_PIXELS // (height * width),
        MOST_COLUMNS // (width * len(tubes)),
        length * MOST_BYTES // max(num_bytes, 1),
    )
    if most_frames >= length:
        yield 0, None
        return

    for begin in range(0, length, max(most_frames, 1)):
        yield begin, begin + max(most_frames, 1)


def shared_at_most(pairs: TrackPairs) -> np.ndarray:
    """Compute a cheap upper bound of `intersections`, int64 [K].

    It is the smaller of the two areas, summed over frames in which both have pixels in a range of
    columns that the two share.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.overlaps import shared_at_most
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> first, second = pack([[rle, rle], [rle, None]], size=(4, 6))
        >>> shared_at_most([(first, second)])
        array([24])
    """
    shared = np.zeros(len(pairs), np.int64)
    for numbers in _batches_in_time(pairs):
        batch = [pairs[k] for k in numbers]
        first = np.concatenate([first.facts for first, _ in batch])  # [frames of all pairs, 3]
        second = np.concatenate([second.facts for _, second in batch])

        columns_meet = (first[:, LEFT] <= second[:, RIGHT]) & (second[:, LEFT] <= first[:, RIGHT])
        smaller = np.minimum(first[:, AREA], second[:, AREA])
        starts = np.cumsum([0, *(len(tube) for tube, _ in batch[:-1])])
        shared[numbers] = np.add.reduceat(smaller * columns_meet, starts, dtype=np.int64)
    return shared


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


def may_overlap(pairs: TrackPairs, least: float) -> np.ndarray:
    """Whether intersection over union may be `least` or more, by areas and columns alone, bool [K].

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.overlaps import may_overlap
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> first, second = pack([[rle, rle], [rle, None]], size=(4, 6))
        >>> may_overlap([(first, second)], 0.5), may_overlap([(first, second)], 0.6)
        (array([ True]), array([False]))
    """
    both = np.array([first.pixels + second.pixels for first, second in pairs], np.int64)
    shared = shared_at_most(pairs)
    return (shared > 0) & (shared >= (both - shared) * least)


class KnownIntersections:
    """Intersections that are counted while tracks are read, when their masks are decoded anyway.

    Pass one object to the reader, and then to the evaluation. It knows the pairs of tracks that may
    overlap by `least` or more, of batches in which most tracks have such a partner; others are
    decoded again when they are needed.

    Example:
        >>> from tubelet.core.masks.overlaps import KnownIntersections
        >>> KnownIntersections()
        KnownIntersections(0 pairs)
    """

    def __init__(self, least: float = 0.5) -> None:
        self._least = least
        self._shared: dict[tuple[int, int], int] = {}  # by the ids of two tracks
        self._tubes: list[Tube] = []  # so that no other object can get their ids
        self._tables: dict[int, Lookup] = {}  # of the second tracks compared last

    def __repr__(self) -> str:
        return f"KnownIntersections({len(self._shared)} pairs)"

    def __reduce__(self) -> tuple[type[KnownIntersections], tuple[float]]:
        return KnownIntersections, (self._least,)  # ids mean nothing in another process

    def get(self, first: Tube, second: Tube) -> int | None:
        """The pixels that two tracks share, if known."""
        return self._shared.get((id(first), id(second)))

    def add(self, tubes: Sequence[Tube], partners: Sequence[Sequence[Tube]], decoded: DecodedTracks) -> None:
        """Compare tracks with their partners, of the same videos, if most have one that they may overlap."""
        pairs = [(n, partner) for n, of_tube in enumerate(partners) for partner in of_tube]
        may = may_overlap([(tubes[n], partner) for n, partner in pairs], self._least)
        hopeful = [pair for pair, it_may in zip(pairs, may.tolist(), strict=True) if it_may]
        if 2 * len({n for n, _ in hopeful}) < len(tubes) or not hopeful:
            return

        found = strokes_of(decoded)
        by_partner = _by_partner(hopeful)
        self._keep_tables([partner for partner, _ in by_partner.values()])
        for table_id, (partner, tracks) in by_partner.items():
            counts = shared_pixels(found, tracks, self._tables[table_id]).tolist()
            for n, count in zip(tracks, counts, strict=True):
                self._shared[id(tubes[n]), table_id] = count
            self._tubes += [partner, *(tubes[n] for n in tracks)]

    def _keep_tables(self, partners: Sequence[Tube]) -> None:
        """Make the tables of these tracks, which are of one image size, and forget those that are not needed."""
        kept = {id(tube): self._tables[id(tube)] for tube in partners if id(tube) in self._tables}
        missing = [tube for tube in partners if id(tube) not in kept]
        if missing:
            found = strokes(missing)
            kept |= {id(tube): lookup(found, n) for n, tube in enumerate(missing)}
        self._tables = kept


def _by_partner(pairs: Sequence[tuple[int, Tube]]) -> dict[int, tuple[Tube, list[int]]]:
    """The partners, by id, each with the numbers of its tracks."""
    grouped: dict[int, tuple[Tube, list[int]]] = {}
    for n, partner in pairs:
        grouped.setdefault(id(partner), (partner, []))[1].append(n)
    return grouped


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

    others = [few[m] for m in columns.tolist()]
    for begin, end in _frame_ranges(others):
        other_strokes = strokes(others, begin, end)
        tables = [lookup(other_strokes, n) for n in range(len(others))]
        for rows in _track_batches(many, np.flatnonzero(meeting.any(1))):
            found = strokes([many[n] for n in rows.tolist()], begin, end)
            for m, table in zip(columns.tolist(), tables, strict=True):
                tracks = np.flatnonzero(meeting[rows, m])
                if 2 * len(tracks) > len(rows):
                    tracks = np.arange(len(rows))  # faster without gaps
                if len(tracks):
                    counts = shared_pixels(found, tracks.tolist(), table, by_frame=True)
                    shared[begin:end, rows[tracks], m] = counts.reshape(len(tracks), -1).T


def _track_batches(tubes: Sequence[Tube], numbers: np.ndarray) -> list[np.ndarray]:
    """Split the numbers of tracks into batches of about BATCH_BYTES."""
    ends = np.cumsum([len(tubes[n].data) for n in numbers.tolist()])
    borders = np.flatnonzero(np.diff(ends // BATCH_BYTES)) + 1
    return np.split(numbers, borders)
