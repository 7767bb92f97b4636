"""Tracks packed: every mask of a track in one string, checked and measured once, many tracks at a time.

A result file holds hundreds of thousands of masks; one at a time, checking them costs more than evaluating them. Here
the runs of thousands of masks are decoded together in numpy. Overlaps are computed in the same spirit: the places where
two tracks change between background and object, sorted together, bound the pixels in which they differ, and two sorted
lists are merged faster than anything else could be done with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.masks import RLE

BATCH_BYTES = 1 << 18  # about what stays in a processor's cache while its runs are decoded
BATCH_PIXELS = 1 << 30  # sums of runs must not overflow 32 bits
LONGEST = 6  # symbols of one run: 30 bits, enough for masks.MAX_PIXELS

AREA, LEFT, RIGHT = range(3)  # columns of Tube.facts


class Broken(NamedTuple):
    """Why a track cannot be packed."""

    frame: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Tube(Sequence["RLE | None"]):
    """One object's masks through a video, packed; as a sequence it yields what `Track.rles` promises."""

    size: tuple[int, int]  # height, width
    data: bytes  # the frames' compressed counts, one after another
    starts: np.ndarray  # int32 [T + 1], where each frame's counts begin; an absent frame has none
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
        counts = self.data[self.starts[n] : self.starts[n + 1]]
        return RLE(self.size, counts) if counts else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

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
    _keep_freed_memory()
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


@cache
def _keep_freed_memory() -> None:
    """Have the C library hold on to blocks of the size of a batch.

    By default glibc gives such blocks back at once, and being handed fresh pages again costs a third of the time spent
    here; it stops when it has seen a larger block come and go.
    """
    np.empty(64 * BATCH_BYTES, np.uint8)


def _pack_batch(
    data: Sequence[bytes], lengths: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]
) -> list[Tube | Broken]:
    counted = np.concatenate(lengths)
    present = counted > 0
    frames = [len(part) for part in lengths]
    height = np.repeat([size[0] for size in sizes], frames)[present]
    pixels = np.repeat([size[0] * size[1] for size in sizes], frames)[present]
    measured, sound = _measure(np.frombuffer(b"".join(data), np.uint8), counted[present], height, pixels)
    if not sound.all():
        suspect = np.zeros(len(counted), bool)
        suspect[present] = ~sound
        return _pack_examined(data, lengths, sizes, suspect)
    facts = np.zeros((len(counted), 3), np.int32)
    facts[:, LEFT] = 1
    facts[present] = measured
    bounds = np.concatenate([[0], np.cumsum(frames)]).tolist()
    bytes_before = np.concatenate([[0], np.cumsum(counted)])
    sums, held = (
        np.diff(np.concatenate([[0], np.cumsum(part)])[bounds]).tolist()
        for part in (facts[:, AREA], facts[:, AREA] > 0)
    )
    return [
        Tube(
            size,
            joined,
            (bytes_before[begin : end + 1] - bytes_before[begin]).astype(np.int32),
            facts[begin:end],
            *totals,
        )
        for joined, size, (begin, end), totals in zip(
            data, sizes, pairwise(bounds), zip(sums, held, strict=True), strict=True
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


class _Runs(NamedTuple):
    """Runs of M masks as stored: from the fourth on, each is the difference from the run two before it."""

    values: np.ndarray  # int8 [R], right for runs of one symbol
    long: np.ndarray  # int [L], which runs have more symbols, rising
    long_values: np.ndarray  # int [L]
    first: np.ndarray  # int [M], where each mask's runs begin
    last: np.ndarray  # int [M]
    opening: np.ndarray  # int [M], the first run of each

    def sums(self, parity: int, width: type, *, restarting: bool = False) -> np.ndarray:
        """The even or odd runs of all masks as one running sum, after a zero and before a place to spare.

        Within a mask that begins at run b, runs b + 1, b + 3, ... grow out of each other so, and b + 2, b + 4, ...; the
        third run is stored whole, so the first is taken off it here. Where it is `restarting`, the sum begins anew with
        each mask and is the runs themselves.
        """
        running: np.ndarray = np.zeros((len(self.values) + 1 - parity) // 2 + 2, width)
        running[1:-1] = self.values[parity::2]
        here = (self.long & 1) == parity
        running[(self.long[here] >> 1) + 1] = self.long_values[here]
        has_third = (self.last - self.first > 1) & (self.first & 1 == parity)
        running[(self.first[has_third] >> 1) + 2] -= self.opening[has_third].astype(width)
        if restarting:
            begin, end = self.spans(parity)
            begin = begin[end > begin] + 1
            running[begin[1:]] -= np.add.reduceat(running, begin, dtype=width)[:-1]
        np.cumsum(running[1:-1], out=running[1:-1])
        return running

    def spans(self, parity: int) -> tuple[np.ndarray, np.ndarray]:
        """Where in that sum each mask begins and ends, less the zero before."""
        return (self.first + 1 - parity) >> 1, (self.last + 2 - parity) >> 1


def _decode(raw: np.ndarray, lengths: np.ndarray) -> tuple[_Runs | None, np.ndarray]:
    """Characters uint8 [B] of M masks with bytes [M] each -> runs, and which masks are sound; None unless all are."""
    sound = np.ones(len(lengths), bool)
    symbols = raw - np.uint8(48)
    stops = np.cumsum(lengths)
    final = symbols < 32
    joined = np.flatnonzero(~final)  # symbols that the next one continues; few
    run_of = joined - np.arange(joined.size)  # the run that each belongs to
    opens = np.flatnonzero(np.diff(run_of, prepend=-1))  # the first such symbol of each run
    extra = np.diff(opens, append=joined.size)
    if symbols.max() > 63:
        sound[np.searchsorted(stops, np.flatnonzero(symbols > 63), side="right")] = False
    sound[~final[stops - 1]] = False
    sound[np.searchsorted(stops, joined[opens[extra >= LONGEST]], side="right")] = False
    if not sound.all():
        return None, sound
    values = ((symbols ^ np.uint8(16)).view(np.int8) - np.int8(16))[final]
    long = run_of[opens]
    long_values = values[long].astype(np.int64) << (5 * extra)
    for level in range(int(extra.max(initial=0))):
        reached = extra > level
        long_values[reached] += (symbols[joined[opens[reached] + level]].astype(np.int64) & 31) << (5 * level)
    last = stops - 1 - np.searchsorted(joined, stops)
    first = np.concatenate([[0], last[:-1] + 1])
    found = np.searchsorted(long, first)
    is_long = np.append(long, -1)[found] == first
    opening = np.where(is_long, np.append(long_values, 0)[found], values[first])
    return _Runs(values, long, long_values, first, last, opening), sound


def _measure(
    raw: np.ndarray, lengths: np.ndarray, height: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Facts [M, 3] of M masks, void unless all are sound, and which are: no run negative, all adding up to the pixels.

    What a running sum held before a mask begins is taken off again.
    """
    facts = np.zeros((len(lengths), 3), np.int64)
    if len(lengths) == 0:
        return facts, np.ones(0, bool)
    runs, sound = _decode(raw, lengths)
    if runs is None:
        return facts, sound
    first, last = runs.first, runs.last
    width = np.int32 if int(pixels.sum()) <= BATCH_PIXELS else np.int64
    closing = np.zeros(len(first), np.int64)
    totals = []
    for parity in (0, 1):
        running, (begin, end) = runs.sums(parity, width), runs.spans(parity)
        before = running[begin].astype(np.int64)
        closes = last & 1 == parity
        closing[closes] = running[(last[closes] >> 1) + 1] - before[closes]
        filled, counts = end > begin, end - begin
        sound &= ~filled | (np.maximum.reduceat(running, begin + 1) - before <= pixels)
        # 32 bits are enough, overflow and all, for a sum below 2^32; 64 would copy everything
        fits = bool((counts * pixels < 1 << 32).all())
        total = np.add.reduceat(running, begin + 1, dtype=width if fits else np.int64) - counts * before
        totals.append(np.where(filled, total & 0xFFFFFFFF if fits else total, 0))
        running[-1] = np.iinfo(width).max
        sound &= ~filled | (np.minimum.reduceat(running, begin + 1) >= before)
    sound &= totals[0] + totals[1] == pixels
    area = np.where(first & 1, totals[0], totals[1])
    tail = np.where((last - first) & 1, 0, closing)  # background after the object's last pixel
    facts[:, AREA] = area
    facts[:, LEFT] = np.where(area > 0, runs.opening // height, 1)
    facts[:, RIGHT] = np.where(area > 0, (pixels - tail - 1) // height, 0)
    return facts, sound


def changes(tubes: Sequence[Tube]) -> list[np.ndarray]:
    """Where each track changes between background and object, int [even], rising; frame t begins at t * H * W.

    The object lies from the first place up to the second, from the third up to the fourth, and so on, each such stretch
    within one frame.
    """
    if not tubes:
        return []
    frames = [len(tube) for tube in tubes]
    between = np.cumsum(np.array(frames) + 1)[:-1] - 1  # steps from one tube to the next, which mean nothing
    counts = np.delete(np.diff(np.concatenate([tube.starts for tube in tubes])), between).astype(np.int64)
    present = counts > 0
    if not present.any():
        return [np.zeros(0, np.int64)] * len(tubes)
    pixels = np.repeat([tube.size[0] * tube.size[1] for tube in tubes], frames)
    frame = np.arange(len(counts)) - np.repeat(np.cumsum([0, *frames[:-1]]), frames)
    runs, _ = _decode(np.frombuffer(b"".join([tube.data for tube in tubes]), np.uint8), counts[present])
    assert runs is not None, "a tube is made of sound masks"
    places = _places(runs, (frame * pixels)[present], pixels[present])
    ends = np.zeros(len(counts) + 1, np.int64)
    ends[1:][present] = (runs.last - runs.first + 1) & ~1
    bounds = np.cumsum(ends)[np.cumsum([0, *frames])].tolist()
    return [places[begin:end] for begin, end in pairwise(bounds)]


def _places(runs: _Runs, offsets: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Ends of all runs but a last one of background, each mask's counted from its offset [M].

    Sums may overflow on the way: what is asked for fits, and comes out right all the same.
    """
    width = np.int32 if int((offsets + pixels).max()) < 1 << 31 else np.int64
    lengths = np.empty(len(runs.values), width)
    for parity in (0, 1):
        lengths[parity::2] = runs.sums(parity, width, restarting=True)[1:-1]
    # the runs of a mask add up to its pixels: one running sum over all masks needs only each mask's offset corrected
    lengths[runs.first] += np.diff(offsets - np.cumsum(pixels) + pixels, prepend=0).astype(width)
    kept = np.ones(len(lengths), bool)
    kept[runs.last[(runs.last - runs.first) & 1 == 0]] = False
    return np.cumsum(lengths, dtype=width)[kept]


class Meeting(NamedTuple):
    """Tracks of one video whose overlaps are wanted."""

    first: Sequence[Tube]  # N
    second: Sequence[Tube]  # M
    wanted: np.ndarray  # bool [N, M]


def intersections(meetings: Sequence[Meeting]) -> list[np.ndarray]:
    """Pixels that two tracks share over the whole video, int64 [N, M] for each video; 0 for pairs not wanted."""
    _keep_freed_memory()
    shared = [np.zeros(meeting.wanted.shape, np.int64) for meeting in meetings]
    begin = 0
    while begin < len(meetings):
        end, size = begin, 0
        while end < len(meetings) and (end == begin or size < 4 * BATCH_BYTES):
            size += sum(len(tube.data) for tube in (*meetings[end].first, *meetings[end].second))
            end += 1
        _intersect(meetings[begin:end], shared[begin:end])
        begin = end
    return shared


def _intersect(meetings: Sequence[Meeting], shared: Sequence[np.ndarray]) -> None:
    used = [(np.flatnonzero(wanted.any(1)), np.flatnonzero(wanted.any(0))) for _, _, wanted in meetings]
    needed = [
        tube
        for (first, second, _), (rows, columns) in zip(meetings, used, strict=True)
        for tube in (*(first[i] for i in rows.tolist()), *(second[j] for j in columns.tolist()))
    ]
    places = iter(changes(needed))
    for (first, second, wanted), (rows, columns), table in zip(meetings, used, shared, strict=True):
        one = {i: next(places) for i in rows.tolist()}
        other = {j: next(places) for j in columns.tolist()}
        for i, j in np.argwhere(wanted).tolist():
            table[i, j] = (first[i].pixels + second[j].pixels - _differing(one[i], other[j])) // 2


def frame_intersections(first: Sequence[Tube], second: Sequence[Tube]) -> np.ndarray:
    """Pixels that two tracks of one video share in each frame, int64 [T, N, M]."""
    length = len(first[0]) if first else len(second[0]) if second else 0
    shared = np.zeros((length, len(first), len(second)), np.int64)
    wanted = np.argwhere(shared_at_most(first, second)).tolist()
    one, other = (_changes_of(tubes, {pair[side] for pair in wanted}) for side, tubes in enumerate((first, second)))
    for n, m in wanted:
        merged = np.sort(np.concatenate([one[n], other[m]]), kind="stable")
        begins, pixels = merged[::2], merged[1::2] - merged[::2]
        frames = begins // (first[n].size[0] * first[n].size[1])  # a stretch of nothing may begin after the last
        differing = np.bincount(frames, pixels, minlength=length)[:length].astype(np.int64)
        shared[:, n, m] = (first[n].areas + second[m].areas - differing) // 2
    return shared


def _changes_of(tubes: Sequence[Tube], used: set[int]) -> dict[int, np.ndarray]:
    return dict(zip(sorted(used), changes([tubes[n] for n in sorted(used)]), strict=True))


def _differing(one: np.ndarray, other: np.ndarray) -> int:
    """Pixels that belong to one track but not to both."""
    merged = np.concatenate([one, other])
    merged.sort(kind="stable")  # stable: made for lists that are sorted in parts
    return int((merged[1::2] - merged[::2]).sum(dtype=merged.dtype))


def shared_at_most(first: Sequence[Tube], second: Sequence[Tube]) -> np.ndarray:
    """A cheap bound on shared pixels, int64 [N, M]: the smaller area, in frames where both touch a common column."""
    bound = np.zeros((len(first), len(second)), np.int64)
    if bound.size == 0:
        return bound
    one, other = (
        np.concatenate([tube.facts for tube in tubes]).reshape(len(tubes), -1, 3) for tubes in (first, second)
    )
    step = max(1, BATCH_BYTES // one[..., 0].size)  # as many of the second at once as fit in the cache
    for m in range(0, len(second), step):
        here = other[None, m : m + step]
        meeting = (one[:, None, :, LEFT] <= here[..., RIGHT]) & (here[..., LEFT] <= one[:, None, :, RIGHT])
        bound[:, m : m + step] = (np.minimum(one[:, None, :, AREA], here[..., AREA]) * meeting).sum(-1, dtype=np.int64)
    return bound
