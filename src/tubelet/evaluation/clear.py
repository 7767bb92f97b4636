"""CLEAR MOT: one video's misses, false positives and identity switches, by either of two rules.

Every frame pairs truths and predictions of an overlap of 0.5 or more, one to one. The rules differ in
which pairing of the past is kept, although another one would fit better:

- py-motmetrics: a truth keeps its last partner ever, also after an interruption; the rest are paired
  with as little summed distance as possible.
- TrackEval: as many truths as possible keep their partner of the previous frame; then the summed
  overlap is as large as possible. Frames without any truth or any prediction are passed over.

Sources: Bernardin and Stiefelhagen (2008); py-motmetrics 1.4; TrackEval 1.3.

Letters: T frames, G truths, P predictions; g numbers truths, p predictions.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from tubelet.evaluation.frame_overlaps import Overlaps

Rules = Literal["motmetrics", "trackeval"]

PAIRABLE = 0.5  # overlap from which two boxes or masks can be paired, inclusive
EPSILON = float(np.finfo(float).eps)
KEEPING = 1000.0  # what TrackEval adds to the overlap with the previous partner
MOSTLY, PARTLY = 0.8, 0.2  # shares of a truth's frames


class ClearCounts(NamedTuple):
    """What CLEAR counts in one video.

    Example:
        >>> from tubelet.evaluation.clear import follow
        >>> from tubelet.evaluation.frame_overlaps import Overlaps
        >>> present = np.ones((2, 1), bool)
        >>> similarity = np.array([[[0.8]], [[0.2]]])  # too low in the second frame
        >>> table = Overlaps(similarity=similarity, truths=present, predictions=present, scores=np.ones(1))
        >>> follow(table)
        ClearCounts(misses=1, false=1, switches=0, fragments=0, matched_overlap=0.8, mostly=0, partly=1, lost=0)
    """

    misses: int
    false: int
    switches: int
    fragments: int
    matched_overlap: float  # sum of the overlaps of all pairs
    mostly: int  # truths that are paired in most of their frames
    partly: int
    lost: int


def follow(table: Overlaps, rules: Rules = "motmetrics") -> ClearCounts:
    """Pair truths and predictions frame by frame, and count.

    A truth is mostly tracked if paired in 80 % of its frames or more ("trackeval": in more than 80 %),
    mostly lost if in less than 20 %.

    Example:
        >>> from tubelet.evaluation.clear import follow
        >>> from tubelet.evaluation.frame_overlaps import Overlaps
        >>> similarity = np.array([[[0.9, 0.0]], [[0.0, 0.0]], [[0.6, 0.8]]])
        >>> truths, predictions = np.ones((3, 1), bool), np.ones((3, 2), bool)
        >>> table = Overlaps(similarity=similarity, truths=truths, predictions=predictions, scores=np.ones(2))
        >>> follow(table, "motmetrics").switches, follow(table, "trackeval").switches
        (0, 1)
    """
    partners = _keep_last_partner(table) if rules == "motmetrics" else _keep_previous_partner(table)
    matched = partners >= 0
    frames, g = np.nonzero(matched)
    mostly, partly, lost = _tracked(table.truths, matched, rules)
    fragments = _interruptions(table.truths, matched) if rules == "motmetrics" else _restarts(table, matched)

    return ClearCounts(
        misses=int((table.truths & ~matched).sum()),
        false=int(table.predictions.sum() - matched.sum()),
        switches=_switches(partners),
        fragments=fragments,
        matched_overlap=float(table.similarity[frames, g, partners[frames, g]].sum()),
        mostly=mostly,
        partly=partly,
        lost=lost,
    )


# the pairing: the partner of each truth in each frame, int [T, G], -1 for none


def _keep_last_partner(table: Overlaps) -> np.ndarray:
    partners = np.full(table.truths.shape, -1)
    last: dict[int, int] = {}  # each truth's last partner, also after an interruption

    pairable = table.similarity >= PAIRABLE
    pairable_truths = _numbers_of(np.asarray(pairable.any(2)))
    for t, truths in enumerate(pairable_truths):
        options = pairable[t]
        pairs = _without_double_use({g: last[g] for g in truths if g in last and options[g, last[g]]})

        if len(pairs) < len(truths):
            free = options.copy()
            free[list(pairs)] = False
            free[:, list(pairs.values())] = False
            pairs |= _assign_nearest(table.similarity[t], free)

        last |= pairs
        for g, p in pairs.items():
            partners[t, g] = p
    return partners


def _keep_previous_partner(table: Overlaps) -> np.ndarray:
    partners = np.full(table.truths.shape, -1)
    previous: dict[int, int] = {}

    pairable = table.similarity >= PAIRABLE - EPSILON
    pairable_truths = _numbers_of(np.asarray(pairable.any(2)))
    for t in np.flatnonzero(_has_both(table)).tolist():
        options = pairable[t]
        kept = {g: previous[g] for g in pairable_truths[t] if g in previous and options[g, previous[g]]}
        if len(kept) < len(pairable_truths[t]):
            kept = _assign_keeping(table, t, options, previous)

        previous = kept
        for g, p in kept.items():
            partners[t, g] = p
    return partners


def _numbers_of(present: np.ndarray) -> list[list[int]]:
    """The numbers of the columns that are True in each row."""
    numbers: list[list[int]] = [[] for _ in present]
    rows, columns = np.nonzero(present)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        numbers[row].append(column)
    return numbers


def _without_double_use(pairs: dict[int, int]) -> dict[int, int]:
    """Keep one truth for each prediction: the first, in the order of the truths."""
    chosen: dict[int, int] = {}
    used: set[int] = set()
    for g in sorted(pairs):
        if pairs[g] not in used:
            chosen[g] = pairs[g]
            used.add(pairs[g])
    return chosen


def _assign_nearest(similarity: np.ndarray, free: np.ndarray) -> dict[int, int]:
    """Choose as many of the free pairs, bool [G, P], as possible, of the least summed distance."""
    g, p = np.nonzero(free)
    if is_one_to_one(g, p):
        return dict(zip(g.tolist(), p.tolist(), strict=True))

    rows = np.unique(g)
    columns = np.unique(p)
    allowed = free[np.ix_(rows, columns)]
    forbidden = 2.0 * min(allowed.shape) + 1  # above any sum of distances: no pair is given up to avoid it
    distance = np.where(allowed, 1 - similarity[np.ix_(rows, columns)], forbidden)
    assignment = zip(*linear_sum_assignment(distance), strict=True)
    return {int(rows[i]): int(columns[j]) for i, j in assignment if allowed[i, j]}


def _assign_keeping(table: Overlaps, t: int, options: np.ndarray, previous: dict[int, int]) -> dict[int, int]:
    """TrackEval's assignment: as many previous partners as possible, then the largest summed overlap."""
    gain = table.similarity[t].copy()
    for g, p in previous.items():
        gain[g, p] += KEEPING
    gain[~options] = 0

    rows = np.flatnonzero(table.truths[t])
    columns = np.flatnonzero(table.predictions[t])
    gain = gain[np.ix_(rows, columns)]
    assignment = zip(*linear_sum_assignment(-gain), strict=True)
    return {int(rows[i]): int(columns[j]) for i, j in assignment if gain[i, j] > EPSILON}


def is_one_to_one(g: np.ndarray, p: np.ndarray) -> bool:
    """Whether no truth and no prediction occurs twice, so that there is nothing to choose.

    Example:
        >>> from tubelet.evaluation.clear import is_one_to_one
        >>> is_one_to_one(np.array([0, 1]), np.array([3, 3]))
        False
    """
    return len(g) == len(set(g.tolist())) == len(set(p.tolist()))


# the counts


def _has_both(table: Overlaps) -> np.ndarray:
    """Frames with a truth and a prediction, bool [T]; TrackEval passes over the others."""
    return np.asarray(table.truths.any(1) & table.predictions.any(1))


def _switches(partners: np.ndarray) -> int:
    """Count how often a truth's partner differs from its last one ever; int [T, G]."""
    total = 0
    for of_truth in partners.T:
        matched = of_truth[of_truth >= 0]
        total += int((matched[1:] != matched[:-1]).sum())
    return total


def _interruptions(truths: np.ndarray, matched: np.ndarray) -> int:
    """Count how often tracks are interrupted: matched, then missed, then matched again; bool [T, G] each."""
    total = 0
    for present, hit in zip(truths.T, matched.T, strict=True):
        hit_when_present = hit[present]
        hits = np.flatnonzero(hit_when_present)
        if hits.size:
            between = hit_when_present[hits[0] : hits[-1] + 1]
            total += int((between[:-1] & ~between[1:]).sum())
    return total


def _restarts(table: Overlaps, matched: np.ndarray) -> int:
    """Count how often truths are paired again after a frame without a partner, absent or not; bool [T, G]."""
    matched = matched[_has_both(table)]
    starts = matched.copy()
    starts[1:] &= ~matched[:-1]
    return int(np.maximum(starts.sum(0) - 1, 0).sum())


def _tracked(truths: np.ndarray, matched: np.ndarray, rules: Rules) -> tuple[int, int, int]:
    """Truths that are mostly tracked, partly tracked and mostly lost; bool [T, G] each."""
    num_frames = truths.sum(0)
    share = matched.sum(0)[num_frames > 0] / num_frames[num_frames > 0]
    is_mostly = share >= MOSTLY if rules == "motmetrics" else share > MOSTLY
    mostly = int(is_mostly.sum())
    not_lost = int((share >= PARTLY).sum())
    return mostly, not_lost - mostly, len(share) - not_lost
