"""Identity through time: CLEAR MOT, ID measures and HOTA, on tight boxes or on masks.

CLEAR and ID measures follow py-motmetrics, as the IFR paper's Table 3 does: a truth keeps its last partner while the
two can be paired, the rest are assigned frame by frame, and a partner other than the truth's last ever one is a switch.
HOTA follows Luiten et al. (IJCV 2021): frames are assigned once, by overlap times alignment of the whole tracks.
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

PAIRABLE = 0.5  # overlap from which on two boxes or masks can be paired, inclusive
THRESHOLD = 0.3  # of scores; the paper states none
SWEEP = tuple(n / 20 for n in range(1, 20))  # 0.05 to 0.95
ALPHAS = np.arange(1, 20) / 20  # HOTA's overlaps, 0.05 to 0.95
EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """One video's truth and predictions, frame by frame."""

    similarity: np.ndarray  # float [T, G, P], intersection over union
    truths: np.ndarray  # bool [T, G], where the truth is there
    guesses: np.ndarray  # bool [T, P]
    scores: np.ndarray  # float [P]

    def above(self, threshold: float) -> Self:
        """Only the predictions whose score reaches the threshold."""
        kept = self.scores >= threshold
        return replace(
            self, similarity=self.similarity[:, :, kept], guesses=self.guesses[:, kept], scores=self.scores[kept]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What is summed over videos before anything is divided."""

    truths: int = 0  # boxes or masks of the truth
    guesses: int = 0
    misses: int = 0
    false: int = 0
    switches: int = 0
    fragments: int = 0
    identified: int = 0  # boxes that the assignment of whole tracks covers
    hits: np.ndarray  # float [19], HOTA's matches at each alpha
    associated: np.ndarray  # float [19], sum of their association scores

    @classmethod
    def none(cls) -> Counts:
        """Nothing yet."""
        return cls(hits=np.zeros(len(ALPHAS)), associated=np.zeros(len(ALPHAS)))

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def evaluate(
    truth: Iterable[Video],
    guesses: Iterable[Prediction],
    *,
    threshold: float = THRESHOLD,
    on_masks: bool = False,
    class_aware: bool = False,
    jobs: int = 1,
) -> dict[str, float]:
    """IDF1 IDP IDR MOTA IDs FP FN fragments HOTA DetA AssA; -1 where there is nothing to divide by.

    Predictions below the score threshold are left out, and so are truths marked as crowds. Classes do not matter,
    unless `class_aware`: then only tracks of one class can be paired. Raises InputError where truth and predictions do
    not fit.
    """
    swept = sweep(truth, guesses, thresholds=(threshold,), on_masks=on_masks, class_aware=class_aware, jobs=jobs)
    return swept[threshold]


def sweep(
    truth: Iterable[Video],
    guesses: Iterable[Prediction],
    *,
    thresholds: Sequence[float] = SWEEP,
    on_masks: bool = False,
    class_aware: bool = False,
    jobs: int = 1,
) -> dict[float, dict[str, float]]:
    """The same at several thresholds of score; overlaps are computed once."""
    count = partial(_count, thresholds=tuple(thresholds), on_masks=on_masks, class_aware=class_aware)
    parts = each(count, pair(truth, guesses), jobs)
    totals = (sum(column, Counts.none()) for column in zip(*parts, strict=True))
    return {threshold: numbers(total) for threshold, total in zip(thresholds, totals, strict=True)}


def numbers(counts: Counts) -> dict[str, float]:
    """Ratios of sums."""
    tracked = counts.truths + counts.guesses
    detected = counts.hits / np.maximum(counts.truths + counts.guesses - counts.hits, 1)
    associated = counts.associated / np.maximum(counts.hits, 1)
    errors = counts.misses + counts.false + counts.switches
    return {
        "IDF1": _ratio(2 * counts.identified, tracked),
        "IDP": _ratio(counts.identified, counts.guesses),
        "IDR": _ratio(counts.identified, counts.truths),
        "MOTA": 1 - errors / counts.truths if counts.truths else -1.0,
        "IDs": counts.switches,
        "FP": counts.false,
        "FN": counts.misses,
        "fragments": counts.fragments,
        "HOTA": float(np.sqrt(detected * associated).mean()) if tracked else -1.0,
        "DetA": float(detected.mean()) if tracked else -1.0,
        "AssA": float(associated.mean()) if tracked else -1.0,
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else -1.0


def _count(one: Pair, thresholds: Sequence[float], on_masks: bool, class_aware: bool) -> list[Counts]:
    table = overlaps(one, least=min(thresholds), on_masks=on_masks, class_aware=class_aware)
    return [count(table.above(threshold)) for threshold in thresholds]


def overlaps(one: Pair, *, least: float = 0.0, on_masks: bool = False, class_aware: bool = False) -> Overlaps:
    """Overlaps of a video's truths, crowds left out, with its predictions of a score of `least` or more."""
    real = [n for n, track in enumerate(one.truths) if not track.ignore]
    kept = [n for n, track in enumerate(one.guesses) if track.score >= least]
    truths, guesses = [one.truth_tubes[n] for n in real], [one.guess_tubes[n] for n in kept]
    held = [
        np.stack([t.facts[:, AREA] for t in ts], 1) if ts else np.zeros((one.length, 0)) for ts in (truths, guesses)
    ]
    if on_masks:
        shared = frame_intersections(truths, guesses) if truths and guesses else np.zeros((one.length, 0, 0))
        shared = shared.reshape(one.length, len(truths), len(guesses)).astype(np.float64)
        similarity = shared / np.maximum(held[0][:, :, None] + held[1][:, None] - shared, 1)
    else:
        similarity = _box_overlaps(_boxes(truths, one.length), _boxes(guesses, one.length))
    if class_aware:
        labels = [one.truths[n].label for n in real], [one.guesses[n].label for n in kept]
        similarity = similarity * (np.array(labels[0])[:, None] == np.array(labels[1]))
    return Overlaps(
        similarity=similarity,
        truths=held[0] > 0,
        guesses=held[1] > 0,
        scores=np.array([one.guesses[n].score for n in kept], np.float64),
    )


def _boxes(tubes: Sequence[Tube], length: int) -> np.ndarray:
    """Tight half-open boxes, float [T, N, 4]; zeros where there is nothing."""
    boxes = np.zeros((length, len(tubes), 4))
    for n, tube in enumerate(tubes):
        frames = np.flatnonzero(tube.facts[:, AREA])
        boxes[frames, n] = masks.boxes([rle for t in frames.tolist() if (rle := tube[t]) is not None])
    return boxes


def _box_overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [T, G, 4] and [T, P, 4] -> [T, G, P]; 0 where either is empty."""
    one, other = one[:, :, None], other[:, None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.clip(sides, 0, None).prod(-1)
    union = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1) - shared
    return np.asarray(shared / np.maximum(union, 1))


def count(table: Overlaps) -> Counts:
    """Everything that one video adds."""
    hits, associated = _align(table)
    misses, false, switches, fragments = _follow(table)
    pairable = (table.similarity >= PAIRABLE).sum(0)
    best = linear_sum_assignment(-pairable)
    return Counts(
        truths=int(table.truths.sum()),
        guesses=int(table.guesses.sum()),
        misses=misses,
        false=false,
        switches=switches,
        fragments=fragments,
        identified=int(pairable[best].sum()),
        hits=hits,
        associated=associated,
    )


def _follow(table: Overlaps) -> tuple[int, int, int, int]:
    """CLEAR MOT: misses, false positives, switches and fragments of one video."""
    partners: dict[int, int] = {}  # the last ever partner of each truth
    found = np.zeros_like(table.truths)
    switches = 0
    pairable = table.similarity >= PAIRABLE
    for t, similarity in enumerate(table.similarity):
        options = pairable[t]
        if not options.any():
            continue
        pairs = {g: p for g, p in partners.items() if options[g, p]}
        taken = _first_come(pairs)
        free = options.copy()
        free[list(taken)] = False
        free[:, list(taken.values())] = False
        for g, p in _assigned(similarity, free):
            switches += partners.get(g, p) != p
            taken[g] = partners[g] = p
        found[t, list(taken)] = True
    misses = int((table.truths & ~found).sum())
    false = int(table.guesses.sum() - found.sum())
    return misses, false, switches, _fragments(table.truths, found)


def _first_come(pairs: dict[int, int]) -> dict[int, int]:
    """One truth for each partner: the first, in the order of the truths."""
    taken: dict[int, int] = {}
    used: set[int] = set()
    for g in sorted(pairs):
        if pairs[g] not in used:
            taken[g] = pairs[g]
            used.add(pairs[g])
    return taken


def _assigned(similarity: np.ndarray, free: np.ndarray) -> list[tuple[int, int]]:
    """As many of the free pairs [G, P] as can be, of least summed distance."""
    g, p = np.nonzero(free)
    if len(g) == len(set(g.tolist())) == len(set(p.tolist())):
        return list(zip(g.tolist(), p.tolist(), strict=True))
    rows, columns = np.unique(g), np.unique(p)
    open_pairs = free[np.ix_(rows, columns)]
    forbidden = 2.0 * min(open_pairs.shape) + 1  # more than any number of distances: pairs are never given up for it
    distance = np.where(open_pairs, 1 - similarity[np.ix_(rows, columns)], forbidden)
    chosen = zip(*linear_sum_assignment(distance), strict=True)
    return [(int(rows[i]), int(columns[j])) for i, j in chosen if open_pairs[i, j]]


def _fragments(truths: np.ndarray, found: np.ndarray) -> int:
    """How often a truth, between the first and last time it is found, begins to be missed; [T, G] each."""
    count = 0
    for present, hit in zip(truths.T, found.T, strict=True):
        seen = hit[present]
        held = np.flatnonzero(seen)
        if held.size:
            count += int((np.diff(seen[held[0] : held[-1] + 1].astype(np.int8)) == -1).sum())
    return count


def _align(table: Overlaps) -> tuple[np.ndarray, np.ndarray]:
    """HOTA of one video: matches at each alpha [19], and the sum of their association scores [19]."""
    similarity = table.similarity
    present, given = table.truths.sum(0)[:, None], table.guesses.sum(0)[None]
    both = similarity.sum(1)[:, None] + similarity.sum(2)[..., None] - similarity
    potential = np.divide(similarity, both, out=np.zeros_like(similarity), where=both > EPSILON).sum(0)
    alignment = potential / np.maximum(present + given - potential, EPSILON)
    matches = np.zeros((len(ALPHAS), *alignment.shape))
    for value in similarity:
        g, p = _best(alignment * value)
        for n, m, overlap in zip(g, p, value[g, p].tolist(), strict=True):
            matches[: np.searchsorted(ALPHAS - EPSILON, overlap, side="right"), n, m] += 1
    scores = matches / np.maximum(present + given - matches, 1)
    return matches.sum((1, 2)), (matches * scores).sum((1, 2))


def _best(gain: np.ndarray) -> tuple[list[int], list[int]]:
    """The assignment of largest gain [G, P], without pairs that gain nothing."""
    g, p = np.nonzero(gain)
    if len(g) == len(set(g.tolist())) == len(set(p.tolist())):
        return g.tolist(), p.tolist()
    rows, columns = linear_sum_assignment(-gain)
    kept = gain[rows, columns] > 0
    return rows[kept].tolist(), columns[kept].tolist()
