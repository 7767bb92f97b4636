"""Compare predictions with a truth only as far as their matching needs it.

At each overlap threshold, the first prediction that reaches it takes the truth; what later ones reach
there does not matter. Once a prediction has reached 0.8, a later one is of interest only if it may
reach 0.85. So predictions are compared in the order in which they choose, one part of the video after
another, and given up as soon as the pixels that are left to compare cannot lift them over the next
threshold. Of near duplicates, most are given up early.

Letters: N pairs of a prediction and a truth, G truths.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tubelet.core.masks.columns import Parts, TrackMasks, lookup, shared_pixels, strokes
from tubelet.core.masks.overlaps import MOST_PIXELS, TrackPairs, part_borders
from tubelet.core.masks.packed import Tube
from tubelet.core.masks.run_codec import BATCH_BYTES, keep_freed_memory

PARTS = 3  # of a video
MOST_COLUMNS = 1 << 20  # of the frames of truths that are compared at once


def compare_in_turn(pairs: TrackPairs, truth: np.ndarray, at_most: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Count the pixels that each pair shares, if its prediction is the first to reach a threshold.

    Args:
        pairs: A prediction and a truth each.
        truth: Number of each pair's truth, int [N]. Pairs of one truth are next to each other, and
            their predictions in the order in which they choose.
        at_most: Upper bound of the shared pixels in each part of the video, int [N, PARTS].
        limits: The thresholds, ascending, float [10].

    Returns:
        int64 [N]; 0 for a pair whose prediction takes the truth at no threshold.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.overlaps import shared_at_most
        >>> from tubelet.core.masks.packed import pack
        >>> from tubelet.evaluation.first_come import PARTS, compare_in_turn
        >>> whole, half = masks.encode(np.stack([np.ones((4, 6), bool), np.arange(24).reshape(4, 6) < 12]))
        >>> truth, best, other = pack([[whole], [whole], [half]], size=(4, 6))
        >>> pairs = [(best, truth), (other, truth)]
        >>> compare_in_turn(pairs, np.array([0, 0]), shared_at_most(pairs, PARTS), np.array([0.5, 0.75]))
        array([24,  0])
    """
    shared = np.zeros(len(pairs), np.int64)
    begin = 0
    for end in _batch_ends(pairs, truth):
        shared[begin:end] = _compare_batch(pairs[begin:end], truth[begin:end], at_most[begin:end], limits)
        begin = end
    return shared


def can_be_table(tube: Tube) -> bool:
    """Whether a truth is short enough to be compared in one piece.

    Example:
        >>> from tubelet.core.masks.packed import pack
        >>> from tubelet.evaluation.first_come import can_be_table
        >>> can_be_table(pack([[None] * 30], size=(720, 1280))[0])
        True
    """
    height, width = tube.size
    return len(tube) * width <= MOST_COLUMNS and len(tube) * height * width <= MOST_PIXELS


def _batch_ends(pairs: TrackPairs, truth: np.ndarray) -> Iterator[int]:
    """Where batches of pairs end: of whole truths of one image size that fit into one table."""
    size = (0, 0)
    num_frames = 0
    for n in np.flatnonzero(_is_first(truth)).tolist():
        tube = pairs[n][1]
        height, width = tube.size
        num_frames += len(tube)
        fits = num_frames * width <= MOST_COLUMNS and num_frames * height * width <= MOST_PIXELS
        if n and (tube.size != size or not fits):
            yield n
            num_frames = len(tube)
        size = tube.size
    if pairs:
        yield len(pairs)


def _is_first(truth: np.ndarray) -> np.ndarray:
    """Whether a pair is the first one of its truth, bool [N]."""
    is_first = np.ones(len(truth), bool)
    np.not_equal(truth[1:], truth[:-1], out=is_first[1:])
    return is_first


def _compare_batch(pairs: TrackPairs, truth: np.ndarray, at_most: np.ndarray, limits: np.ndarray) -> np.ndarray:
    keep_freed_memory()
    is_first = _is_first(truth)
    table = lookup([pairs[n][1] for n in np.flatnonzero(is_first).tolist()])
    number = np.cumsum(is_first) - 1  # of the truth in the table
    origins = np.array(table.origins)[number]

    tracks = TrackMasks.of([tube for tube, _ in pairs])
    borders = tracks.first_from(part_borders(np.array([len(tube) for tube, _ in pairs]), PARTS))
    at_once = 1 + PARTS * len(pairs) * BATCH_BYTES // (1 + sum(len(tube.data) for tube, _ in pairs))
    both = np.array([first.pixels + second.pixels for first, second in pairs])
    next_limits = np.append(limits, np.inf)

    bound = at_most.sum(1)  # of the shared pixels: counted in the parts that were compared, at most in the others
    num_compared = np.zeros(len(pairs), np.int64)  # parts
    while True:
        best = bound / np.maximum(both - bound, 1)
        reached = np.searchsorted(limits, best, side="right") * (num_compared == PARTS)
        may_be_first = best >= next_limits[_most_before(reached, number)]
        candidates = np.flatnonzero(may_be_first & (num_compared < PARTS))
        if not len(candidates):
            return np.where(may_be_first, bound, 0)

        chosen = _first_of_each(candidates, number, at_once)
        part = num_compared[chosen]
        parts = Parts(chosen, borders[chosen, part], borders[chosen, part + 1], origins[chosen])
        bound[chosen] += shared_pixels(strokes(tracks, parts), table) - at_most[chosen, part]
        num_compared[chosen] += 1


def _most_before(reached: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The most thresholds that any earlier prediction of the same truth has reached, int [N]."""
    base = truth * (1 + reached.max())  # so that a later truth's numbers are all larger
    most = np.maximum.accumulate(base + reached)
    return np.maximum(np.concatenate([[0], most[:-1]]) - base, 0)


def _first_of_each(candidates: np.ndarray, truth: np.ndarray, at_once: int) -> np.ndarray:
    """The first candidates of each truth, about `at_once` in all."""
    is_first = _is_first(truth[candidates])
    firsts = np.flatnonzero(is_first)
    rank = np.arange(len(candidates)) - firsts[np.cumsum(is_first) - 1]
    return candidates[rank < max(at_once // len(firsts), 1)][:at_once]
