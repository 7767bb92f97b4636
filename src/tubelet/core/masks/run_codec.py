"""Decode and measure thousands of compressed masks with a few numpy operations.

The format stores a mask as lengths of runs, background and object in turn, column by column. From
the fourth run on, it stores the difference from the run two before. A number is one or more
characters (symbols) of five bits. Source: COCO's compressed counts.

Letters: M masks, B bytes of all masks, R runs of all masks, L runs of more than one symbol.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

BATCH_BYTES = 1 << 18  # fits into a processor's cache, decoded runs included
BATCH_PIXELS = 1 << 30  # so that sums of runs fit into 32 bits
LONGEST = 6  # symbols of one run: 30 bits, enough for masks.MAX_PIXELS

AREA, LEFT, RIGHT = range(3)  # columns of the facts of a mask


class Runs(NamedTuple):
    """Runs of M masks as stored: from the fourth on, differences from the run two before.

    Example:
        >>> from tubelet.core.masks.run_codec import decode
        >>> runs, valid = decode(np.frombuffer(b"0h0", np.uint8), np.array([3]))  # runs 0 and 24
        >>> runs.long, runs.long_values
        (array([1]), array([24]))
    """

    values: np.ndarray  # int8 [R]; correct for runs of one symbol only
    long: np.ndarray  # int [L], positions of runs of more than one symbol, ascending
    long_values: np.ndarray  # int [L]
    first: np.ndarray  # int [M], position of each mask's first run
    last: np.ndarray  # int [M], position of each mask's last run
    opening: np.ndarray  # int [M], length of each mask's first run

    def sums(self, parity: int, width: type, *, restarting: bool = False) -> np.ndarray:
        """Compute the running sum of the even (0) or odd (1) stored runs of all masks.

        The sum of a mask's stored differences is the length of the run. The third run is not stored
        as a difference, so the first run is subtracted from it here.

        Args:
            parity: 0 for runs at even positions, 1 for odd ones.
            width: The integer type to sum in.
            restarting: Restart the sum at each mask, so that it is the lengths of the runs.

        Returns:
            The running sum, preceded by a zero and followed by one unused element.
        """
        running: np.ndarray = np.zeros((len(self.values) + 1 - parity) // 2 + 2, width)
        running[1:-1] = self.values[parity::2]

        is_long = (self.long & 1) == parity
        running[(self.long[is_long] >> 1) + 1] = self.long_values[is_long]

        has_third = (self.last - self.first > 1) & (self.first & 1 == parity)
        running[(self.first[has_third] >> 1) + 2] -= self.opening[has_third].astype(width)

        if restarting:
            begin, end = self.spans(parity)
            begin = begin[end > begin] + 1
            running[begin[1:]] -= np.add.reduceat(running, begin, dtype=width)[:-1]

        np.cumsum(running[1:-1], out=running[1:-1])
        return running

    def spans(self, parity: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where each mask begins and ends in `sums`, not counting the leading zero."""
        begin = (self.first + 1 - parity) >> 1
        end = (self.last + 2 - parity) >> 1
        return begin, end


def decode(raw: np.ndarray, lengths: np.ndarray) -> tuple[Runs | None, np.ndarray]:
    """Decode the symbols of M masks into runs.

    Args:
        raw: The compressed counts of all masks, joined, uint8 [B].
        lengths: Number of bytes of each mask, at least 1, int [M].

    Returns:
        The runs, or None if a mask is invalid; and which masks are valid, bool [M].

    Example:
        >>> from tubelet.core.masks.run_codec import decode
        >>> runs, valid = decode(np.frombuffer(b"444440h0", np.uint8), np.array([5, 3]))
        >>> runs.first, runs.last, valid
        (array([0, 5]), array([4, 6]), array([ True,  True]))
    """
    valid = np.ones(len(lengths), bool)
    symbols = raw - np.uint8(48)
    stops = np.cumsum(lengths)

    is_final = symbols < 32  # the last symbol of a run; its value has the sign
    continued = np.flatnonzero(~is_final)  # positions of all other symbols; few
    run_of = continued - np.arange(continued.size)  # the run of each
    opens = np.flatnonzero(np.diff(run_of, prepend=-1))  # the first one of each run
    extra = np.diff(opens, append=continued.size)  # symbols of each long run, less the final one

    if symbols.max() > 63:
        valid[np.searchsorted(stops, np.flatnonzero(symbols > 63), side="right")] = False
    valid[~is_final[stops - 1]] = False
    valid[np.searchsorted(stops, continued[opens[extra >= LONGEST]], side="right")] = False
    if not valid.all():
        return None, valid

    values = ((symbols ^ np.uint8(16)).view(np.int8) - np.int8(16))[is_final]
    long = run_of[opens]
    long_values = values[long].astype(np.int64) << (5 * extra)
    for level in range(int(extra.max(initial=0))):
        has_level = extra > level
        bits = symbols[continued[opens[has_level] + level]].astype(np.int64) & 31
        long_values[has_level] += bits << (5 * level)

    last = stops - 1 - np.searchsorted(continued, stops)
    first = np.concatenate([[0], last[:-1] + 1])

    position = np.searchsorted(long, first)
    is_long = np.append(long, -1)[position] == first
    opening = np.where(is_long, np.append(long_values, 0)[position], values[first])
    return Runs(values, long, long_values, first, last, opening), valid


def measure(
    raw: np.ndarray, lengths: np.ndarray, height: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Measure M compressed masks: area, first and last image column of each.

    A mask is valid if it can be decoded, no run is negative and its runs add up to its pixels.

    Args:
        raw: The compressed counts of all masks, joined, uint8 [B].
        lengths: Number of bytes of each mask, at least 1, int [M].
        height: Image height of each mask, int [M].
        pixels: Image height times width of each mask, int [M].

    Returns:
        Area, first and last column, int64 [M, 3], columns 1 and 0 for an empty mask, meaningless
        unless all masks are valid; and which masks are valid, bool [M].

    Example:
        >>> from tubelet.core.masks.run_codec import measure
        >>> raw = np.frombuffer(b"44<", np.uint8)  # runs 4, 4 and 12: the second of 5 columns
        >>> measure(raw, np.array([3]), height=np.array([4]), pixels=np.array([20]))
        (array([[4, 1, 1]]), array([ True]))
    """
    facts = np.zeros((len(lengths), 3), np.int64)
    if len(lengths) == 0:
        return facts, np.ones(0, bool)

    runs, valid = decode(raw, lengths)
    if runs is None:
        return facts, valid

    first = runs.first
    last = runs.last
    width = np.int32 if int(pixels.sum()) <= BATCH_PIXELS else np.int64
    closing = np.zeros(len(first), np.int64)  # length of each mask's last run
    totals = []  # pixels of each mask in even runs, in odd runs
    for parity in (0, 1):
        running = runs.sums(parity, width)
        begin, end = runs.spans(parity)
        before = running[begin].astype(np.int64)  # the sum up to each mask, subtracted from its runs
        counts = end - begin
        has_runs = end > begin

        closes = last & 1 == parity
        closing[closes] = running[(last[closes] >> 1) + 1] - before[closes]

        valid &= ~has_runs | (np.maximum.reduceat(running, begin + 1) - before <= pixels)

        # a sum below 2^32 is right in 32 bits even if it overflows; 64 bits would copy everything
        fits = bool((counts * pixels < 1 << 32).all())
        total = np.add.reduceat(running, begin + 1, dtype=width if fits else np.int64) - counts * before
        totals.append(np.where(has_runs, total & 0xFFFFFFFF if fits else total, 0))

        running[-1] = np.iinfo(width).max
        valid &= ~has_runs | (np.minimum.reduceat(running, begin + 1) >= before)

    valid &= totals[0] + totals[1] == pixels
    area = np.where(first & 1, totals[0], totals[1])
    tail = np.where((last - first) & 1, 0, closing)  # background after the object's last pixel
    facts[:, AREA] = area
    facts[:, LEFT] = np.where(area > 0, runs.opening // height, 1)
    facts[:, RIGHT] = np.where(area > 0, (pixels - tail - 1) // height, 0)
    return facts, valid


def run_ends(runs: Runs, offsets: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Compute where runs end, without a mask's last run if it is background.

    Intermediate sums may overflow; the result fits and is right all the same.

    Args:
        runs: Runs of M valid masks.
        offsets: Position of each mask's first pixel, int [M].
        pixels: Image height times width of each mask, int [M].

    Example:
        >>> from tubelet.core.masks.run_codec import decode, run_ends
        >>> runs, _ = decode(np.frombuffer(b"44<", np.uint8), np.array([3]))  # runs 4, 4 and 12
        >>> run_ends(runs, offsets=np.array([100]), pixels=np.array([20])).tolist()
        [104, 108]
    """
    width = np.int32 if int((offsets + pixels).max()) < 1 << 31 else np.int64
    lengths = np.empty(len(runs.values), width)
    for parity in (0, 1):
        lengths[parity::2] = runs.sums(parity, width, restarting=True)[1:-1]

    # runs of a mask add up to its pixels, so one running sum over all masks is right after its offset is corrected
    lengths[runs.first] += np.diff(offsets - np.cumsum(pixels) + pixels, prepend=0).astype(width)

    is_change = np.ones(len(lengths), bool)
    is_change[runs.last[(runs.last - runs.first) & 1 == 0]] = False  # the last run is background
    return np.cumsum(lengths, dtype=width)[is_change]


@cache
def keep_freed_memory() -> None:
    """Make the C library reuse freed memory of the size of a batch.

    By default, glibc returns such blocks to the system at once, and getting new pages takes a third
    of the time of this module. It stops doing so once a larger block has been freed.

    Example:
        >>> from tubelet.core.masks.run_codec import keep_freed_memory
        >>> keep_freed_memory()
    """
    np.empty(64 * BATCH_BYTES, np.uint8)
