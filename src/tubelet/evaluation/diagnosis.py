"""Why a result is wrong: every failure named, with its video, frames and tracks.

Identity, from Figure 1 of the IFR paper (frame by frame, whatever the class):
    identity switch   two objects exchange their tracks, or a track jumps from one object to another
    identity change   an object goes on under a new track
    instance merge    one mask covers two objects
    instance lost     an object that was followed is followed no more
Whole tracks, from Figures 5 to 7 of the ObjProp-attention paper:
    misclassified     the right object under a wrong class
    duplicate         an object found a second time
    false object      a track of nothing
    loose mask        the right object, but too roughly for the strictest threshold, 0.95
    missed            an object that no track explains

`evaluation.oracles` says what each kind costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tubelet.evaluation.cases import TAKES, Case, overlap_of, span
from tubelet.evaluation.partners import Matches, match_tables

SWITCH, CHANGE, MERGE, LOST = "identity switch", "identity change", "instance merge", "instance lost"
CLASS, DUPLICATE, FALSE, LOOSE, MISSED = "misclassified", "duplicate", "false object", "loose mask", "missed"
KINDS = (SWITCH, CHANGE, MERGE, LOST, CLASS, DUPLICATE, FALSE, LOOSE, MISSED)
IDENTITY = (SWITCH, CHANGE, MERGE, LOST)

FITS = 0.95  # overlap of tracks below which a mask is loose
ROUGH = 0.75  # overlap in a frame below which the frame is shown as one where it is
TOUCHES = 0.1  # overlap of tracks below which a prediction has nothing to do with an object


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One thing that went wrong. Frames count from 0; truths and tracks are ids in the files."""

    kind: str
    video: str
    frames: tuple[int, ...]
    truths: tuple[int, ...]
    tracks: tuple[int, ...]
    score: float  # of the first track; 0 where there is none
    place: int  # position of the video
    truth_places: tuple[int, ...]  # positions within the video
    track_places: tuple[int, ...]


def failures(of: Sequence[Case]) -> list[Failure]:
    """Every failure of every video, in the order of the videos."""
    matches = match_tables([case.table() for case in of])
    named: list[Failure] = []
    for place, case in enumerate(of):
        named += _Namer(case, place, _matched(matches, place)).failures()
    return named


def _matched(matches: Matches, place: int) -> dict[int, int]:
    """Prediction -> truth at the lowest threshold, positions within the video; -1 where it has none."""
    here = np.flatnonzero(matches.guesses.video == place)
    partner = matches.partner[0, 0, here]
    truth = np.where(partner >= 0, np.append(matches.truths.track, -1)[partner], -1)
    return dict(zip(matches.guesses.track[here].tolist(), truth.tolist(), strict=True))


class _Namer:
    """Names the failures of one video."""

    def __init__(self, case: Case, place: int, matched: dict[int, int]) -> None:
        self.case, self.place = case, place
        self.partner = matched
        self.found = {g: p for p, g in matched.items() if g >= 0}
        self.overlap = overlap_of(case.shared, case.truth_area, case.area)
        self.present = case.truth_area > 0
        self.named: list[Failure] = []
        self.truths_entangled: set[int] = set()  # in failures of identity
        self.tracks_entangled: set[int] = set()
        self.truths_claimed: set[int] = set()  # by a prediction under another class or of a loose mask

    def failures(self) -> list[Failure]:
        """Identities first: what they explain is not named again."""
        merged = self._merges()
        self._changes()
        self._losses(merged)
        for p, g in self.partner.items():
            if g < 0:
                self._name_unmatched(p)
        for g in range(len(self.case.truth_labels)):
            self._name_object(g)
        return self.named

    def _name_object(self, g: int) -> None:
        """What is wrong with the track of an object, beyond identity; or that it has none."""
        p = self.found.get(g, self.case.held.get(g) if g in self.truths_entangled else None)
        if p is None:
            if g not in self.truths_claimed | self.truths_entangled:
                self._add(MISSED, np.flatnonzero(self.present[:, g]), (g,), ())
            return
        held = span(self.case, g, p)
        for failure in self.named:
            if failure.kind == MERGE and p in failure.track_places:
                held[list(failure.frames)] = False
        if self.case.labels[p] != self.case.truth_labels[g]:
            self._add(CLASS, np.flatnonzero(held & (self.case.area[:, p] > 0)), (g,), (p,))
        shared = self.case.shared[held, g, p].sum()
        union = self.case.truth_area[held, g].sum() + self.case.area[held, p].sum() - shared
        if shared < FITS * union:
            self._add(LOOSE, self._rough(g, p, held), (g,), (p,))

    def _add(self, kind: str, frames: Iterable[int], truths: tuple[int, ...], tracks: tuple[int, ...]) -> None:
        one = self.case.pair
        self.named.append(
            Failure(
                kind=kind,
                video=one.video,
                frames=tuple(int(t) for t in frames),
                truths=tuple(one.truths[self.case.real[g]].id for g in truths),
                tracks=tuple(one.guesses[p].id for p in tracks),
                score=float(self.case.scores[tracks[0]]) if tracks else 0.0,
                place=self.place,
                truth_places=truths,
                track_places=tracks,
            )
        )
        if kind in IDENTITY:
            self.truths_entangled |= set(truths)
            self.tracks_entangled |= set(tracks)

    def _merges(self) -> np.ndarray:
        """Frames in which an object lies in another's mask, bool [T, G]."""
        case = self.case
        covered = (case.shared >= 0.5 * case.truth_area[:, :, None]) & self.present[:, :, None]
        is_object = (case.shared.sum(1) >= 0.5 * case.area) & (case.area > 0)  # not a mask of everything
        owned = np.zeros_like(covered)
        t, g = np.nonzero(case.owner >= 0)
        owned[t, g, case.owner[t, g]] = True
        alone = covered & ~(owned.any(2, keepdims=True) & ~owned)  # nobody else holds the object
        together: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for frame, p in np.argwhere(is_object & (alone.sum(1) > 1) & case.confident).tolist():
            inside = tuple(np.flatnonzero(alone[frame, :, p]).tolist())
            main = next((g for g in inside if owned[frame, g, p]), inside[0])
            together.setdefault((p, (main, *(g for g in inside if g != main))), []).append(frame)
        merged = np.zeros(self.present.shape, bool)
        for (p, truths), frames in together.items():
            merged[np.ix_(frames, truths[1:])] = True
            self._add(MERGE, frames, truths, (p,))
        return merged

    def _changes(self) -> None:
        """Objects that go on under another track: switched where the track held another object before."""
        switched: set[tuple[int, frozenset[int]]] = set()
        for g, column in enumerate(self.case.owner.T):
            held = np.flatnonzero(column >= 0).tolist()
            for before, after in pairwise(held):
                p, q = int(column[before]), int(column[after])
                if p == q:
                    continue
                other = self._held_before(q, after)
                if other is None or other == g:
                    self._add(CHANGE, (after,), (g,), (p, q))
                elif (after, frozenset((g, other))) not in switched:
                    switched.add((after, frozenset((g, other))))
                    self._add(SWITCH, (after,), (g, other), (p, q))
        for g, p, frame in self._jumps():
            other = int(np.flatnonzero(self.case.owner[frame] == p)[0])
            if not any((t, frozenset((g, other))) in switched for t in range(self.case.pair.length)):
                self._add(SWITCH, (frame,), (g, other), (p,))

    def _held_before(self, p: int, frame: int) -> int | None:
        """The object that a track held last before a frame."""
        t, g = np.nonzero(self.case.owner[:frame] == p)
        return int(g[-1]) if len(t) else None

    def _jumps(self) -> list[tuple[int, int, int]]:
        """Tracks that leave an object for one that nobody held before: object left, track, frame."""
        jumps = []
        for g, column in enumerate(self.case.owner.T):
            held = np.flatnonzero(column >= 0)
            if held.size == 0:
                continue
            p = int(column[held[0]])
            before = self._held_before(p, int(held[0]))
            if before is not None and before != g:
                jumps.append((before, p, int(held[0])))
        return jumps

    def _losses(self, merged: np.ndarray) -> None:
        """Stretches in which an object that was held is there and nobody holds it."""
        for g, column in enumerate(self.case.owner.T):
            held = np.flatnonzero(column >= 0)
            if held.size == 0:
                continue
            lost = self.present[:, g] & (column < 0) & ~merged[:, g]
            lost[: held[0]] = False
            visible = np.flatnonzero(self.present[:, g])  # absences of the object do not end a stretch
            edges = np.flatnonzero(np.diff(lost[visible].astype(np.int8), prepend=0, append=0))
            for begin, end in edges.reshape(-1, 2).tolist():
                frames = visible[begin:end]
                last = int(column[held[held < frames[0]][-1]])
                self._add(LOST, frames, (g,), (last,))

    def _name_unmatched(self, p: int) -> None:
        """A prediction that no truth of its class was matched to."""
        case = self.case
        frames = np.flatnonzero(case.area[:, p] > 0)
        same = np.where(case.truth_labels == case.labels[p], self.overlap[p], -1.0)
        other = np.where(case.truth_labels == case.labels[p], -1.0, self.overlap[p])
        best, stranger = (int(x.argmax()) if len(x) else -1 for x in (same, other))
        if p in self.tracks_entangled:
            return
        if best >= 0 and same[best] >= TAKES:
            self._add(DUPLICATE, frames, (best,), (p,))
        elif stranger >= 0 and other[stranger] >= TAKES:
            self._claim(CLASS, frames, stranger, p)
        elif best >= 0 and same[best] >= TOUCHES:
            self._claim(LOOSE, frames, best, p)
        else:
            self._add(FALSE, frames, (), (p,))

    def _claim(self, kind: str, frames: np.ndarray, g: int, p: int) -> None:
        """The first to come near a truth that is not found has a failure of its own, the others are duplicates."""
        taken = g in self.found or g in self.truths_claimed
        self._add(DUPLICATE if taken else kind, frames, (g,), (p,))
        self.truths_claimed.add(g)

    def _rough(self, g: int, p: int, held: np.ndarray | None = None) -> np.ndarray:
        """Frames in which a match is rough; all of the object's, where it is loose only in sum."""
        either = (self.case.area[:, p] > 0) | self.present[:, g]
        either = either if held is None else either & held
        rough = np.flatnonzero(either & (self.case.frame_overlap[:, g, p] < ROUGH))
        return rough if rough.size else np.flatnonzero(either)
