"""Compute what each kind of failure costs: undo it, and compute AP again.

Failures are undone on pixel counts alone (which track shares how many pixels with which object in
which frame), so no masks are needed: a switch is undone by giving each frame's counts to the track
that should have had them. Each kind is undone by itself (what it costs alone), and all kinds one
after another (shares that add up; what is left is the rest).

Letters: T frames, G objects, P tracks; g numbers the objects of a video, p its tracks.
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
    """What one kind of failure costs in AP.

    Example:
        >>> from tubelet.evaluation.costs import Cost
        >>> cost = Cost(times=2, alone=0.8, share=0.5)
        >>> f"{cost.times} failures; without them AP is {cost.alone}"
        '2 failures; without them AP is 0.8'
    """

    times: int  # number of failures
    alone: float  # AP with only this kind undone
    share: float  # of the lost AP, with kinds undone one after another; with the rest they add up to 1


def costs(
    cases: Sequence[Case],
    failures: Sequence[Failure],
) -> tuple[float, dict[str, Cost], float]:
    """Compute AP, the cost of each kind, and the share of the lost AP that no kind explains.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation import cases, costs, diagnosis, pairing
        >>> track = tubelet.Track(id=7, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> numbered = cases.cases(pairing.pair([video], []))
        >>> ap, by_kind, rest = costs.costs(numbered, diagnosis.failures(numbered))
        >>> ap, round(by_kind["missed"].share, 3), round(rest, 3)
        (0.0, 1.0, 0.0)
    """
    base = precision(cases, failures, ())
    lost = 1 - base
    is_perfect = lost < 1e-12  # rounding leaves the official AP of a perfect result just below 1

    before = base
    by_kind: dict[str, Cost] = {}
    for n, kind in enumerate(KINDS, 1):
        after = precision(cases, failures, KINDS[:n])
        times = sum(failure.kind == kind for failure in failures)
        alone = precision(cases, failures, (kind,)) if times else base
        share = 0.0 if is_perfect else (after - before) / lost
        by_kind[kind] = Cost(times, alone, share)
        before = after

    rest = 0.0 if is_perfect else (1 - before) / lost
    return base, by_kind, rest


def precision(cases: Sequence[Case], failures: Sequence[Failure], mended: Collection[str]) -> float:
    """Compute AP as if all failures of the kinds `mended` had not happened.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation import cases, costs, diagnosis, pairing
        >>> track = tubelet.Track(id=7, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> numbered = cases.cases(pairing.pair([video], []))
        >>> round(costs.precision(numbered, diagnosis.failures(numbered), ["missed"]), 3)
        1.0
    """
    score = _mean_score(cases)
    by_case: dict[int, list[Failure]] = {}
    for failure in failures:
        by_case.setdefault(failure.video_index, []).append(failure)

    tables = []
    for n, case in enumerate(cases):
        all_failures = by_case.get(n, [])
        to_mend = [failure for failure in all_failures if failure.kind in mended]
        if to_mend:
            tables.append(_Mending(case, to_mend, all_failures, score).table())
        else:
            tables.append(case.table())
    return numbers(curves(match_tables(tables)))["AP"]


def _mean_score(cases: Sequence[Case]) -> float:
    """The mean score of correct predictions, which a missed object gets when it is added."""
    matches = match_tables([case.table() for case in cases])
    correct = matches.predictions.score[matches.matched[0, 0]]
    return float(correct.mean()) if correct.size else 1.0


class _Mending:
    """One video with some failures undone; spare tracks after the predicted ones serve objects without one."""

    def __init__(
        self,
        case: Case,
        failures: Sequence[Failure],
        all_failures: Sequence[Failure],
        score: float,
    ) -> None:
        self.case = case
        self.merged = [(p, f.frames) for f in all_failures if f.kind == MERGE for p in f.track_indices]

        num_objects = len(case.truth_labels)
        num_tracks = len(case.labels)
        num_spare = num_objects + sum(failure.kind == MISSED for failure in failures)
        self.shared = np.concatenate([case.shared, np.zeros((*case.shared.shape[:2], num_spare))], 2)
        self.area = np.concatenate([case.area, np.zeros((len(case.area), num_spare))], 1)
        self.labels = np.concatenate([case.labels, np.full(num_spare, -1)])
        self.scores = np.concatenate([case.scores, np.full(num_spare, score)])
        self.alive = np.arange(num_tracks + num_spare) < num_tracks
        self.main = dict(case.main_track)  # object -> its main track
        self.next_spare = num_tracks

        self._mend(failures)

    def _mend(self, failures: Sequence[Failure]) -> None:
        """Undo failures kind by kind, in an order in which later kinds build on mended identities."""
        of_kind: dict[str, list[Failure]] = {kind: [] for kind in KINDS}
        for failure in failures:
            of_kind[failure.kind].append(failure)

        for failure in of_kind[MERGE]:
            self._split(failure)

        changed = [failure for failure in failures if failure.kind in (SWITCH, CHANGE)]
        self._untangle({g for failure in changed for g in failure.truth_indices})
        for failure in of_kind[LOST]:
            self._fill_gap(failure)
        for failure in of_kind[CLASS]:
            self._relabel(failure)
        for failure in of_kind[LOOSE]:
            self._tighten(failure)
        for failure in of_kind[MISSED]:
            self._add_missed(failure)

        for failure in of_kind[DUPLICATE] + of_kind[FALSE]:
            self.alive[failure.track_indices[0]] = False

    def table(self) -> Table:
        """Return labels, scores and overlaps of the mended tracks."""
        tracks = np.flatnonzero(self.alive)
        overlap = overlap_of(self.shared[:, :, tracks], self.case.truth_area, self.area[:, tracks])
        crowd = np.zeros(len(self.case.truth_labels), bool)
        return Table(self.labels[tracks], self.scores[tracks], self.case.truth_labels, crowd, overlap)

    def _new_track(self, g: int) -> int:
        """Take a spare track for an object, with the object's class."""
        track = self.next_spare
        self.next_spare += 1
        self.alive[track] = True
        self.labels[track] = self.case.truth_labels[g]
        return track

    def _main_track(self, g: int, like: int) -> int:
        """The main track of an object; if it has none, a new one with the score of track `like`."""
        if g not in self.main:
            self.main[g] = self._new_track(g)
            self.scores[self.main[g]] = self.scores[like]
        return self.main[g]

    def _set_mask(self, track: int, frames: Sequence[int], g: int, pixels: np.ndarray) -> None:
        """Make the track in these frames a mask of so many pixels of one object."""
        frames = list(frames)
        self.shared[frames, :, track] = 0
        self.shared[frames, g, track] = pixels
        self.area[frames, track] = pixels

    def _split(self, failure: Failure) -> None:
        """Split the mask of several objects into a mask of each."""
        frames = list(failure.frames)
        p = failure.track_indices[0]
        main, *others = failure.truth_indices
        for g in others:
            self._set_mask(self._main_track(g, p), frames, g, self.case.shared[frames, g, p])
        self._set_mask(p, frames, main, self.case.shared[frames, main, p])

    def _untangle(self, objects: Collection[int]) -> None:
        """Give each object's frames to its main track."""
        shared = self.shared.copy()
        area = self.area.copy()
        emptied: list[tuple[int, int]] = []  # frame and track
        filled: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # track -> shared pixels [T, G], area [T]

        for g in objects:
            owner = self.case.owner[:, g]
            followed = np.flatnonzero(owner >= 0)
            if followed.size == 0:
                continue
            main = self._main_track(g, int(owner[followed[0]]))

            # in each frame, from the owner or from the main track: whichever fits the object better
            source = np.where((owner >= 0) & self._fits_better(g, owner, main), owner, main)
            new_shared = np.take_along_axis(shared, source[:, None, None], 2)[..., 0]
            new_area = np.take_along_axis(area, source[:, None], 1)[:, 0]

            follows_another = (owner < 0) & (self.case.owner == main).any(1)
            new_shared = np.where(follows_another[:, None], 0, new_shared)
            new_area = np.where(follows_another, 0, new_area)
            filled[main] = (new_shared, new_area)
            emptied += [(t, int(owner[t])) for t in followed.tolist() if owner[t] != main]

        for t, p in emptied:
            self.shared[t, :, p] = 0
            self.area[t, p] = 0
        for track, (new_shared, new_area) in filled.items():
            self.shared[:, :, track] = new_shared
            self.area[:, track] = new_area

        # a track whose every frame was given away is no track
        losers = [p for _, p in emptied]
        self.alive[losers] &= self.area[:, losers].any(0)

    def _fits_better(self, g: int, owner: np.ndarray, main: int) -> np.ndarray:
        """Frames in which the owner fits an object better than its main track does, bool [T]."""
        union = self.case.truth_area[:, g, None] + self.area - self.shared[:, g]
        overlap = self.shared[:, g] / np.maximum(union, 1)  # [T, P]
        of_owner = np.take_along_axis(overlap, np.maximum(owner, 0)[:, None], 1)[:, 0]
        return np.asarray(of_owner > overlap[:, main])

    def _fill_gap(self, failure: Failure) -> None:
        """Continue the track of a lost object with the object's true mask."""
        g = failure.truth_indices[0]
        frames = list(failure.frames)
        track = self._main_track(g, failure.track_indices[0])
        self._set_mask(track, frames, g, self.case.truth_area[frames, g])

    def _relabel(self, failure: Failure) -> None:
        self.labels[failure.track_indices[0]] = self.case.truth_labels[failure.truth_indices[0]]

    def _tighten(self, failure: Failure) -> None:
        """Replace a loose mask by the true one where the track is responsible."""
        g = failure.truth_indices[0]
        p = failure.track_indices[0]
        responsible = span(self.case, g, p)
        for track, frames in self.merged:
            responsible[list(frames)] &= track != p
        frames_of_track = np.flatnonzero(responsible).tolist()
        self._set_mask(p, frames_of_track, g, self.case.truth_area[frames_of_track, g])

    def _add_missed(self, failure: Failure) -> None:
        g = failure.truth_indices[0]
        self._set_mask(self._new_track(g), range(len(self.area)), g, self.case.truth_area[:, g])
