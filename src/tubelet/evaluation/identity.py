"""Identity through time: CLEAR MOT, ID measures and HOTA, on tight boxes or on masks.

CLEAR and ID measures follow py-motmetrics, as the IFR paper's Table 3 does: a truth keeps its last
partner while the two can be paired, the rest are assigned frame by frame, and a partner that
differs from the truth's last one is an identity switch. HOTA follows Luiten et al. (IJCV 2021):
frames are assigned once, by overlap times alignment of the whole tracks.

Letters: T frames, G truths, P predictions; g numbers truths, p predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Self

import numpy as np
from scipy.optimize import linear_sum_assignment

from tubelet.core import masks
from tubelet.core.masks.overlaps import frame_intersections
from tubelet.core.masks.packed import Tube
from tubelet.core.masks.run_codec import AREA
from tubelet.core.records import Prediction, Video
from tubelet.evaluation.pairing import Pair, pair
from tubelet.evaluation.parallel import each

PAIRABLE = 0.5  # overlap from which two boxes or masks can be paired, inclusive
THRESHOLD = 0.3  # of scores; the paper states none
SWEEP = tuple(n / 20 for n in range(1, 20))  # 0.05 to 0.95
ALPHAS = np.arange(1, 20) / 20  # HOTA's overlap thresholds, 0.05 to 0.95
EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """The overlaps of one video's truths and predictions, frame by frame.

    Example:
        >>> from tubelet.evaluation.identity import Overlaps
        >>> table = Overlaps(
        ...     similarity=np.full((2, 1, 1), 0.8),
        ...     truths=np.ones((2, 1), bool),
        ...     predictions=np.ones((2, 1), bool),
        ...     scores=np.array([0.4]),
        ... )
        >>> table.above(0.5).similarity.shape
        (2, 1, 0)
    """

    similarity: np.ndarray  # float [T, G, P], intersection over union
    truths: np.ndarray  # bool [T, G], True where the truth is present
    predictions: np.ndarray  # bool [T, P], True where the prediction is present
    scores: np.ndarray  # float [P]

    def above(self, threshold: float) -> Self:
        """Return only the predictions with a score of `threshold` or more."""
        chosen = self.scores >= threshold
        return replace(
            self,
            similarity=self.similarity[:, :, chosen],
            predictions=self.predictions[:, chosen],
            scores=self.scores[chosen],
        )


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
    identified: int = 0  # boxes or masks paired by the assignment of whole tracks
    hits: np.ndarray  # float [19], HOTA's matches at each alpha
    associated: np.ndarray  # float [19], sum of the association scores of these matches

    @classmethod
    def none(cls) -> Counts:
        """Return counts of zero."""
        return cls(hits=np.zeros(len(ALPHAS)), associated=np.zeros(len(ALPHAS)))

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def evaluate(
    truth: Iterable[Video],
    predictions: Iterable[Prediction],
    *,
    threshold: float = THRESHOLD,
    on_masks: bool = False,
    class_aware: bool = False,
    jobs: int = 1,
) -> dict[str, float]:
    """Measure how well predictions keep the identity of objects.

    Args:
        truth: Videos with annotated tracks; crowds are left out.
        predictions: At most one per video.
        threshold: Score below which predicted tracks are left out.
        on_masks: Compute overlaps on masks instead of their tight boxes.
        class_aware: Pair only tracks of the same class.
        jobs: Number of processes.

    Returns:
        IDF1, IDP, IDR, MOTA, IDs (identity switches), FP, FN, fragments, HOTA, DetA and AssA;
        ratios are fractions, and -1 where there is nothing to divide by.

    Raises:
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
    count_video = partial(
        _count_at_thresholds,
        thresholds=tuple(thresholds),
        on_masks=on_masks,
        class_aware=class_aware,
    )
    by_video = each(count_video, pair(truth, predictions), jobs)
    by_threshold = zip(*by_video, strict=True)
    totals = (sum(counts, Counts.none()) for counts in by_threshold)
    return {threshold: numbers(total) for threshold, total in zip(thresholds, totals, strict=True)}


def numbers(counts: Counts) -> dict[str, float]:
    """Turn summed counts into the measures that `evaluate` returns.

    Example:
        >>> from tubelet.evaluation.identity import Counts, numbers
        >>> hits = np.full(19, 3.0)
        >>> counts = Counts(truths=4, predictions=3, misses=1, hits=hits, associated=hits)
        >>> numbers(counts)["MOTA"], numbers(counts)["DetA"]
        (0.75, 0.75)
    """
    total = counts.truths + counts.predictions
    detection = counts.hits / np.maximum(counts.truths + counts.predictions - counts.hits, 1)
    association = counts.associated / np.maximum(counts.hits, 1)
    errors = counts.misses + counts.false + counts.switches
    return {
        "IDF1": _ratio(2 * counts.identified, total),
        "IDP": _ratio(counts.identified, counts.predictions),
        "IDR": _ratio(counts.identified, counts.truths),
        "MOTA": 1 - errors / counts.truths if counts.truths else -1.0,
        "IDs": counts.switches,
        "FP": counts.false,
        "FN": counts.misses,
        "fragments": counts.fragments,
        "HOTA": float(np.sqrt(detection * association).mean()) if total else -1.0,
        "DetA": float(detection.mean()) if total else -1.0,
        "AssA": float(association.mean()) if total else -1.0,
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else -1.0


def _count_at_thresholds(
    pair: Pair,
    thresholds: Sequence[float],
    on_masks: bool,
    class_aware: bool,
) -> list[Counts]:
    table = overlaps(pair, least=min(thresholds), on_masks=on_masks, class_aware=class_aware)
    return [count(table.above(threshold)) for threshold in thresholds]


# overlaps


def overlaps(
    pair: Pair,
    *,
    least: float = 0.0,
    on_masks: bool = False,
    class_aware: bool = False,
) -> Overlaps:
    """Compute a video's overlaps, without crowds and without predictions of a score below `least`.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation import identity, pairing
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=(track,))
        >>> (pair,) = pairing.pair([video], [prediction])
        >>> identity.overlaps(pair).similarity.tolist()
        [[[1.0]], [[1.0]]]
    """
    truth_rows = [n for n, track in enumerate(pair.truths) if not track.ignore]
    prediction_rows = [n for n, track in enumerate(pair.predictions) if track.score >= least]
    truths = [pair.truth_tubes[n] for n in truth_rows]
    predictions = [pair.guess_tubes[n] for n in prediction_rows]
    truth_area = _areas(truths, pair.length)
    area = _areas(predictions, pair.length)

    if on_masks:
        similarity = _mask_overlaps(truths, predictions, truth_area, area)
    else:
        similarity = _box_overlaps(_boxes(truths, pair.length), _boxes(predictions, pair.length))

    if class_aware:
        truth_labels = np.array([pair.truths[n].label for n in truth_rows])
        labels = np.array([pair.predictions[n].label for n in prediction_rows])
        similarity = similarity * (truth_labels[:, None] == labels)

    return Overlaps(
        similarity=similarity,
        truths=truth_area > 0,
        predictions=area > 0,
        scores=np.array([pair.predictions[n].score for n in prediction_rows], np.float64),
    )


def _areas(tubes: Sequence[Tube], length: int) -> np.ndarray:
    """Pixels of each tube in each frame, [T, N]."""
    if not tubes:
        return np.zeros((length, 0))
    return np.stack([tube.facts[:, AREA] for tube in tubes], 1)


def _mask_overlaps(
    truths: Sequence[Tube],
    predictions: Sequence[Tube],
    truth_area: np.ndarray,
    area: np.ndarray,
) -> np.ndarray:
    """Intersection over union of masks, float [T, G, P]; areas are [T, G] and [T, P]."""
    shape = (len(truth_area), len(truths), len(predictions))
    if truths and predictions:
        shared = frame_intersections(truths, predictions).reshape(shape).astype(np.float64)
    else:
        shared = np.zeros(shape)
    union = truth_area[:, :, None] + area[:, None] - shared
    return np.asarray(shared / np.maximum(union, 1))


def _boxes(tubes: Sequence[Tube], length: int) -> np.ndarray:
    """Tight half-open boxes (x1, y1, x2, y2), float [T, N, 4]; zeros where a tube is absent."""
    boxes = np.zeros((length, len(tubes), 4))
    for n, tube in enumerate(tubes):
        frames = np.flatnonzero(tube.facts[:, AREA])
        rles = [rle for t in frames.tolist() if (rle := tube[t]) is not None]
        boxes[frames, n] = masks.boxes(rles)
    return boxes


def _box_overlaps(truths: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [T, G, 4] and [T, P, 4] -> [T, G, P]; 0 where either is empty."""
    first = truths[:, :, None]
    second = predictions[:, None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.clip(sides, 0, None).prod(-1)
    first_area = (first[..., 2:] - first[..., :2]).prod(-1)
    second_area = (second[..., 2:] - second[..., :2]).prod(-1)
    union = first_area + second_area - shared
    return np.asarray(shared / np.maximum(union, 1))


# counts of one video


def count(table: Overlaps) -> Counts:
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
    hits, associated = _align(table)
    misses, false, switches, fragments = _follow(table)

    pairable = (table.similarity >= PAIRABLE).sum(0)  # frames, [G, P]
    assignment = linear_sum_assignment(-pairable)

    return Counts(
        truths=int(table.truths.sum()),
        predictions=int(table.predictions.sum()),
        misses=misses,
        false=false,
        switches=switches,
        fragments=fragments,
        identified=int(pairable[assignment].sum()),
        hits=hits,
        associated=associated,
    )


def _follow(table: Overlaps) -> tuple[int, int, int, int]:
    """CLEAR MOT: misses, false positives, switches and fragments of one video."""
    partners: dict[int, int] = {}  # each truth's last partner, also after an interruption
    matched = np.zeros_like(table.truths)
    switches = 0

    pairable = table.similarity >= PAIRABLE
    for t, similarity in enumerate(table.similarity):
        options = pairable[t]
        if not options.any():
            continue

        continued = {g: p for g, p in partners.items() if options[g, p]}
        pairs = _without_double_use(continued)

        free = options.copy()
        free[list(pairs)] = False
        free[:, list(pairs.values())] = False
        for g, p in _assign_nearest(similarity, free):
            switches += partners.get(g, p) != p
            pairs[g] = p
            partners[g] = p

        matched[t, list(pairs)] = True

    misses = int((table.truths & ~matched).sum())
    false = int(table.predictions.sum() - matched.sum())
    return misses, false, switches, _fragments(table.truths, matched)


def _without_double_use(pairs: dict[int, int]) -> dict[int, int]:
    """Keep one truth for each prediction: the first, in the order of the truths."""
    chosen: dict[int, int] = {}
    used: set[int] = set()
    for g in sorted(pairs):
        if pairs[g] not in used:
            chosen[g] = pairs[g]
            used.add(pairs[g])
    return chosen


def _assign_nearest(similarity: np.ndarray, free: np.ndarray) -> list[tuple[int, int]]:
    """Choose as many of the free pairs, bool [G, P], as possible, of the least summed distance."""
    g, p = np.nonzero(free)
    if _is_one_to_one(g, p):
        return list(zip(g.tolist(), p.tolist(), strict=True))

    rows = np.unique(g)
    columns = np.unique(p)
    allowed = free[np.ix_(rows, columns)]
    forbidden = 2.0 * min(allowed.shape) + 1  # above any sum of distances: no pair is given up to avoid it
    distance = np.where(allowed, 1 - similarity[np.ix_(rows, columns)], forbidden)
    assignment = zip(*linear_sum_assignment(distance), strict=True)
    return [(int(rows[i]), int(columns[j])) for i, j in assignment if allowed[i, j]]


def _is_one_to_one(g: np.ndarray, p: np.ndarray) -> bool:
    """Whether no truth and no prediction occurs twice, so that there is nothing to choose."""
    return len(g) == len(set(g.tolist())) == len(set(p.tolist()))


def _fragments(truths: np.ndarray, matched: np.ndarray) -> int:
    """Count how often tracks are interrupted: matched, then missed, then matched again; bool [T, G] each."""
    total = 0
    for present, hit in zip(truths.T, matched.T, strict=True):
        hit_when_present = hit[present]
        hits = np.flatnonzero(hit_when_present)
        if hits.size:
            between = hit_when_present[hits[0] : hits[-1] + 1].astype(np.int8)
            total += int((np.diff(between) == -1).sum())
    return total


def _align(table: Overlaps) -> tuple[np.ndarray, np.ndarray]:
    """HOTA of one video: matches at each alpha [19], and the sum of their association scores [19]."""
    similarity = table.similarity
    truth_frames = table.truths.sum(0)[:, None]  # [G, 1]
    prediction_frames = table.predictions.sum(0)[None]  # [1, P]

    # how well whole tracks align, from overlaps shared out among all that overlap
    competing = similarity.sum(1)[:, None] + similarity.sum(2)[..., None] - similarity
    zeros = np.zeros_like(similarity)
    potential = np.divide(similarity, competing, out=zeros, where=competing > EPSILON).sum(0)
    alignment = potential / np.maximum(truth_frames + prediction_frames - potential, EPSILON)

    matches = np.zeros((len(ALPHAS), *alignment.shape))
    for overlap in similarity:
        g, p = _assign_best(alignment * overlap)
        for n, m, value in zip(g, p, overlap[g, p].tolist(), strict=True):
            reached = np.searchsorted(ALPHAS - EPSILON, value, side="right")
            matches[:reached, n, m] += 1

    scores = matches / np.maximum(truth_frames + prediction_frames - matches, 1)
    return matches.sum((1, 2)), (matches * scores).sum((1, 2))


def _assign_best(gain: np.ndarray) -> tuple[list[int], list[int]]:
    """Choose the one-to-one pairs of the largest summed gain [G, P], without pairs of no gain."""
    g, p = np.nonzero(gain)
    if _is_one_to_one(g, p):
        return g.tolist(), p.tolist()
    rows, columns = linear_sum_assignment(-gain)
    gains = gain[rows, columns] > 0
    return rows[gains].tolist(), columns[gains].tolist()
