"""YouTube-VIS average precision (AP) and recall (AR): the twelve official numbers, and curves.

The overlap of two tracks is the sum of their intersections over the sum of their unions, over all
frames. `evaluation.partners` matches predictions to truths per video, class, overlap threshold and
area range; precision is sampled at 101 recall values. Source: the public rules of the YouTube-VIS
evaluation, followed to the last rounding; docs/metrics.md lists the details that are easy to get
wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tubelet.core.records import Prediction, Video
from tubelet.evaluation.pairing import pair
from tubelet.evaluation.partners import MOST, THRESHOLDS, Matches, Split, match

RECALLS = np.linspace(0, 1, 101)
AREAS = (
    Split("all"),
    Split("small", 0, 128**2),
    Split("medium", 128**2, 256**2),
    Split("large", 256**2, 1e10),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Precision and recall of K classes in A splits; -1 where a class has no truth in a split.

    Example:
        >>> from tubelet.evaluation import partners, ytvis
        >>> label, crowd = np.array([0]), np.array([False])
        >>> table = partners.Table(label, np.array([0.9]), label, crowd, overlap=np.array([[0.8]]))
        >>> curves = ytvis.curves(partners.match_tables([table]))
        >>> curves.precision.shape, curves.recall.shape
        ((1, 1, 10, 101), (1, 1, 10, 3))
    """

    splits: tuple[str, ...]
    labels: tuple[int, ...]
    precision: np.ndarray  # float [K, A, 10, 101]
    recall: np.ndarray  # float [K, A, 10, 3], with 1, 10 and 100 predictions per video and class


def evaluate(
    truth: Iterable[Video],
    predictions: Iterable[Prediction],
    *,
    agnostic: bool = False,
    official_ids: bool = False,
    jobs: int = 1,
) -> dict[str, float]:
    """Compute the twelve official numbers.

    Among equal scores the earlier video comes first: pass videos by rising id to get the official
    numbers.

    Args:
        truth: Videos with annotated tracks.
        predictions: At most one per video; a video without one counts as having no detections.
        agnostic: Treat all classes as one.
        official_ids: Reproduce a bug of the official code, where a truth with id 0 counts as
            missed.
        jobs: Number of processes.

    Returns:
        AP, AP50, AP75, AP_small, AP_medium, AP_large, AR1, AR10, AR100, AR_small, AR_medium and
        AR_large as fractions; -1 where there is no truth to measure.

    Raises:
        InputError: if truth and predictions do not belong together, see `evaluation.pairing.pair`.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation import ytvis
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=(track,))
        >>> round(ytvis.evaluate([video], [prediction])["AP"], 3)
        1.0
    """
    pairs = pair(truth, predictions)
    matches = match(pairs, AREAS, agnostic=agnostic, official_ids=official_ids, jobs=jobs)
    return numbers(curves(matches))


def curves(matches: Matches) -> Curves:
    """Compute precision and recall curves of every class, split and overlap threshold.

    Example:
        >>> from tubelet.evaluation import partners, ytvis
        >>> label, crowd = np.array([0]), np.array([False])
        >>> table = partners.Table(label, np.array([0.9]), label, crowd, overlap=np.array([[0.8]]))
        >>> curves = ytvis.curves(partners.match_tables([table]))
        >>> curves.recall[0, 0, :, -1]  # at thresholds 0.5, 0.55, ...
        array([1., 1., 1., 1., 1., 1., 1., 0., 0., 0.])
    """
    predictions = matches.predictions
    truths = matches.truths

    labels = np.array(sorted(set(truths.label.tolist())), np.int64)
    shape = (len(labels), len(matches.splits), len(THRESHOLDS))
    precision = np.full((*shape, len(RECALLS)), -1.0)
    recall = np.full((*shape, len(MOST)), -1.0)

    # by class, then by falling score
    order = np.lexsort((predictions.rank, predictions.video, -predictions.score, predictions.label))
    matched = matches.matched[..., order]
    counted = ~matches.ignored[..., order]
    hits = matched & counted
    false_alarms = ~matched & counted
    rank = predictions.rank[order]

    truth_class = np.searchsorted(labels, truths.label)
    truths_per_class = [
        np.bincount(truth_class[~outside], minlength=len(labels))
        for outside in truths.outside  # of each split
    ]
    num_truths = np.stack(truths_per_class)  # [A, K]

    sorted_labels = predictions.label[order]
    starts = np.searchsorted(sorted_labels, labels, side="left").tolist()
    stops = np.searchsorted(sorted_labels, labels, side="right").tolist()
    for k, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        has_truth = num_truths[:, k] > 0
        precision[k, has_truth], recall[k, has_truth] = trace(
            hits[has_truth, :, start:stop],
            false_alarms[has_truth, :, start:stop],
            num_truths[has_truth, k],
            rank[start:stop],
        )

    return Curves(
        splits=matches.splits,
        labels=tuple(labels.tolist()),
        precision=precision,
        recall=recall,
    )


def trace(
    hits: np.ndarray,
    false_alarms: np.ndarray,
    num_truths: np.ndarray,
    rank: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Trace the precision-recall curve of one class.

    Args:
        hits: True positives by falling score, bool [A, 10, D].
        false_alarms: False positives, bool [A, 10, D]; ignored predictions are neither.
        num_truths: Truths per split, int [A], above 0.
        rank: Position of each prediction within its video and class, int [D].

    Returns:
        Precision at the 101 recalls [A, 10, 101], and the final recall with 1, 10 and 100
        predictions per video [A, 10, 3].

    Example:
        >>> from tubelet.evaluation import ytvis
        >>> hits = np.array([[[True, False]]])
        >>> num_truths, rank = np.array([2]), np.array([0, 1])
        >>> precision, recall = ytvis.trace(hits, ~hits, num_truths, rank)
        >>> round(float(precision.mean()), 3), recall[0, 0]
        (0.505, array([0.5, 0.5, 0.5]))
    """
    num_hits = np.cumsum(hits, -1, dtype=np.float64)
    num_false = np.cumsum(false_alarms, -1, dtype=np.float64)
    recall = num_hits / num_truths[:, None, None]
    precision = num_hits / (num_false + num_hits + np.spacing(1))

    # precision never falls as recall falls; beyond the last recall it is 0
    envelope = np.maximum.accumulate(precision[..., ::-1], -1)[..., ::-1]
    envelope = np.concatenate([envelope, np.zeros((*envelope.shape[:2], 1))], -1)

    sampled = np.empty((*hits.shape[:2], len(RECALLS)))
    for a, t in np.ndindex(hits.shape[:2]):
        sampled[a, t] = envelope[a, t, np.searchsorted(recall[a, t], RECALLS)]

    final_recall = [(hits & (rank < most)).sum(-1) / num_truths[:, None] for most in MOST]
    return sampled, np.stack(final_recall, -1)


def numbers(curves: Curves) -> dict[str, float]:
    """Average curves over classes and thresholds, as the official evaluation does.

    -1 where nothing counts.

    Example:
        >>> from tubelet.evaluation import ytvis
        >>> precision, recall = np.full((1, 1, 10, 101), 0.5), np.full((1, 1, 10, 3), 0.25)
        >>> curves = ytvis.Curves(splits=("all",), labels=(0,), precision=precision, recall=recall)
        >>> ytvis.numbers(curves)
        {'AP': 0.5, 'AP50': 0.5, 'AP75': 0.5, 'AR1': 0.25, 'AR10': 0.25, 'AR100': 0.25}
    """
    summary = {}
    for a, split in enumerate(curves.splits):
        suffix = "" if split == "all" else f"_{split}"
        summary[f"AP{suffix}"] = _mean(curves.precision[:, a])
        if not suffix:
            summary["AP50"] = _mean(curves.precision[:, a, 0])
            summary["AP75"] = _mean(curves.precision[:, a, 5])

    for a, split in enumerate(curves.splits):
        if split == "all":
            for m, most in enumerate(MOST):
                summary[f"AR{most}"] = _mean(curves.recall[:, a, :, m])
        else:
            summary[f"AR_{split}"] = _mean(curves.recall[:, a, :, -1])
    return summary


def per_class(curves: Curves, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Summarise each class by itself, under its name; `names` are the data set's classes.

    Example:
        >>> from tubelet.evaluation import ytvis
        >>> precision, recall = np.full((1, 1, 10, 101), 0.5), np.full((1, 1, 10, 3), 0.25)
        >>> curves = ytvis.Curves(splits=("all",), labels=(1,), precision=precision, recall=recall)
        >>> ytvis.per_class(curves, ["cat", "dog"])["dog"]["AP"]
        0.5
    """
    summaries = {}
    for k, label in enumerate(curves.labels):
        of_class = Curves(
            splits=curves.splits,
            labels=(label,),
            precision=curves.precision[k : k + 1],
            recall=curves.recall[k : k + 1],
        )
        summaries[names[label]] = numbers(of_class)
    return summaries


def per_threshold(curves: Curves) -> dict[str, dict[str, float]]:
    """Average AP and AR100 over the classes at each overlap threshold, in every split.

    Example:
        >>> from tubelet.evaluation import ytvis
        >>> precision, recall = np.full((1, 1, 10, 101), 0.5), np.full((1, 1, 10, 3), 0.25)
        >>> curves = ytvis.Curves(splits=("all",), labels=(0,), precision=precision, recall=recall)
        >>> ytvis.per_threshold(curves)["0.50"]
        {'AP': 0.5, 'AR100': 0.25}
    """
    rows: dict[str, dict[str, float]] = {}
    for t, threshold in enumerate(THRESHOLDS):
        row = rows.setdefault(f"{threshold:.2f}", {})
        for a, split in enumerate(curves.splits):
            suffix = "" if split == "all" else f"_{split}"
            row[f"AP{suffix}"] = _mean(curves.precision[:, a, t])
            row[f"AR{suffix or 100}"] = _mean(curves.recall[:, a, t, -1])
    return rows


def _mean(values: np.ndarray) -> float:
    """The mean without the entries of -1, which mark classes without truth."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else -1.0
