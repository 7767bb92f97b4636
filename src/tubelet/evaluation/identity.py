"""Identity through time: CLEAR MOT, ID measures and HOTA, on tight boxes or on masks.

CLEAR and ID measures follow py-motmetrics by default, as the IFR paper's Table 3 does, or TrackEval
(`rules`): `evaluation.clear` says where the two differ. ID measures assign whole tracks once per
video. HOTA is the same by both rules, see `evaluation.hota`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
from scipy.optimize import linear_sum_assignment

from tubelet.core.errors import ConfigError, nearest
from tubelet.core.records import Prediction, Video
from tubelet.evaluation.clear import PAIRABLE, Rules, follow
from tubelet.evaluation.frame_overlaps import Overlaps as Overlaps
from tubelet.evaluation.frame_overlaps import overlaps as overlaps
from tubelet.evaluation.hota import ALPHAS, align
from tubelet.evaluation.pairing import Pair, pair
from tubelet.evaluation.parallel import each

THRESHOLD = 0.3  # of scores; the paper states none
SWEEP = tuple(n / 20 for n in range(1, 20))  # 0.05 to 0.95

RULES: Mapping[Rules, str] = {"motmetrics": "py-motmetrics", "trackeval": "TrackEval"}

# the measures that `evaluate` returns, as tables print them
GROUPS = {
    "ID": ("IDF1", "IDP", "IDR"),
    "CLEAR": ("MOTA", "MOTAL", "MOTP", "MODA", "sMOTA", "IDs", "FP", "FN", "fragments", "MT", "PT", "ML"),
    "HOTA": ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA", "OWTA"),
    "HOTA at 0.05": ("HOTA(0)", "LocA(0)", "HOTALocA(0)"),
}
# the measures of the IFR paper's Table 3, and HOTA
MAIN = ("IDF1", "IDP", "IDR", "MOTA", "IDs", "FP", "FN", "fragments", "HOTA", "DetA", "AssA")
COUNTED = frozenset({"IDs", "FP", "FN", "fragments", "MT", "PT", "ML"})
PER_TRUTH = frozenset({"MOTA", "MOTAL", "MODA", "sMOTA"})  # may be -1 although there are truths


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of one or more videos; the measures are ratios of their sums.

    Example:
        >>> from tubelet.evaluation.identity import Counts
        >>> total = Counts.none() + Counts.none()
        >>> total.truths, total.hits.shape
        (0, (19,))
    """

    truths: int = 0  # true boxes or masks
    predictions: int = 0  # predicted boxes or masks
    misses: int = 0
    false: int = 0
    switches: int = 0
    fragments: int = 0
    matched_overlap: float = 0.0  # sum of the overlaps of CLEAR's pairs
    mostly: int = 0  # truths that are mostly tracked
    partly: int = 0
    lost: int = 0
    identified: int = 0  # boxes or masks paired by the assignment of whole tracks
    hits: np.ndarray  # float [19], HOTA's matches at each alpha
    associated: np.ndarray  # float [19], sums over these matches, see `evaluation.hota.HotaCounts`
    recalled: np.ndarray  # float [19]
    precise: np.ndarray  # float [19]
    located: np.ndarray  # float [19]

    @classmethod
    def none(cls) -> Counts:
        """Return counts of zero."""
        zeros = np.zeros(len(ALPHAS))
        return cls(hits=zeros, associated=zeros, recalled=zeros, precise=zeros, located=zeros)

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def evaluate(
    truth: Iterable[Video],
    predictions: Iterable[Prediction],
    *,
    threshold: float = THRESHOLD,
    on_masks: bool = False,
    class_aware: bool = False,
    rules: Rules = "motmetrics",
    jobs: int = 1,
) -> dict[str, float]:
    """Measure how well predictions keep the identity of objects.

    Args:
        truth: Videos with annotated tracks; crowds are left out.
        predictions: At most one per video.
        threshold: Score below which predicted tracks are left out.
        on_masks: Compute overlaps on masks instead of their tight boxes.
        class_aware: Pair only tracks of the same class.
        rules: "motmetrics" or "trackeval", whose CLEAR is followed.
        jobs: Number of processes.

    Returns:
        The measures of all `GROUPS`; ratios are fractions. Where there is nothing to divide by, they
        are -1, or, by the rules of TrackEval, 0 (LocA: 1).

    Raises:
        ConfigError: if there are no such rules.
        InputError: if truth and predictions do not belong together, see `evaluation.pairing.pair`.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation import identity
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=(track,))
        >>> result = identity.evaluate([video], [prediction])
        >>> result["IDF1"], result["IDs"]
        (1.0, 0)
    """
    thresholds = (threshold,)
    swept = sweep(
        truth,
        predictions,
        thresholds=thresholds,
        on_masks=on_masks,
        class_aware=class_aware,
        rules=rules,
        jobs=jobs,
    )
    return swept[threshold]


def sweep(
    truth: Iterable[Video],
    predictions: Iterable[Prediction],
    *,
    thresholds: Sequence[float] = SWEEP,
    on_masks: bool = False,
    class_aware: bool = False,
    rules: Rules = "motmetrics",
    jobs: int = 1,
) -> dict[float, dict[str, float]]:
    """Call `evaluate` at several score thresholds, computing overlaps once: threshold -> measures.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation import identity
        >>> track = tubelet.Track(id=1, label=0, score=0.5, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=(track,))
        >>> swept = identity.sweep([video], [prediction], thresholds=[0.3, 0.7])
        >>> {threshold: measures["FN"] for threshold, measures in swept.items()}
        {0.3: 0, 0.7: 2}
    """
    check_rules(rules)
    count_video = partial(
        _count_at_thresholds,
        thresholds=tuple(thresholds),
        on_masks=on_masks,
        class_aware=class_aware,
        rules=rules,
    )
    by_video = each(count_video, pair(truth, predictions), jobs)
    by_threshold = zip(*by_video, strict=True)
    totals = (sum(counts, Counts.none()) for counts in by_threshold)
    return {threshold: numbers(total, rules) for threshold, total in zip(thresholds, totals, strict=True)}


def by_class(
    truth: Iterable[Video],
    predictions: Iterable[Prediction],
    names: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    on_masks: bool = False,
    rules: Rules = "motmetrics",
    jobs: int = 1,
) -> dict[str, dict[str, float]]:
    """Call `evaluate` for each class by itself, and average over classes in TrackEval's two ways.

    Args:
        truth: Videos with annotated tracks; crowds are left out.
        predictions: At most one per video.
        names: Of the data set's classes.
        threshold: Score below which predicted tracks are left out.
        on_masks: Compute overlaps on masks instead of their tight boxes.
        rules: "motmetrics" or "trackeval".
        jobs: Number of processes.

    Returns:
        The measures of each class that has a truth or a prediction, by its name; and of
        "class average", the mean of the classes (counts are added up), and "detection average", from
        the counts of all classes added up.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation import identity
        >>> track = tubelet.Track(id=1, label=1, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=[torch.zeros(3, 4, 4)] * 2, tracks=(track,))
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=(track,))
        >>> list(identity.by_class([video], [prediction], names=("cat", "dog")))
        ['dog', 'class average', 'detection average']
    """
    check_rules(rules)
    count_video = partial(_count_classes, threshold=threshold, on_masks=on_masks, rules=rules)
    totals: dict[int, Counts] = {}
    for counts_of_video in each(count_video, pair(truth, predictions), jobs):
        for label, counts in counts_of_video.items():
            totals[label] = totals.get(label, Counts.none()) + counts

    return class_numbers({names[label]: total for label, total in sorted(totals.items())}, rules)


def class_numbers(totals: Mapping[str, Counts], rules: Rules = "motmetrics") -> dict[str, dict[str, float]]:
    """Turn the summed counts of classes into the rows that `by_class` returns.

    Example:
        >>> from dataclasses import replace
        >>> from tubelet.evaluation.identity import Counts, class_numbers
        >>> cats, dogs = (replace(Counts.none(), truths=n, predictions=n, identified=3) for n in (3, 6))
        >>> rows = class_numbers({"cat": cats, "dog": dogs})
        >>> rows["class average"]["IDF1"], round(rows["detection average"]["IDF1"], 3)
        (0.75, 0.667)
    """
    present = {name: total for name, total in totals.items() if total.truths + total.predictions}
    if not present:
        return {}

    rows = {name: numbers(total, rules) for name, total in present.items()}
    total = sum(present.values(), Counts.none())
    average = {name: _average(name, rows.values(), present.values(), rules) for name in numbers(total, rules)}
    return {**rows, "class average": average, "detection average": numbers(total, rules)}


def check_rules(name: str) -> Rules:
    """Return the rules of this name; ConfigError, with the nearest right name, if there are none.

    Example:
        >>> from tubelet.evaluation.identity import check_rules
        >>> check_rules("trackeval")
        'trackeval'
    """
    for rules in RULES:
        if rules == name:
            return rules
    raise ConfigError(f"unknown rules {name!r}; {nearest(name, RULES)}")


def numbers(counts: Counts, rules: Rules = "motmetrics") -> dict[str, float]:
    """Turn summed counts into the measures that `evaluate` returns.

    Example:
        >>> from dataclasses import replace
        >>> from tubelet.evaluation.identity import Counts, numbers
        >>> hits = np.full(19, 3.0)
        >>> counts = replace(Counts.none(), truths=4, predictions=3, misses=1, hits=hits, associated=hits)
        >>> numbers(counts)["MOTA"], numbers(counts)["DetA"]
        (0.75, 0.75)
    """
    truths = counts.truths
    total = truths + counts.predictions
    errors = counts.misses + counts.false + counts.switches
    return {
        "IDF1": _ratio(2 * counts.identified, total, rules),
        "IDP": _ratio(counts.identified, counts.predictions, rules),
        "IDR": _ratio(counts.identified, truths, rules),
        "MOTA": 1 - errors / truths if truths else _ratio(-errors, truths, rules),
        "MOTAL": _ratio(truths - counts.misses - counts.false - _log10(counts.switches), truths, rules),
        "MOTP": _ratio(counts.matched_overlap, truths - counts.misses, rules),
        "MODA": _ratio(truths - counts.misses - counts.false, truths, rules),
        "sMOTA": _ratio(counts.matched_overlap - counts.false - counts.switches, truths, rules),
        "IDs": counts.switches,
        "FP": counts.false,
        "FN": counts.misses,
        "fragments": counts.fragments,
        "MT": counts.mostly,
        "PT": counts.partly,
        "ML": counts.lost,
        **_hota_numbers(counts, rules),
    }


def _hota_numbers(counts: Counts, rules: Rules) -> dict[str, float]:
    hits = counts.hits
    detection = hits / np.maximum(counts.truths + counts.predictions - hits, 1)
    recall = hits / np.maximum(counts.truths, 1)
    association = counts.associated / np.maximum(hits, 1)
    location = np.where(hits > 0, counts.located / np.maximum(hits, 1), 1)
    curves = {
        "HOTA": np.sqrt(detection * association),
        "DetA": detection,
        "AssA": association,
        "DetRe": recall,
        "DetPr": hits / np.maximum(counts.predictions, 1),
        "AssRe": counts.recalled / np.maximum(hits, 1),
        "AssPr": counts.precise / np.maximum(hits, 1),
        "LocA": location,
        "OWTA": np.sqrt(recall * association),
    }
    values = {name: float(curve.mean()) for name, curve in curves.items()}
    hota = float(curves["HOTA"][0])
    values |= {"HOTA(0)": hota, "LocA(0)": float(location[0]), "HOTALocA(0)": hota * float(location[0])}
    if rules == "motmetrics" and not counts.truths + counts.predictions:
        return dict.fromkeys(values, -1.0)
    return values


def _log10(value: int) -> float:
    return math.log10(value) if value else 0.0


def _ratio(part: float, whole: float, rules: Rules) -> float:
    if whole:
        return part / whole
    return -1.0 if rules == "motmetrics" else float(part)


def _average(name: str, rows: Iterable[dict[str, float]], totals: Iterable[Counts], rules: Rules) -> float:
    """The sum of a count over classes, or the mean of a ratio over the classes in which it is defined."""
    if name in COUNTED:
        return sum(row[name] for row in rows)

    values = []
    for row, total in zip(rows, totals, strict=True):
        is_defined = rules == "trackeval" or row[name] != -1 or (name in PER_TRUTH and total.truths > 0)
        if is_defined:
            values.append(row[name])
    return math.fsum(values) / len(values) if values else -1.0


# counts of one video


def _count_at_thresholds(
    pair: Pair,
    thresholds: Sequence[float],
    on_masks: bool,
    class_aware: bool,
    rules: Rules,
) -> list[Counts]:
    table = overlaps(pair, least=min(thresholds), on_masks=on_masks, class_aware=class_aware)
    counts: dict[int, Counts] = {}  # by the number of predictions: thresholds between two scores share them
    listed = []
    for threshold in thresholds:
        chosen = table.above(threshold)
        number = len(chosen.scores)
        if number not in counts:
            counts[number] = count(chosen, rules)
        listed.append(counts[number])
    return listed


def _count_classes(pair: Pair, threshold: float, on_masks: bool, rules: Rules) -> dict[int, Counts]:
    """The counts of each class of truths and predictions."""
    table = overlaps(pair, least=threshold, on_masks=on_masks)
    truth_labels = np.array([track.label for track in pair.truths if not track.ignore], np.int64)
    labels = np.array([track.label for track in pair.predictions if track.score >= threshold], np.int64)
    present = sorted({*truth_labels.tolist(), *labels.tolist()})
    return {label: count(table.only(truth_labels == label, labels == label), rules) for label in present}


def count(table: Overlaps, rules: Rules = "motmetrics") -> Counts:
    """Count everything that one video contributes.

    Example:
        >>> from tubelet.evaluation.identity import Overlaps, count
        >>> present = np.ones((2, 1), bool)
        >>> similarity = np.array([[[0.8]], [[0.2]]])  # too low in the second frame
        >>> counts = count(
        ...     Overlaps(similarity=similarity, truths=present, predictions=present, scores=np.ones(1))
        ... )
        >>> counts.truths, counts.misses, counts.false
        (2, 1, 1)
    """
    pairable = (table.similarity >= PAIRABLE).sum(0)  # frames, [G, P]
    assignment = linear_sum_assignment(-pairable)
    return Counts(
        truths=int(table.truths.sum()),
        predictions=int(table.predictions.sum()),
        identified=int(pairable[assignment].sum()),
        **follow(table, rules)._asdict(),
        **align(table)._asdict(),
    )
