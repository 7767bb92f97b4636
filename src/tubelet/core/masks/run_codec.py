"""Decode and measure thousands of compressed masks with a few numpy operations.

The format stores a mask as lengths of runs, background and object in turn, column by column. From
the fourth run on, it stores the difference from the run two before. A number is one or more
characters (symbols) of five bits. Source: COCO's compressed counts.

Letters: M masks, B bytes of all masks, R runs of the object of all masks, L runs of more than one symbol.
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
    """The runs of M masks.

    Of an invalid mask, runs may be negative or too long, and are wrong after the first of these.

    Example:
        >>> from tubelet.core.masks.run_codec import decode
        >>> runs, valid = decode(np.frombuffer(b"44<", np.uint8), np.array([3]))
        >>> runs.gaps, runs.lengths, runs.tails
        (array([4], dtype=int32), array([4], dtype=int32), array([12]))
    """

    gaps: np.ndarray  # int32 [R], background before each run of the object
    lengths: np.ndarray  # int32 [R], runs of the object
    starts: np.ndarray  # int [M + 1], first run of each mask
    tails: np.ndarray  # int [M], background after a mask's last run of the object


class _Numbers(NamedTuple):
    """The stored numbers of M masks, without the background at the end of a mask: an even number of each."""

    values: np.ndarray  # int8 [2 R]; correct for numbers of one symbol only
    long: np.ndarray  # int [L], positions of numbers of more than one symbol, ascending
    long_values: np.ndarray  # int [L]
    starts: np.ndarray  # int [M + 1], position of each mask's first number
    tails: np.ndarray  # int [M], the number that was left out; 0 where a mask ends with the object
    num_runs: np.ndarray  # int [M], with the number that was left out


def decode(raw: np.ndarray, lengths: np.ndarray) -> tuple[Runs | None, np.ndarray]:
    """Decode the symbols of M masks into runs.

    Args:
        raw: The compressed counts of all masks, joined, uint8 [B].
        lengths: Number of bytes of each mask, at least 1, int [M].

    Returns:
        The runs, or None if a mask has invalid symbols; and which masks have none, bool [M].

    Example:
        >>> from tubelet.core.masks.run_codec import decode
        >>> runs, valid = decode(np.frombuffer(b"444440h0", np.uint8), np.array([5, 3]))
        >>> runs.starts, valid
        (array([0, 2, 3]), array([ True,  True]))
    """
    numbers, valid = _read_numbers(raw, lengths)
    if numbers is None:
        return None, valid

    starts = numbers.starts >> 1
    gaps = _undo_differences(numbers, 0)
    object_lengths = _undo_differences(numbers, 1)

    # the background at the end is stored as a difference, too, if it is the fifth run or a later one
    tails = numbers.tails.copy()
    is_difference = (numbers.num_runs & 1 == 1) & (numbers.num_runs >= 5)
    tails[is_difference] += gaps[starts[1:][is_difference] - 1]
    return Runs(gaps, object_lengths, starts, tails), valid


def _read_numbers(raw: np.ndarray, lengths: np.ndarray) -> tuple[_Numbers | None, np.ndarray]:
    """Join symbols to numbers; None if a mask is invalid, and which masks are valid, bool [M]."""
    valid = np.ones(len(lengths), bool)
    symbols = raw - np.uint8(48)
    stops = np.cumsum(lengths)

    is_final = symbols < 32  # the last symbol of a number; its value has the sign
    continued = np.flatnonzero(~is_final)  # positions of all other symbols; few
    run_of = continued - np.arange(continued.size)  # the number of each
    is_new = np.ones(continued.size, bool)
    np.not_equal(run_of[1:], run_of[:-1], out=is_new[1:])
    opens = np.flatnonzero(is_new)  # the first one of each number
    extra = _steps(opens, continued.size)  # symbols of each long number, less the final one

    if symbols.max(initial=0) > 63:
        valid[np.searchsorted(stops, np.flatnonzero(symbols > 63), side="right")] = False
    valid[~is_final[stops - 1]] = False
    valid[np.searchsorted(stops, continued[opens[extra >= LONGEST]], side="right")] = False
    if not valid.all():
        return None, valid

    all_values = (symbols ^ np.uint8(16)).view(np.int8) - np.int8(16)
    finals = continued[opens] + extra  # position of the final symbol of each long number
    level = np.arange(continued.size) - np.repeat(opens, extra)
    bits = (symbols[continued].astype(np.int64) & 31) << (5 * level)
    long_values = np.add.reduceat(bits, opens) if opens.size else np.zeros(0, np.int64)
    long_values += all_values[finals].astype(np.int64) << (5 * extra)

    # leave out the background at the end of a mask, so that background and object alternate throughout
    ends = stops - np.searchsorted(continued, stops)
    num_runs = ends.copy()
    num_runs[1:] -= ends[:-1]
    is_odd = num_runs & 1 == 1
    tails = np.where(is_odd, all_values[stops - 1], 0).astype(np.int64)
    is_final[(stops - 1)[is_odd]] = False

    mask_of_long = np.repeat(np.arange(len(stops)), _counts_up_to(finals, stops))
    is_tail = (finals == stops[mask_of_long] - 1) & is_odd[mask_of_long]
    tails[mask_of_long[is_tail]] = long_values[is_tail]

    left_out = np.cumsum(is_odd)
    starts = np.concatenate([[0], ends - left_out])
    long = run_of[opens] - (left_out - is_odd)[mask_of_long]
    values = all_values[is_final]
    return _Numbers(values, long[~is_tail], long_values[~is_tail], starts, tails, num_runs), valid


def _steps(begins: np.ndarray, end: int) -> np.ndarray:
    """The differences from each begin to the next, and from the last to the end; np.diff is slow on short arrays."""
    steps = np.empty_like(begins)
    np.subtract(begins[1:], begins[:-1], out=steps[:-1])
    steps[-1:] = end - begins[-1:]
    return steps


def _counts_up_to(positions: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """How many of the ascending positions lie before each stop, and not before the stop in front of it."""
    before = np.searchsorted(positions, stops)
    before[1:] -= before[:-1].copy()
    return before


def _undo_differences(numbers: _Numbers, parity: int) -> np.ndarray:
    """The runs at even (0) or odd (1) positions of all masks, int32 [R]; sums may overflow in an invalid mask."""
    running = _every_second(numbers.values, parity)
    is_long = (numbers.long & 1) == parity
    running[numbers.long[is_long] >> 1] = numbers.long_values[is_long]

    starts = numbers.starts >> 1
    has_runs = starts[1:] > starts[:-1]
    begin = starts[:-1][has_runs]
    if parity == 0:  # the third run of a mask is no difference
        has_third = (starts[1:] - starts[:-1])[has_runs] > 1
        running[begin[has_third] + 1] -= running[begin[has_third]]

    if len(begin) > 1:  # start anew at each mask
        running[begin[1:]] -= np.add.reduceat(running, begin, dtype=np.int32)[:-1]
    np.cumsum(running, out=running)
    return running


def _every_second(values: np.ndarray, parity: int) -> np.ndarray:
    """`values[parity::2]`, int8 -> int32, of an even number of values; as shifts of pairs, which is twice as fast."""
    pairs = values.view("<i2")
    return ((pairs << 8 if parity == 0 else pairs) >> 8).astype(np.int32)


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
    runs, valid = decode(raw, lengths)
    if runs is None:
        return facts, valid

    # a run is at most 2^30 longer or shorter than the one before it, so the first that is out of
    # range is right in 32 bits; all that follow may be wrong
    has_runs = runs.starts[1:] > runs.starts[:-1]
    begin = runs.starts[:-1][has_runs]
    counts = np.diff(runs.starts)[has_runs]
    limit = pixels[has_runs]
    sums = np.zeros((2, len(lengths)), np.int64)
    if len(begin):
        fits = bool((counts * limit < 1 << 32).all())
        for running, total in zip((runs.gaps, runs.lengths), sums, strict=True):
            if running.min() < 0 or running.max() > limit.min():
                least = np.minimum.reduceat(running, begin)
                most = np.maximum.reduceat(running, begin)
                valid[has_runs] &= (least >= 0) & (most <= limit)

            # a sum below 2^32 is right in 32 bits even if it overflows; 64 bits would copy everything
            added = np.add.reduceat(running, begin, dtype=np.int32 if fits else np.int64)
            total[has_runs] = added.astype(np.int64) & 0xFFFFFFFF if fits else added

    background, area = sums
    valid &= (runs.tails >= 0) & (background + area + runs.tails == pixels)

    opening = runs.tails.copy()
    opening[has_runs] = runs.gaps[begin]
    facts[:, AREA] = area
    facts[:, LEFT] = np.where(area > 0, opening // height, 1)
    facts[:, RIGHT] = np.where(area > 0, (pixels - runs.tails - 1) // height, 0)
    return facts, valid


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
