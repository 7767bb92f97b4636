"""Is a difference in AP more than luck? Paired bootstrap over videos.

Both results are measured on the same videos, drawn again and again with replacement; how much the difference varies
says how far it would with other videos. Source: Efron's percentile interval; pairing takes out what is hard for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tubelet.evaluation.partners import Matches
from tubelet.evaluation.ytvis import RECALLS

SAMPLES = 1000
AT_ONCE = 64  # samples whose curves are held in memory together


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number with the middle 95 % of what resampled videos give."""

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether 0 lies within."""
        return self.low <= 0 <= self.high


def compare(first: Matches, second: Matches, rng: np.random.Generator, samples: int = SAMPLES) -> Interval:
    """AP of the second less AP of the first, over the same videos. Raises ValueError where these are not as many."""
    return compare_runs([first], [second], rng, samples)


def compare_runs(
    first: Sequence[Matches], second: Sequence[Matches], rng: np.random.Generator, samples: int = SAMPLES
) -> Interval:
    """Mean AP of the second runs less that of the first, over the same videos, drawn alike for all runs.

    The interval tells how the difference varies with the videos; how it varies with the seed of the training is another
    matter, and only as many runs can tell. Raises ValueError where the videos are not as many.
    """
    if len({len(run.truths.video) for run in (*first, *second)}) != 1:
        raise ValueError("two results can only be compared on the same truth")
    weights = _draws([*first, *second], rng, samples)
    means = [np.mean([precision(run, weights) for run in runs], 0) for runs in (second, first)]
    return _interval(means[0] - means[1])


def spread(matches: Matches, rng: np.random.Generator, samples: int = SAMPLES) -> Interval:
    """AP, and how it varies with the videos."""
    return _interval(precision(matches, _draws([matches], rng, samples)))


def precision(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """AP in the first split with each video counted `weights` [S, V] times, float [S]; -1 where nothing counts.

    A class counts where any of its truths is drawn.
    """
    guesses, truths = matches.guesses, matches.truths
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    order = np.lexsort((guesses.rank, guesses.video, -guesses.score, guesses.label))
    for label in np.unique(truths.label):
        counted = (truths.label == label) & ~truths.outside[0]
        real = weights[:, truths.video[counted]].sum(1)
        chosen = order[guesses.label[order] == label]
        right = matches.found[0][:, chosen] & ~matches.ignored[0][:, chosen]
        wrong = ~matches.found[0][:, chosen] & ~matches.ignored[0][:, chosen]
        held = real > 0
        total[held] += _class_precision(right, wrong, weights[held][:, guesses.video[chosen]], real[held])
        classes += held
    return np.where(classes > 0, total / np.maximum(classes, 1), -1.0)


def _class_precision(right: np.ndarray, wrong: np.ndarray, weights: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Hits and false alarms [10, D] by falling score, weights [S, D], truths [S] -> mean precision [S]."""
    answers = np.zeros(len(weights))
    if right.shape[1] == 0:
        return answers
    for begin in range(0, len(weights), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        hits = np.cumsum(right * weights[part, None], -1)  # [s, 10, D]
        alarms = np.cumsum(wrong * weights[part, None], -1)
        best = hits / np.maximum(hits + alarms, 1)
        best = np.maximum.accumulate(best[..., ::-1], -1)[..., ::-1]
        # the recall points that each prediction is the first to reach share its precision
        recall = hits / real[part, None, None]
        reached = np.floor(recall * 100 + 1e-9).astype(np.int64) + 1
        reached -= RECALLS[reached - 1] > recall  # to the last rounding as the official search does it
        answers[part] = (best * np.diff(reached, prepend=0)).sum(-1).mean(-1) / 101
    return answers


def _draws(runs: Sequence[Matches], rng: np.random.Generator, samples: int) -> np.ndarray:
    """How often each video is drawn, float [1 + samples, V]; the first row takes each once."""
    seen = [part.video.max(initial=-1) for run in runs for part in (run.truths, run.guesses)]
    count = int(max(seen)) + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), samples) if count else np.zeros((samples, 0))
    return np.concatenate([np.ones((1, count)), drawn])


def _interval(values: np.ndarray) -> Interval:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Interval(value=float(values[0]), low=float(low), high=float(high))
