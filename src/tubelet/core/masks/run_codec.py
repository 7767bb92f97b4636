"""Runs of many masks decoded at once: thousands of compressed masks in a few passes of numpy.

The format writes a mask as runs of background and object, column by column; from the fourth on, a run is its difference
from the run two before; and a number is a few characters of five bits. Source: COCO's compressed counts.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

BATCH_BYTES = 1 << 18  # about what stays in a processor's cache while its runs are decoded
BATCH_PIXELS = 1 << 30  # sums of runs must not overflow 32 bits
LONGEST = 6  # symbols of one run: 30 bits, enough for masks.MAX_PIXELS

AREA, LEFT, RIGHT = range(3)  # columns of facts


class Runs(NamedTuple):
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


def decode(raw: np.ndarray, lengths: np.ndarray) -> tuple[Runs | None, np.ndarray]:
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
    return Runs(values, long, long_values, first, last, opening), sound


def measure(
    raw: np.ndarray, lengths: np.ndarray, height: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Facts [M, 3] of M masks, void unless all are sound, and which are: no run negative, all adding up to the pixels.

    What a running sum held before a mask begins is taken off again.
    """
    facts = np.zeros((len(lengths), 3), np.int64)
    if len(lengths) == 0:
        return facts, np.ones(0, bool)
    runs, sound = decode(raw, lengths)
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


def places_of(runs: Runs, offsets: np.ndarray, pixels: np.ndarray) -> np.ndarray:
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


@cache
def keep_freed_memory() -> None:
    """Have the C library hold on to blocks of the size of a batch.

    By default glibc gives such blocks back at once, and being handed fresh pages again costs a third of the time spent
    here; it stops when it has seen a larger block come and go.
    """
    np.empty(64 * BATCH_BYTES, np.uint8)
