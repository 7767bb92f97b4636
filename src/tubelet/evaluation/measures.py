"""Measure predictions against truth by name: AP, J & F, identity, each a few numbers.

One function for all who have videos with truth and predictions in memory: the benchmark, the validation
during training, and `tubelet evaluate model`. The details of each metric are in the file of that metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import ConfigError, nearest
from tubelet.core.records import Prediction, Track, Video
from tubelet.evaluation import davis, identity, ytvis
from tubelet.evaluation.davis import MOST_PROPOSALS, LabelledSequence


def measure(
    videos: Sequence[Video],
    predictions: Sequence[Prediction],
    metrics: Sequence[str] = ("ap",),
) -> dict[str, float]:
    """Compute the numbers of the metrics that are named in `metrics`.

    All are fractions, but for IDs, which counts.

    - `ap`: AP AP50 AP75 AR1 AR10 by the rules of YouTube-VIS.
    - `jf`: J&F J F by the rules of DAVIS, unsupervised, at most 20 proposals per video.
    - `identity`: IDF1 MOTA IDs HOTA on masks, of tracks with a score of at least 0.3, and IDF1_best, the
      same at the best of all thresholds, chosen on these videos: an upper bound.
    - `overall`: whether objects are found, named and followed, in one number: the mean of AP50 and of IDF1 on masks,
      which follow it. Both ask for an overlap of one half, so it suits truth whose outlines a model has drawn.
    - `mot`: IDF1 MOTA IDP IDR IDs on the tight boxes of masks, of tracks with a score of at least 0.3,
      as in Table 3 of the IFR paper. Its names are those of `identity`, so it cannot be asked for beside that, nor
      beside `overall`.

    Args:
        videos: with truth, in the order of `predictions`.
        predictions: one per video.
        metrics: names out of `METRICS`.

    Raises ConfigError if a metric is unknown, or if two give numbers of the same name.

    Example:
        >>> from tubelet.evaluation.measures import METRICS, measure
        >>> list(METRICS)
        ['ap', 'jf', 'identity', 'overall', 'mot']
        >>> measure([], [], metrics=[])
        {}
    """
    check(metrics)

    numbers: dict[str, float] = {}
    for name in metrics:
        numbers |= METRICS[name](videos, predictions)
    return numbers


def check(metrics: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest right name, if a metric is unknown, or if two give other numbers of one name.

    Example:
        >>> from tubelet.evaluation.measures import check
        >>> check(["ap", "jf"])
    """
    for name in metrics:
        if name not in METRICS:
            raise ConfigError(f"unknown metric {name!r}; {nearest(name, METRICS)}")
    on_masks = next((name for name in metrics if name in ("identity", "overall")), None)
    if on_masks and "mot" in metrics:
        raise ConfigError(f"{on_masks} (masks) and mot (boxes) give numbers of the same names: choose one of the two")


def metrics_of(figures: Iterable[str]) -> tuple[str, ...]:
    """The metrics that give these figures, as papers name them; unknown figures are passed over.

    Example:
        >>> from tubelet.evaluation.measures import metrics_of
        >>> metrics_of(["AP", "AR10", "J&F"])
        ('ap', 'jf')
    """
    known = {figure: metric for metric, given in FIGURES.items() for figure in given}
    return tuple(dict.fromkeys(known[figure] for figure in figures if figure in known))


def _average_precision(videos: Sequence[Video], predictions: Sequence[Prediction]) -> dict[str, float]:
    averages = ytvis.evaluate(videos, predictions)
    return {name: averages[name] for name in FIGURES["ap"]}


def _regions_and_contours(videos: Sequence[Video], predictions: Sequence[Prediction]) -> dict[str, float]:
    pairs = zip(videos, predictions, strict=True)
    scores = davis.evaluate([_label_maps(video.tracks or (), prediction) for video, prediction in pairs])
    return {name: scores[name] for name in FIGURES["jf"]}


def _identity(videos: Sequence[Video], predictions: Sequence[Prediction]) -> dict[str, float]:
    thresholds = (identity.THRESHOLD, *identity.SWEEP)
    swept = identity.sweep(videos, predictions, thresholds=thresholds, on_masks=True)
    numbers = {name: float(swept[identity.THRESHOLD][name]) for name in ("IDF1", "MOTA", "IDs", "HOTA")}
    return numbers | {"IDF1_best": max(row["IDF1"] for row in swept.values())}


def _overall(videos: Sequence[Video], predictions: Sequence[Prediction]) -> dict[str, float]:
    numbers = measure(videos, predictions, ("ap", "identity"))
    parts = {name: numbers[name] for name in ("AP50", "IDF1")}
    unknown = min(parts.values()) < 0  # -1, as of videos without an object
    return {"overall": -1.0 if unknown else fmean(parts.values()), **parts}


def _identity_of_boxes(videos: Sequence[Video], predictions: Sequence[Prediction]) -> dict[str, float]:
    threshold = identity.THRESHOLD
    numbers = identity.sweep(videos, predictions, thresholds=(threshold,))[threshold]
    return {name: float(numbers[name]) for name in FIGURES["mot"]}


# what papers print of each metric
FIGURES: Mapping[str, tuple[str, ...]] = {
    "ap": ("AP", "AP50", "AP75", "AR1", "AR10"),
    "jf": ("J&F", "J", "F"),
    "mot": ("IDF1", "MOTA", "IDP", "IDR", "IDs"),
}

Metric = Callable[[Sequence[Video], Sequence[Prediction]], dict[str, float]]

METRICS: Mapping[str, Metric] = {
    "ap": _average_precision,
    "jf": _regions_and_contours,
    "identity": _identity,
    "overall": _overall,
    "mot": _identity_of_boxes,
}


def _label_maps(truth: Sequence[Track], prediction: Prediction) -> LabelledSequence:
    """Label maps of a video's truth and of its best proposals; a disputed pixel goes to the best of them."""
    best = sorted(prediction.tracks, key=lambda track: -track.score)[:MOST_PROPOSALS]
    objects = [track for track in truth if not track.ignore]
    return LabelledSequence(prediction.video, _painted(objects, prediction), _painted(best, prediction))


def _painted(tracks: Sequence[Track], prediction: Prediction) -> Iterator[np.ndarray]:
    for t in range(prediction.length):
        labels = np.zeros(prediction.size, np.uint8)
        for number in range(len(tracks), 0, -1):  # the first is painted last, on top
            rle = tracks[number - 1].rles[t]
            if rle is not None:
                labels[masks.decode([rle])[0].astype(bool)] = number
        yield labels
