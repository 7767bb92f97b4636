"""YouTube-VIS average precision and recall: who matches whom, curves, and the twelve numbers.

The overlap of two tracks is the sum of their intersections over the sum of their unions. Per video, class, threshold
and range of areas, predictions by falling score take the truth that they overlap most, crowds and truths outside the
range last. Precision is then read off at 101 recalls. Source: the public rules of the YouTube-VIS evaluation, followed
to the last rounding; the traps are listed in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from tubelet.core.rest import Prediction, Video
from tubelet.core.tubes import Meeting, Tube, intersections, shared_at_most
from tubelet.evaluation.pairing import Pair, pair
from tubelet.evaluation.parallel import each

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # the ninth is 0.8999999999999999, as in the official evaluation
RECALLS = np.linspace(0, 1, 101)
MOST = (1, 10, 100)  # predictions per video and class


class Split(NamedTuple):
    """Which truths count; the others are ignored, and so are predictions matched to them or of an area outside."""

    name: str
    low: float = 0.0  # mean pixels over the frames that hold the object
    high: float = 1e10
    members: frozenset[tuple[str, int]] | None = None  # (video, track) of the truths that count, None for all


AREAS = (Split("all"), Split("small", 0, 128**2), Split("medium", 128**2, 256**2), Split("large", 256**2, 1e10))


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """D predictions (at most 100 per video and class, of classes that have truth) against G truths, in A splits."""

    splits: tuple[str, ...]
    videos: tuple[str, ...]
    video: np.ndarray  # int [D], position in `videos`
    track: np.ndarray  # int [D], position among the video's predictions
    label: np.ndarray  # int [D]
    rank: np.ndarray  # int [D], by score within video and class
    score: np.ndarray  # float [D]
    partner: np.ndarray  # int [A, 10, D], the truth that is matched, -1 for none
    found: np.ndarray  # bool [A, 10, D]
    ignored: np.ndarray  # bool [A, 10, D]
    truth_video: np.ndarray  # int [G]
    truth_track: np.ndarray  # int [G], position among the video's truths
    truth_label: np.ndarray  # int [G]
    outside: np.ndarray  # bool [A, G], truths that do not count


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
    matches = match(pair(truth, guesses), agnostic=agnostic, official_ids=official_ids, jobs=jobs)
    return numbers(curves(matches))


def match(
    pairs: Sequence[Pair],
    *,
    splits: Sequence[Split] = AREAS,
    agnostic: bool = False,
    official_ids: bool = False,
    jobs: int = 1,
) -> Matches:
    """Match predictions to truths at every threshold, in every split."""
    truths = _truths(pairs, splits, agnostic)
    guesses = _guesses(pairs, agnostic, set(truths.label.tolist()))
    one, other, overlap = _candidates(pairs, guesses, truths, jobs)
    partner = _partners(guesses, truths, one, other, overlap)
    taken = partner >= 0
    found = taken & (truths.ids[partner] != 0) if official_ids else taken
    index = np.arange(len(splits))[:, None, None]
    ignored = taken & truths.outside[index, partner] if len(truths.label) else np.zeros_like(taken)
    beyond = np.stack([(guesses.area < split.low) | (guesses.area > split.high) for split in splits])
    return Matches(
        splits=tuple(split.name for split in splits),
        videos=tuple(one.video for one in pairs),
        video=guesses.video,
        track=guesses.track,
        label=guesses.label,
        rank=guesses.rank,
        score=guesses.score,
        partner=partner,
        found=found,
        ignored=ignored | (~found & beyond[:, None]),
        truth_video=truths.video,
        truth_track=truths.track,
        truth_label=truths.label,
        outside=truths.outside,
    )


def curves(matches: Matches) -> Curves:
    """Precision at 101 recalls and the last recall, per class, split and threshold."""
    labels = np.unique(matches.truth_label)
    shape = (len(labels), len(matches.splits), len(THRESHOLDS))
    precision, recall = np.full((*shape, len(RECALLS)), -1.0), np.full((*shape, len(MOST)), -1.0)
    order = np.lexsort((matches.rank, matches.video, -matches.score, matches.label))
    starts = np.searchsorted(matches.label[order], [*labels, np.iinfo(np.int64).max])
    for k, label in enumerate(labels):
        chosen = order[starts[k] : starts[k + 1]]
        real = (~matches.outside[:, matches.truth_label == label]).sum(1)
        counted = real > 0
        right = (matches.found[..., chosen] & ~matches.ignored[..., chosen])[counted]
        wrong = (~matches.found[..., chosen] & ~matches.ignored[..., chosen])[counted]
        precision[k, counted], recall[k, counted] = trace(right, wrong, real[counted], matches.rank[chosen])
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
            for m, most in enumerate(MOST):
                summary[f"AR{most}"] = _mean(curves.recall[:, a, :, m])
        else:
            summary[f"AR_{split}"] = _mean(curves.recall[:, a, :, -1])
    return summary


def _mean(values: np.ndarray) -> float:
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else -1.0


@dataclass(frozen=True, slots=True)
class _Truths:
    video: np.ndarray  # [G]
    track: np.ndarray
    label: np.ndarray
    ids: np.ndarray
    crowd: np.ndarray
    outside: np.ndarray  # bool [A, G]


@dataclass(frozen=True, slots=True)
class _Guesses:
    video: np.ndarray  # [D]
    track: np.ndarray
    label: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    area: np.ndarray


def _truths(pairs: Sequence[Pair], splits: Sequence[Split], agnostic: bool) -> _Truths:
    listed = [(v, n, track) for v, one in enumerate(pairs) for n, track in enumerate(one.truths)]
    if agnostic:
        listed.sort(key=lambda item: (item[0], item[2].label))  # the official order where all classes are one
    measured = mean_areas([pairs[v].truth_tubes[n] for v, n, _ in listed])
    area = np.array([m if t.area is None else t.area for m, (_, _, t) in zip(measured, listed, strict=True)])
    crowd = np.array([track.ignore for _, _, track in listed], bool)
    names = [(pairs[v].video, track.id) for v, _, track in listed]
    outside = np.zeros((len(splits), len(listed)), bool)
    for a, split in enumerate(splits):
        members = split.members
        absent = np.array([members is not None and name not in members for name in names], bool)
        outside[a] = crowd | (area < split.low) | (area > split.high) | absent
    return _Truths(
        np.array([v for v, _, _ in listed], np.int64),
        np.array([n for _, n, _ in listed], np.int64),
        np.array([0 if agnostic else track.label for _, _, track in listed], np.int64),
        np.array([track.id for _, _, track in listed], np.int64),
        crowd,
        outside,
    )


def _guesses(pairs: Sequence[Pair], agnostic: bool, labels: set[int]) -> _Guesses:
    """Those of a class with truth, by video, class and falling score, at most 100 of a class in a video."""
    listed = [
        (v, n, track)
        for v, one in enumerate(pairs)
        for n, track in enumerate(one.guesses)
        if agnostic or track.label in labels
    ]
    if agnostic:
        listed.sort(key=lambda item: (item[0], item[2].label))
    video = np.array([v for v, _, _ in listed], np.int64)
    label = np.array([0 if agnostic else track.label for _, _, track in listed], np.int64)
    score = np.array([track.score for _, _, track in listed], np.float64)
    order = np.lexsort((-score, label, video))
    changes = (np.diff(video[order], prepend=-1) != 0) | (np.diff(label[order], prepend=-1) != 0)
    starts = np.flatnonzero(changes)
    rank = np.arange(len(order)) - starts[np.cumsum(changes) - 1] if len(order) else np.zeros(0, np.int64)
    kept = order[rank < MOST[-1]]
    track = np.array([n for _, n, _ in listed], np.int64)[kept]
    area = mean_areas([pairs[v].guess_tubes[n] for v, n in zip(video[kept].tolist(), track.tolist(), strict=True)])
    return _Guesses(video[kept], track, label[kept], rank[rank < MOST[-1]], score[kept], area)


def mean_areas(tubes: Sequence[Tube]) -> np.ndarray:
    """Mean pixels of each tube over the frames that hold any, float [N]; 0 where none do."""
    return np.array([tube.pixels / tube.held if tube.held else 0.0 for tube in tubes])


def _candidates(
    pairs: Sequence[Pair], guesses: _Guesses, truths: _Truths, jobs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions and truths of one class in one video that overlap enough for the lowest threshold, and how much."""
    meetings, places = [], []
    guess_starts = np.searchsorted(guesses.video, np.arange(len(pairs) + 1)).tolist()
    truth_starts = np.searchsorted(truths.video, np.arange(len(pairs) + 1)).tolist()
    for v, one in enumerate(pairs):
        g = np.arange(truth_starts[v], truth_starts[v + 1])
        d = np.arange(guess_starts[v], guess_starts[v + 1])
        same = guesses.label[d][:, None] == truths.label[g]
        d, same = d[same.any(1)], same[same.any(1)]
        if len(d):
            tubes = [one.guess_tubes[n] for n in guesses.track[d].tolist()]
            meetings.append(Meeting(tubes, [one.truth_tubes[n] for n in truths.track[g].tolist()], same))
            places.append((d, g))
    chunks = [meetings[n : n + 16] for n in range(0, len(meetings), 16)]
    found = []
    for (d, g), overlap in zip(places, chain.from_iterable(each(_overlaps, chunks, jobs)), strict=True):
        n, m = np.nonzero(overlap >= THRESHOLDS[0])
        found.append((d[n], g[m], overlap[n, m]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    one_side, other_side, overlaps = (np.concatenate(part) for part in zip(*found, strict=True))
    return one_side, other_side, overlaps


def _overlaps(meetings: Sequence[Meeting]) -> list[np.ndarray]:
    """Intersection over union [N, M] of each video, where it may reach the lowest threshold; else 0."""
    sums, hopeful = [], []
    for first, second, wanted in meetings:
        both = np.array([tube.pixels for tube in first])[:, None] + np.array([tube.pixels for tube in second])
        limit = shared_at_most(first, second)
        sums.append(both)
        hopeful.append(Meeting(first, second, wanted & (limit > 0) & (limit >= (both - limit) * THRESHOLDS[0])))
    shared = intersections(hopeful)
    return [part / np.maximum(both - part, 1) for part, both in zip(shared, sums, strict=True)]


def _partners(
    guesses: _Guesses, truths: _Truths, one: np.ndarray, other: np.ndarray, overlap: np.ndarray
) -> np.ndarray:
    """The truth matched to each prediction, int [A, 10, D], -1 for none.

    Most predictions have one candidate that nobody else wants; only where they compete must the official loop be run.
    """
    limits = np.minimum(THRESHOLDS, 1 - 1e-10)
    partner = np.full((len(truths.outside), len(THRESHOLDS), len(guesses.video)), -1, np.int64)
    contested = np.bincount(one, minlength=len(guesses.video))[one] > 1
    contested |= (np.bincount(other, minlength=len(truths.video))[other] > 1) & ~truths.crowd[other]
    groups = guesses.video[one] * (int(guesses.label.max(initial=0)) + 1) + guesses.label[one]
    contested = np.isin(groups, groups[contested])
    free = ~contested
    partner[:, :, one[free]] = np.where(overlap[free] >= limits[:, None], other[free], -1)
    for group in np.unique(groups[contested]):
        here = np.flatnonzero(groups == group)
        _compete(partner, one[here], other[here], overlap[here], truths, limits)
    return partner


def _compete(
    partner: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    overlap: np.ndarray,
    truths: _Truths,
    limits: np.ndarray,
) -> None:
    """Fill in the partners of one video and class."""
    crowd = dict(zip(other.tolist(), truths.crowd[other].tolist(), strict=True))
    done: dict[tuple[bool, ...], int] = {}
    for a, outside in enumerate(truths.outside[:, other]):
        key = tuple(outside.tolist())
        if key in done:
            partner[a][:, one] = partner[done[key]][:, one]
            continue
        done[key] = a
        last = dict(zip(other.tolist(), key, strict=True))
        options: dict[int, list[tuple[int, float]]] = {}
        for n in np.lexsort((other, outside, one)):
            options.setdefault(int(one[n]), []).append((int(other[n]), float(overlap[n])))
        for t, limit in enumerate(limits.tolist()):
            for guess, truth in _greedy(options, last, crowd, limit).items():
                partner[a, t, guess] = truth


def _greedy(
    options: dict[int, list[tuple[int, float]]], last: dict[int, bool], crowd: dict[int, bool], limit: float
) -> dict[int, int]:
    """The official loop; `options` are in the order in which predictions choose and truths are offered."""
    partners: dict[int, int] = {}
    taken: set[int] = set()
    for guess, offered in options.items():
        best, chosen = limit, -1
        for truth, overlap in offered:
            if truth in taken and not crowd[truth]:
                continue
            if chosen >= 0 and not last[chosen] and last[truth]:
                break
            if overlap >= best:  # of equal overlaps the later truth is taken
                best, chosen = overlap, truth
        if chosen >= 0:
            taken.add(chosen)
            partners[guess] = chosen
    return partners
