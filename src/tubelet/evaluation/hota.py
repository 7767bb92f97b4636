"""HOTA: one video's matches at nineteen overlap thresholds, and how well their tracks go together.

Every frame is assigned once, by overlap times alignment of the whole tracks. Source: Luiten et al.,
HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking, IJCV 2021.

Letters: T frames, G truths, P predictions; g numbers truths, p predictions; alpha is an overlap threshold.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from tubelet.evaluation.frame_overlaps import Overlaps

ALPHAS = np.arange(1, 20) / 20  # 0.05 to 0.95
EPSILON = float(np.finfo(float).eps)
CLEARLY = 1 + 1e-9  # times the second best: no rounding decides


class HotaCounts(NamedTuple):
    """Sums over the matches of one video, float [19] each, one value for each alpha.

    Example:
        >>> from tubelet.evaluation.frame_overlaps import Overlaps
        >>> from tubelet.evaluation.hota import align
        >>> present = np.ones((2, 1), bool)
        >>> similarity = np.array([[[0.8]], [[0.2]]])
        >>> counts = align(Overlaps(similarity=similarity, truths=present, predictions=present, scores=np.ones(1)))
        >>> counts.hits[[0, 10]], counts.located[[0, 10]]
        (array([2., 1.]), array([1. , 0.8]))
    """

    hits: np.ndarray  # matches
    associated: np.ndarray  # summed over matches: share of their two tracks that is matched with each other
    recalled: np.ndarray  # the same share of the truth's track alone
    precise: np.ndarray  # the same share of the predicted track alone
    located: np.ndarray  # overlaps


def align(table: Overlaps) -> HotaCounts:
    """Assign every frame and sum over the matches.

    Example:
        >>> from tubelet.evaluation.frame_overlaps import Overlaps
        >>> from tubelet.evaluation.hota import align
        >>> present = np.ones((4, 1), bool)
        >>> similarity = np.full((4, 1, 1), 0.5)
        >>> counts = align(Overlaps(similarity=similarity, truths=present, predictions=present, scores=np.ones(1)))
        >>> counts.hits.tolist() == [4.0] * 10 + [0.0] * 9
        True
    """
    similarity = table.similarity
    truth_frames = table.truths.sum(0)[:, None]  # [G, 1]
    prediction_frames = table.predictions.sum(0)[None]  # [1, P]

    # how well whole tracks align, from overlaps shared out among all that overlap
    competing = similarity.sum(1)[:, None] + similarity.sum(2)[..., None] - similarity
    zeros = np.zeros_like(similarity)
    potential = np.divide(similarity, competing, out=zeros, where=competing > EPSILON).sum(0)
    alignment = potential / np.maximum(truth_frames + prediction_frames - potential, EPSILON)

    t, g, p = _assign_frames(alignment * similarity)
    overlap = similarity[t, g, p]
    reached = np.searchsorted(ALPHAS - EPSILON, overlap, side="right")  # number of alphas

    shape = (len(ALPHAS) + 1, *alignment.shape)
    cells = np.ravel_multi_index((reached, g, p), shape)
    num_reached = np.bincount(cells, minlength=math.prod(shape)).reshape(shape)
    matches = _at_least(num_reached.astype(np.float64))

    associated = matches / np.maximum(truth_frames + prediction_frames - matches, 1)
    return HotaCounts(
        hits=matches.sum((1, 2)),
        associated=(matches * associated).sum((1, 2)),
        recalled=(matches * matches / np.maximum(truth_frames, 1)).sum((1, 2)),
        precise=(matches * matches / np.maximum(prediction_frames, 1)).sum((1, 2)),
        located=_at_least(np.bincount(reached, overlap, len(ALPHAS) + 1)),
    )


def _at_least(values: np.ndarray) -> np.ndarray:
    """Sum the values of the matches that reach alpha number 1, 2, ... 19; they lie at their number of alphas [20]."""
    return values[::-1].cumsum(0)[::-1][1:]


def _assign_frames(gain: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose one-to-one pairs of the largest summed gain [T, G, P] in each frame, without pairs of no gain.

    Returns the frame, the truth and the prediction of each pair.
    """
    if not gain.size:
        none = np.zeros(0, np.intp)
        return none, none, none

    best = gain.argmax(2)
    most = np.take_along_axis(gain, best[..., None], 2)[..., 0]  # [T, G]
    partners = np.where(most > 0, best, -1)
    is_simple = _is_simple(gain, most)
    for frame in np.flatnonzero(~is_simple & ~_is_decided(gain, most, partners)).tolist():
        rows, columns = linear_sum_assignment(gain[frame], maximize=True)
        partners[frame] = -1
        partners[frame, rows] = np.where(gain[frame, rows, columns] > 0, columns, -1)

    frames, truths = np.nonzero(partners >= 0)
    simple_first = np.argsort(~is_simple[frames], kind="stable")  # sums depend on the order, in their last digit
    frames = frames[simple_first]
    truths = truths[simple_first]
    return frames, truths, partners[frames, truths]


def _is_simple(gain: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Frames in which no prediction has two truths to choose from, and no truth two equal predictions, bool [T]."""
    num_best = ((gain * CLEARLY >= most[..., None]) & (most > 0)[..., None]).sum(2)
    num_truths = (gain > 0).sum(1)
    return np.asarray((num_best <= 1).all(1) & (num_truths <= 1).all(1))


def _is_decided(gain: np.ndarray, most: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """Frames in which every truth can have the prediction that gains most, and no rounding decides, bool [T]."""
    margin = (CLEARLY - 1) * most.max(1, keepdims=True)
    is_best = gain >= (most - margin)[..., None]
    is_clear = (is_best.sum(2) <= 1) | (most == 0)

    order = np.sort(partners, 1)
    is_shared = (order[:, 1:] == order[:, :-1]) & (order[:, 1:] >= 0)
    return np.asarray(is_clear.all(1) & ~is_shared.any(1))
