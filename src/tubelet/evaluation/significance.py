"""Is a difference in AP more than chance? A paired bootstrap over videos.

Two results are measured on the same videos, drawn many times with replacement; the variation of the
difference estimates how it would vary with other videos. Source: Efron's percentile interval;
pairing removes what makes a video hard for both results.

Letters: S bootstrap samples, V videos, D predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tubelet.evaluation.partners import Matches
from tubelet.evaluation.ytvis import RECALLS

SAMPLES = 1000
AT_ONCE = 64  # samples whose curves are in memory together


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value with its 95 % bootstrap interval.

    Example:
        >>> from tubelet.evaluation.significance import Interval
        >>> Interval(value=0.02, low=-0.01, high=0.05).is_noise
        True
    """

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the interval contains 0."""
        return self.low <= 0 <= self.high


def compare(
    first: Matches,
    second: Matches,
    rng: np.random.Generator,
    samples: int = SAMPLES,
) -> Interval:
    """Compute AP of the second result minus AP of the first.

    Raises:
        ValueError: if the two results are not of the same number of truths.

    Example:
        >>> from tubelet.evaluation.partners import Table, match_tables
        >>> from tubelet.evaluation.significance import compare
        >>> label, score, crowd = np.array([0]), np.array([0.9]), np.array([False])
        >>> good, bad = (match_tables([Table(label, score, label, crowd, np.array([[x]]))]) for x in (1.0, 0.0))
        >>> round(compare(bad, good, np.random.default_rng(0), samples=10).value, 3)
        1.0
    """
    return compare_runs([first], [second], rng, samples)


def compare_runs(
    first: Sequence[Matches],
    second: Sequence[Matches],
    rng: np.random.Generator,
    samples: int = SAMPLES,
) -> Interval:
    """Compute the mean AP of the second runs minus that of the first.

    All runs are measured on the same drawn videos. The interval shows how the difference varies
    with the videos. How it varies with the seed of the training is another question, which only
    more runs can answer.

    Raises:
        ValueError: if the results are not of the same number of truths.

    Example:
        >>> from tubelet.evaluation.partners import Table, match_tables
        >>> from tubelet.evaluation.significance import compare_runs
        >>> label, score, crowd = np.array([0]), np.array([0.9]), np.array([False])
        >>> run = match_tables([Table(label, score, label, crowd, np.array([[0.8]]))])
        >>> compare_runs([run, run], [run], np.random.default_rng(0), samples=10)
        Interval(value=0.0, low=0.0, high=0.0)
    """
    if len({len(run.truths.video) for run in (*first, *second)}) != 1:
        raise ValueError("two results can only be compared on the same truth")
    weights = _draw_videos([*first, *second], rng, samples)
    second_mean = np.mean([precision(run, weights) for run in second], 0)
    first_mean = np.mean([precision(run, weights) for run in first], 0)
    return _interval(second_mean - first_mean)


def spread(matches: Matches, rng: np.random.Generator, samples: int = SAMPLES) -> Interval:
    """Compute AP with its bootstrap interval.

    Example:
        >>> from tubelet.evaluation.partners import Table, match_tables
        >>> from tubelet.evaluation.significance import spread
        >>> label, score, crowd = np.array([0]), np.array([0.9]), np.array([False])
        >>> matches = match_tables([Table(label, score, label, crowd, np.array([[0.5]]))])
        >>> round(spread(matches, np.random.default_rng(0), samples=10).value, 3)
        0.1
    """
    weights = _draw_videos([matches], rng, samples)
    return _interval(precision(matches, weights))


def precision(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """Compute AP in the first split, with video v counted `weights[s, v]` times in sample s.

    A class counts in the samples that have a truth of it.

    Args:
        matches: From `partners.match` or `partners.match_tables`.
        weights: How often each video counts, float [S, V].

    Returns:
        Float [S]; -1 where no class counts.

    Example:
        >>> from tubelet.evaluation.partners import Table, match_tables
        >>> from tubelet.evaluation.significance import precision
        >>> label, score, crowd = np.array([0]), np.array([0.9]), np.array([False])
        >>> matches = match_tables([Table(label, score, label, crowd, np.array([[0.5]]))])
        >>> precision(matches, np.array([[1.0], [0.0]])).round(3)
        array([ 0.1, -1. ])
    """
    predictions = matches.predictions
    truths = matches.truths
    total = np.zeros(len(weights))
    num_classes = np.zeros(len(weights))

    # by class, then by falling score
    order = np.lexsort((predictions.rank, predictions.video, -predictions.score, predictions.label))
    for label in np.unique(truths.label):
        counted = (truths.label == label) & ~truths.outside[0]
        num_truths = weights[:, truths.video[counted]].sum(1)  # [S]

        of_class = order[predictions.label[order] == label]
        matched = matches.matched[0][:, of_class]
        ignored = matches.ignored[0][:, of_class]
        hits = matched & ~ignored
        false_alarms = ~matched & ~ignored

        has_truth = num_truths > 0
        prediction_weights = weights[has_truth][:, predictions.video[of_class]]
        total[has_truth] += _class_precision(
            hits,
            false_alarms,
            prediction_weights,
            num_truths[has_truth],
        )
        num_classes += has_truth
    return np.where(num_classes > 0, total / np.maximum(num_classes, 1), -1.0)


def _class_precision(
    hits: np.ndarray,
    false_alarms: np.ndarray,
    weights: np.ndarray,
    num_truths: np.ndarray,
) -> np.ndarray:
    """Average precision of one class over thresholds and recalls, float [S].

    Shapes: `hits` and `false_alarms` bool [10, D] by falling score, `weights` [S, D], `num_truths`
    [S].
    """
    result = np.zeros(len(weights))
    if hits.shape[1] == 0:
        return result

    for start in range(0, len(weights), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        num_hits = np.cumsum(hits * weights[part, None], -1)  # [s, 10, D]
        num_false = np.cumsum(false_alarms * weights[part, None], -1)
        envelope = num_hits / np.maximum(num_hits + num_false, 1)
        envelope = np.maximum.accumulate(envelope[..., ::-1], -1)[..., ::-1]

        # the recall points that each prediction is the first to reach share its precision
        recall = num_hits / num_truths[part, None, None]
        reached = np.floor(recall * 100 + 1e-9).astype(np.int64) + 1
        reached -= RECALLS[reached - 1] > recall  # to the last rounding as the official search does it
        newly_reached = np.diff(reached, prepend=0)
        result[part] = (envelope * newly_reached).sum(-1).mean(-1) / 101
    return result


def _draw_videos(runs: Sequence[Matches], rng: np.random.Generator, samples: int) -> np.ndarray:
    """Draw how often each video counts, float [1 + samples, V]; the first row counts each video once."""
    last_video = [part.video.max(initial=-1) for run in runs for part in (run.truths, run.predictions)]
    num_videos = int(max(last_video)) + 1
    if num_videos:
        drawn: np.ndarray = rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), samples)
    else:
        drawn = np.zeros((samples, 0))
    return np.concatenate([np.ones((1, num_videos)), drawn])


def _interval(values: np.ndarray) -> Interval:
    """The first value, of the videos as they are, with the interval of the others."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Interval(value=float(values[0]), low=float(low), high=float(high))
