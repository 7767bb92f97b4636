"""Who matches whom: predictions by falling score take the truth of their class that they overlap most.

The rules are those of the YouTube-VIS evaluation; `evaluation.ytvis` makes numbers of the matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tubelet.core.masks.overlaps import TrackPairs, intersections, shared_at_most
from tubelet.core.masks.packed import Tube
from tubelet.evaluation.pairing import Pair
from tubelet.evaluation.parallel import each

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # the ninth is 0.8999999999999999, as in the official evaluation
MOST = (1, 10, 100)  # predictions per video and class
CHUNK = 512  # pairs of tracks that one process takes at a time


class Split(NamedTuple):
    """Which truths count; the others are ignored, and so are predictions matched to them or of an area outside."""

    name: str
    low: float = 0.0  # mean pixels over the frames that hold the object
    high: float = 1e10
    members: frozenset[tuple[str, int]] | None = None  # (video, track) of the truths that count, None for all


@dataclass(frozen=True, slots=True, kw_only=True)
class Truths:
    """G truths of all videos."""

    video: np.ndarray  # int [G], position of the video
    track: np.ndarray  # int [G], position within the video
    label: np.ndarray  # int [G]
    ids: np.ndarray  # int [G]
    crowd: np.ndarray  # bool [G]
    outside: np.ndarray  # bool [A, G], those that do not count in a split


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """D predictions by video, class and falling score: at most 100 of a class in a video, of classes with truth."""

    video: np.ndarray  # int [D], position of the video
    track: np.ndarray  # int [D], position within the video
    label: np.ndarray  # int [D]
    rank: np.ndarray  # int [D], within video and class
    score: np.ndarray  # float [D]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """D predictions against G truths, at ten thresholds, in A splits."""

    splits: tuple[str, ...]
    truths: Truths
    guesses: Guesses
    partner: np.ndarray  # int [A, 10, D], the truth that is matched, -1 for none
    found: np.ndarray  # bool [A, 10, D]
    ignored: np.ndarray  # bool [A, 10, D]


class Table(NamedTuple):
    """One video as bare numbers: P predictions against G truths."""

    labels: np.ndarray  # int [P]
    scores: np.ndarray  # float [P]
    truth_labels: np.ndarray  # int [G]
    crowd: np.ndarray  # bool [G]
    overlap: np.ndarray  # float [P, G]


def match(
    pairs: Sequence[Pair], splits: Sequence[Split], *, agnostic: bool = False, official_ids: bool = False, jobs: int = 1
) -> Matches:
    """Match predictions to truths at every threshold, in every split; see `ytvis.evaluate` for the switches."""
    truths = _truths(pairs, splits, agnostic)
    guesses = _guesses(pairs, agnostic, set(truths.label.tolist()))
    partner = _partners(guesses, truths, *_candidates(pairs, guesses, truths, jobs))
    found = partner >= 0
    if official_ids and len(truths.ids):
        found &= truths.ids[partner] != 0
    places = zip(guesses.video.tolist(), guesses.track.tolist(), strict=True)
    area = mean_areas([pairs[v].guess_tubes[n] for v, n in places])
    beyond = np.stack([(area < split.low) | (area > split.high) for split in splits])
    ignored = _ignored(partner, truths) | (~found & beyond[:, None])
    names = tuple(split.name for split in splits)
    return Matches(splits=names, truths=truths, guesses=guesses, partner=partner, found=found, ignored=ignored)


def match_tables(tables: Sequence[Table]) -> Matches:
    """The same from overlaps that are known, in the one split where all truths but crowds count."""
    sizes = [len(table.truth_labels) for table in tables]
    crowd = np.concatenate([np.zeros(0, bool), *(table.crowd for table in tables)])
    truths = Truths(
        video=np.repeat(np.arange(len(tables)), sizes),
        track=np.concatenate([np.zeros(0, np.int64), *(np.arange(size) for size in sizes)]),
        label=np.concatenate([np.zeros(0, np.int64), *(table.truth_labels for table in tables)]),
        ids=np.arange(1, len(crowd) + 1),
        crowd=crowd,
        outside=crowd[None].copy(),
    )
    counts = [len(table.labels) for table in tables]
    guesses = _ranked(
        np.repeat(np.arange(len(tables)), counts),
        np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)]),
        np.concatenate([np.zeros(0, np.int64), *(table.labels for table in tables)]),
        np.concatenate([np.zeros(0), *(table.scores for table in tables)]),
    )
    first = np.cumsum([0, *sizes])
    one, other, overlap = [], [], []
    for n, (v, track, label) in enumerate(
        zip(*(x.tolist() for x in (guesses.video, guesses.track, guesses.label)), strict=True)
    ):
        fitting = np.flatnonzero((tables[v].overlap[track] >= THRESHOLDS[0]) & (tables[v].truth_labels == label))
        one += [n] * len(fitting)
        other += (fitting + first[v]).tolist()
        overlap += tables[v].overlap[track, fitting].tolist()
    partner = _partners(guesses, truths, np.array(one, np.int64), np.array(other, np.int64), np.array(overlap))
    return Matches(
        splits=("all",),
        truths=truths,
        guesses=guesses,
        partner=partner,
        found=partner >= 0,
        ignored=_ignored(partner, truths),
    )


def mean_areas(tubes: Sequence[Tube]) -> np.ndarray:
    """Mean pixels of each tube over the frames that hold any, float [N]; 0 where none do."""
    return np.array([tube.pixels / tube.held if tube.held else 0.0 for tube in tubes])


def _truths(pairs: Sequence[Pair], splits: Sequence[Split], agnostic: bool) -> Truths:
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
    return Truths(
        video=np.array([v for v, _, _ in listed], np.int64),
        track=np.array([n for _, n, _ in listed], np.int64),
        label=np.array([0 if agnostic else track.label for _, _, track in listed], np.int64),
        ids=np.array([track.id for _, _, track in listed], np.int64),
        crowd=crowd,
        outside=outside,
    )


def _guesses(pairs: Sequence[Pair], agnostic: bool, labels: set[int]) -> Guesses:
    listed = [
        (v, n, track)
        for v, one in enumerate(pairs)
        for n, track in enumerate(one.guesses)
        if agnostic or track.label in labels
    ]
    if agnostic:
        listed.sort(key=lambda item: (item[0], item[2].label))
    return _ranked(
        np.array([v for v, _, _ in listed], np.int64),
        np.array([n for _, n, _ in listed], np.int64),
        np.array([0 if agnostic else track.label for _, _, track in listed], np.int64),
        np.array([track.score for _, _, track in listed], np.float64),
    )


def _ranked(video: np.ndarray, track: np.ndarray, label: np.ndarray, score: np.ndarray) -> Guesses:
    """By video, class and falling score; equal scores keep their order."""
    order = np.lexsort((-score, label, video))
    changes = (np.diff(video[order], prepend=-1) != 0) | (np.diff(label[order], prepend=-1) != 0)
    rank = np.arange(len(order)) - np.flatnonzero(changes)[np.cumsum(changes) - 1] if len(order) else order
    order, rank = order[rank < MOST[-1]], rank[rank < MOST[-1]]
    return Guesses(video=video[order], track=track[order], label=label[order], rank=rank, score=score[order])


def _candidates(
    pairs: Sequence[Pair], guesses: Guesses, truths: Truths, jobs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions and truths of one class in one video that overlap enough for the lowest threshold, and how much."""
    classes = int(max(guesses.label.max(initial=0), truths.label.max(initial=0))) + 1
    groups, wanted = guesses.video * classes + guesses.label, truths.video * classes + truths.label
    begins, ends = (np.searchsorted(groups, wanted, side=side) for side in ("left", "right"))
    other = np.repeat(np.arange(len(wanted)), ends - begins)
    one = np.arange(len(other)) + np.repeat(begins - np.cumsum(ends - begins) + (ends - begins), ends - begins)
    tubes = [
        (pairs[v].guess_tubes[n], pairs[v].truth_tubes[m])
        for v, n, m in zip(
            guesses.video[one].tolist(), guesses.track[one].tolist(), truths.track[other].tolist(), strict=True
        )
    ]
    chunks = [tubes[n : n + CHUNK] for n in range(0, len(tubes), CHUNK)]
    overlap = np.concatenate([np.zeros(0), *each(_overlaps, chunks, jobs)])
    enough = np.flatnonzero(overlap >= THRESHOLDS[0])
    return one[enough], other[enough], overlap[enough]


def _overlaps(pairs: TrackPairs) -> np.ndarray:
    """Intersection over union of each pair, where it may reach the lowest threshold; else 0."""
    both = np.array([one.pixels + other.pixels for one, other in pairs], np.int64)
    limit = shared_at_most(pairs)
    hopeful = np.flatnonzero((limit > 0) & (limit >= (both - limit) * THRESHOLDS[0]))
    shared = np.zeros(len(pairs), np.int64)
    shared[hopeful] = intersections([pairs[n] for n in hopeful.tolist()])
    return np.asarray(shared / np.maximum(both - shared, 1))


def _ignored(partner: np.ndarray, truths: Truths) -> np.ndarray:
    """Predictions matched to a truth that does not count."""
    if not len(truths.ids):
        return np.zeros_like(partner, bool)
    return (partner >= 0) & truths.outside[np.arange(len(partner))[:, None, None], partner]


def _partners(guesses: Guesses, truths: Truths, one: np.ndarray, other: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """The truth matched to each prediction, int [A, 10, D], -1 for none.

    Most predictions have one candidate that nobody else wants; only where they compete must the official loop be run.
    """
    limits = np.minimum(THRESHOLDS, 1 - 1e-10)
    partner = np.full((len(truths.outside), len(THRESHOLDS), len(guesses.video)), -1, np.int64)
    contested = np.bincount(one, minlength=len(guesses.video))[one] > 1
    contested |= (np.bincount(other, minlength=len(truths.video))[other] > 1) & ~truths.crowd[other]
    groups = guesses.video[one] * (int(guesses.label.max(initial=0)) + 1) + guesses.label[one]
    quarrels = set(groups[contested].tolist())  # not np.unique, which imports all of numpy.ma
    contested = np.array([group in quarrels for group in groups.tolist()], bool)
    free = ~contested
    partner[:, :, one[free]] = np.where(overlap[free] >= limits[:, None], other[free], -1)
    for group in sorted(quarrels):
        here = np.flatnonzero(groups == group)
        _compete(partner, one[here], other[here], overlap[here], truths, limits)
    return partner


def _compete(
    partner: np.ndarray, one: np.ndarray, other: np.ndarray, overlap: np.ndarray, truths: Truths, limits: np.ndarray
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
