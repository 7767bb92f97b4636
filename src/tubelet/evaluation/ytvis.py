"""YouTube-VIS average precision and recall: curves and the twelve numbers.

The overlap of two tracks is the sum of their intersections over the sum of their unions. Matches are made per video,
class, threshold and range of areas (`evaluation.partners`); precision is read off at 101 recalls. Source: the public
rules of the YouTube-VIS evaluation, followed to the last rounding; the traps are listed in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tubelet.core.records import Prediction, Video
from tubelet.evaluation.pairing import pair
from tubelet.evaluation.partners import MOST, THRESHOLDS, Matches, Split, match

RECALLS = np.linspace(0, 1, 101)
AREAS = (Split("all"), Split("small", 0, 128**2), Split("medium", 128**2, 256**2), Split("large", 256**2, 1e10))


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Precision and recall of K classes in A splits; -1 where a class has no truth that counts."""

    splits: tuple[str, ...]
    labels: tuple[int, ...]
    precision: np.ndarray  # float [K, A, 10, 101]
    recall: np.ndarray  # float [K, A, 10, 3], with 1, 10 and 100 predictions per video and class


def evaluate(
    truth: Iterable[Video],
    guesses: Iterable[Prediction],
    *,
    agnostic: bool = False,
    official_ids: bool = False,
    jobs: int = 1,
) -> dict[str, float]:
    """The twelve numbers, fractions, -1 where nothing counts: AP AP50 AP75 AP_small ... AR1 AR10 AR100 AR_small ...

    `agnostic` takes all classes as one. `official_ids` keeps the official fault that a truth of id 0 counts as missed.
    Videos are taken in the order given, which decides between equal scores: for the official numbers, by rising id.
    Raises InputError where truth and predictions do not fit.
    """
    matches = match(pair(truth, guesses), AREAS, agnostic=agnostic, official_ids=official_ids, jobs=jobs)
    return numbers(curves(matches))


def curves(matches: Matches) -> Curves:
    """Precision at 101 recalls and the last recall, per class, split and threshold."""
    guesses, truths = matches.guesses, matches.truths
    labels = np.array(sorted(set(truths.label.tolist())), np.int64)
    shape = (len(labels), len(matches.splits), len(THRESHOLDS))
    precision, recall = np.full((*shape, len(RECALLS)), -1.0), np.full((*shape, len(MOST)), -1.0)
    order = np.lexsort((guesses.rank, guesses.video, -guesses.score, guesses.label))
    counts = ~matches.ignored[..., order]
    found, rank = matches.found[..., order], guesses.rank[order]
    right, wrong = found & counts, ~found & counts
    place = np.searchsorted(labels, truths.label)
    real = np.stack([np.bincount(place[~out], minlength=len(labels)) for out in truths.outside])
    begins, ends = (np.searchsorted(guesses.label[order], labels, side=side).tolist() for side in ("left", "right"))
    for k, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        counted = real[:, k] > 0
        precision[k, counted], recall[k, counted] = trace(
            right[counted, :, begin:end], wrong[counted, :, begin:end], real[counted, k], rank[begin:end]
        )
    return Curves(splits=matches.splits, labels=tuple(labels.tolist()), precision=precision, recall=recall)


def trace(right: np.ndarray, wrong: np.ndarray, real: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits and false alarms [A, 10, D] by falling score -> precision [A, 10, 101] and last recalls [A, 10, 3].

    `real` [A] counts the truths, `rank` [D] is each prediction's place within its video and class.
    """
    hits, alarms = np.cumsum(right, -1, dtype=np.float64), np.cumsum(wrong, -1, dtype=np.float64)
    recall, precision = hits / real[:, None, None], hits / (alarms + hits + np.spacing(1))
    best = np.maximum.accumulate(precision[..., ::-1], -1)[..., ::-1]
    best = np.concatenate([best, np.zeros((*best.shape[:2], 1))], -1)  # beyond the last recall precision is 0
    points = np.empty((*right.shape[:2], len(RECALLS)))
    for a, t in np.ndindex(right.shape[:2]):
        points[a, t] = best[a, t, np.searchsorted(recall[a, t], RECALLS)]
    ends = np.stack([(right & (rank < most)).sum(-1) / real[:, None] for most in MOST], -1)
    return points, ends


def numbers(curves: Curves) -> dict[str, float]:
    """The official summary: means over the classes that count."""
    summary = {}
    for a, split in enumerate(curves.splits):
        suffix = "" if split == "all" else f"_{split}"
        summary[f"AP{suffix}"] = _mean(curves.precision[:, a])
        if not suffix:
            summary["AP50"], summary["AP75"] = _mean(curves.precision[:, a, 0]), _mean(curves.precision[:, a, 5])
    for a, split in enumerate(curves.splits):
        if split == "all":
            summary |= {f"AR{most}": _mean(curves.recall[:, a, :, m]) for m, most in enumerate(MOST)}
        else:
            summary[f"AR_{split}"] = _mean(curves.recall[:, a, :, -1])
    return summary


def per_class(curves: Curves, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The same summary for each class by itself."""
    return {
        names[label]: numbers(
            Curves(
                splits=curves.splits,
                labels=(label,),
                precision=curves.precision[k : k + 1],
                recall=curves.recall[k : k + 1],
            )
        )
        for k, label in enumerate(curves.labels)
    }


def per_threshold(curves: Curves) -> dict[str, dict[str, float]]:
    """AP and AR100 at each threshold of overlap, in every split."""
    rows: dict[str, dict[str, float]] = {}
    for t, threshold in enumerate(THRESHOLDS):
        row = rows.setdefault(f"{threshold:.2f}", {})
        for a, split in enumerate(curves.splits):
            suffix = "" if split == "all" else f"_{split}"
            row[f"AP{suffix}"] = _mean(curves.precision[:, a, t])
            row[f"AR{suffix or 100}"] = _mean(curves.recall[:, a, t, -1])
    return rows


def _mean(values: np.ndarray) -> float:
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else -1.0
