"""What each kind of failure costs: an oracle mends it, and AP is computed again.

Mending works on pixel counts alone (which track shares how many pixels with which object in which frame), so that it
needs no masks: a switch is undone by giving each frame's counts to the track that should have had them. Each kind is
mended by itself (what it costs), and all kinds one after another (shares that add up: what is left is the rest).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from tubelet.evaluation.cases import Case, overlap_of, span
from tubelet.evaluation.diagnosis import (
    CHANGE,
    CLASS,
    DUPLICATE,
    FALSE,
    KINDS,
    LOOSE,
    LOST,
    MERGE,
    MISSED,
    SWITCH,
    Failure,
)
from tubelet.evaluation.partners import Table, match_tables
from tubelet.evaluation.ytvis import curves, numbers


class Cost(NamedTuple):
    """What a kind of failure does to AP."""

    times: int
    alone: float  # AP if only this kind were mended
    share: float  # of the lost AP, when kinds are mended one after another; with the rest they add up to 1


def costs(cases: Sequence[Case], failures: Sequence[Failure]) -> tuple[float, dict[str, Cost], float]:
    """AP, the cost of each kind in the order of KINDS, and the share of the lost AP that no kind explains."""
    base = precision(cases, failures, ())
    lost = 1 - base
    is_perfect = lost < 1e-12  # the official precision of a perfect result is 1 but for a rounding
    before, found = base, {}
    for n, kind in enumerate(KINDS, 1):
        after = precision(cases, failures, KINDS[:n])
        times = sum(failure.kind == kind for failure in failures)
        alone = precision(cases, failures, (kind,)) if times else base
        found[kind] = Cost(times, alone, 0.0 if is_perfect else (after - before) / lost)
        before = after
    return base, found, 0.0 if is_perfect else (1 - before) / lost


def precision(cases: Sequence[Case], failures: Sequence[Failure], mended: Collection[str]) -> float:
    """AP when all failures of the kinds that are `mended` had not happened."""
    score = _usual_score(cases)
    by_case: dict[int, list[Failure]] = {}
    for failure in failures:
        by_case.setdefault(failure.place, []).append(failure)
    tables = []
    for n, case in enumerate(cases):
        chosen = [failure for failure in by_case.get(n, ()) if failure.kind in mended]
        tables.append(_Mending(case, chosen, by_case[n], score).table() if chosen else case.table())
    return numbers(curves(match_tables(tables)))["AP"]


def _usual_score(cases: Sequence[Case]) -> float:
    """The mean score of predictions that are right: what a missed object, had it been found, would have had."""
    matches = match_tables([case.table() for case in cases])
    right = matches.guesses.score[matches.found[0, 0]]
    return float(right.mean()) if right.size else 1.0


class _Mending:
    """One video with some of its failures undone. Slots behind the predictions take objects that have no track."""

    def __init__(self, case: Case, failures: Sequence[Failure], known: Sequence[Failure], score: float) -> None:
        self.case = case
        self.merged = [(p, f.frames) for f in known if f.kind == MERGE for p in f.track_places]
        num_truths, num_tracks = len(case.truth_labels), len(case.labels)
        spare = num_truths + sum(failure.kind == MISSED for failure in failures)
        self.shared = np.concatenate([case.shared, np.zeros((*case.shared.shape[:2], spare))], 2)
        self.area = np.concatenate([case.area, np.zeros((len(case.area), spare))], 1)
        self.labels = np.concatenate([case.labels, np.full(spare, -1)])
        self.scores = np.concatenate([case.scores, np.full(spare, score)])
        self.alive = np.arange(num_tracks + spare) < num_tracks
        self.held = dict(case.held)
        self.next = num_tracks
        for kind, mend in (
            (MERGE, self._part),
            (LOST, self._fill),
            (CLASS, self._rename),
            (LOOSE, self._trim),
            (MISSED, self._find),
        ):
            if kind == LOST:
                self._untangle({g for f in failures if f.kind in (SWITCH, CHANGE) for g in f.truth_places})
            for failure in failures:
                if failure.kind == kind:
                    mend(failure)
        for failure in failures:
            if failure.kind in (DUPLICATE, FALSE):
                self.alive[failure.track_places[0]] = False

    def table(self) -> Table:
        """What AP is made of, mended."""
        kept = np.flatnonzero(self.alive)
        overlap = overlap_of(self.shared[:, :, kept], self.case.truth_area, self.area[:, kept])
        crowd = np.zeros(len(self.case.truth_labels), bool)
        return Table(self.labels[kept], self.scores[kept], self.case.truth_labels, crowd, overlap)

    def _new(self, g: int) -> int:
        """A track for an object that has none, of its class."""
        slot, self.next = self.next, self.next + 1
        self.alive[slot] = True
        self.labels[slot] = self.case.truth_labels[g]
        return slot

    def _holder(self, g: int, like: int) -> int:
        """The track of an object; a new one, of the score of another, where it has none."""
        if g not in self.held:
            self.held[g] = self._new(g)
            self.scores[self.held[g]] = self.scores[like]
        return self.held[g]

    def _put(self, slot: int, frames: Sequence[int], g: int, pixels: np.ndarray) -> None:
        """In these frames the track is so many pixels of one object and nothing else."""
        frames = list(frames)
        self.shared[frames, :, slot] = 0
        self.shared[frames, g, slot] = pixels
        self.area[frames, slot] = pixels

    def _part(self, failure: Failure) -> None:
        """A mask of several objects becomes a mask of each."""
        frames, (p, *_) = list(failure.frames), failure.track_places
        main, *others = failure.truth_places
        for g in others:
            self._put(self._holder(g, p), frames, g, self.case.shared[frames, g, p])
        self._put(p, frames, main, self.case.shared[frames, main, p])

    def _untangle(self, objects: Collection[int]) -> None:
        """Give each object's frames to the one track that should be its own."""
        shared, area = self.shared.copy(), self.area.copy()
        emptied: list[tuple[int, int]] = []
        filled: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for g in objects:
            owner = self.case.owner[:, g]
            held = np.flatnonzero(owner >= 0)
            if held.size == 0:
                continue
            slot = self._holder(g, int(owner[held[0]]))
            source = np.where((owner >= 0) & self._fits_better(g, owner, slot), owner, slot)
            column = np.take_along_axis(shared, source[:, None, None], 2)[..., 0]
            whole = np.take_along_axis(area, source[:, None], 1)[:, 0]
            elsewhere = (owner < 0) & (self.case.owner == slot).any(1)  # it holds another object then
            filled[slot] = np.where(elsewhere[:, None], 0, column), np.where(elsewhere, 0, whole)
            emptied += [(t, int(owner[t])) for t in held.tolist() if owner[t] != slot]
        for t, p in emptied:
            self.shared[t, :, p] = self.area[t, p] = 0
        for slot, (column, whole) in filled.items():
            self.shared[:, :, slot], self.area[:, slot] = column, whole
        robbed = [p for _, p in emptied]
        self.alive[robbed] &= self.area[:, robbed].any(0)  # a track whose every frame went elsewhere is no track

    def _fits_better(self, g: int, owner: np.ndarray, slot: int) -> np.ndarray:
        """Frames in which the owner's mask fits an object better than that of its one track, bool [T]."""
        union = self.case.truth_area[:, g, None] + self.area - self.shared[:, g]
        overlap = self.shared[:, g] / np.maximum(union, 1)
        return np.asarray(np.take_along_axis(overlap, np.maximum(owner, 0)[:, None], 1)[:, 0] > overlap[:, slot])

    def _fill(self, failure: Failure) -> None:
        """The track of a lost object goes on."""
        (g,), frames = failure.truth_places, list(failure.frames)
        self._put(self._holder(g, failure.track_places[0]), frames, g, self.case.truth_area[frames, g])

    def _rename(self, failure: Failure) -> None:
        self.labels[failure.track_places[0]] = self.case.truth_labels[failure.truth_places[0]]

    def _trim(self, failure: Failure) -> None:
        """Where the track stands for the object, it becomes the object."""
        (g,), (p,) = failure.truth_places, failure.track_places
        held = span(self.case, g, p)
        for track, frames in self.merged:
            held[list(frames)] &= track != p
        kept = np.flatnonzero(held).tolist()
        self._put(p, kept, g, self.case.truth_area[kept, g])

    def _find(self, failure: Failure) -> None:
        (g,) = failure.truth_places
        self._put(self._new(g), range(len(self.area)), g, self.case.truth_area[:, g])
