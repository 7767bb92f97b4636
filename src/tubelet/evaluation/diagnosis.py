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
from functools import partial
from itertools import pairwise

import numpy as np

from tubelet.core.tubes import AREA, Tube, frame_intersections
from tubelet.evaluation.pairing import Pair
from tubelet.evaluation.parallel import each
from tubelet.evaluation.partners import Matches, Table, match_tables

SWITCH, CHANGE, MERGE, LOST = "identity switch", "identity change", "instance merge", "instance lost"
CLASS, DUPLICATE, FALSE, LOOSE, MISSED = "misclassified", "duplicate", "false object", "loose mask", "missed"
KINDS = (SWITCH, CHANGE, MERGE, LOST, CLASS, DUPLICATE, FALSE, LOOSE, MISSED)

TAKES = 0.5  # overlap in a frame with which a track takes an object up
KEEPS = 0.25  # overlap with which it still holds it
FITS = 0.95  # overlap of tracks below which a mask is loose
ROUGH = 0.75  # overlap in a frame below which the frame is shown as one where it is
TOUCHES = 0.1  # overlap of tracks below which a prediction has nothing to do with an object
CONFIDENT = 0.3  # score from which on tracks take part in identities


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One video in numbers: T frames, G truths (without crowds), P predictions."""

    pair: Pair
    real: tuple[int, ...]  # positions of the truths that are no crowds
    shared: np.ndarray  # float [T, G, P], pixels
    truth_area: np.ndarray  # float [T, G]
    area: np.ndarray  # float [T, P]
    truth_labels: np.ndarray  # int [G]
    labels: np.ndarray  # int [P]
    scores: np.ndarray  # float [P]
    confident: np.ndarray  # bool [P], those that take part in identities
    owner: np.ndarray  # int [T, G], the track that holds each object in each frame, -1 for none
    held: dict[int, int]  # the track that holds an object longest, for objects that are held; one object per track

    @property
    def frame_overlap(self) -> np.ndarray:
        """Intersection over union in each frame, float [T, G, P]."""
        union = self.truth_area[:, :, None] + self.area[:, None] - self.shared
        return np.asarray(self.shared / np.maximum(union, 1))

    def table(self) -> Table:
        """What the AP of this video is made of."""
        overlap = overlap_of(self.shared, self.truth_area, self.area)
        crowd = np.zeros(len(self.truth_labels), bool)
        return Table(self.labels, self.scores, self.truth_labels, crowd, overlap)


def overlap_of(shared: np.ndarray, truth_area: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Overlap of whole tracks, float [P, G]."""
    total = shared.sum(0).T
    union = area.sum(0)[:, None] + truth_area.sum(0)[None] - total
    return np.asarray(np.divide(total, union, out=np.zeros_like(total), where=union > 0))


def cases(pairs: Sequence[Pair], *, confident: float = CONFIDENT, jobs: int = 1) -> list[Case]:
    """Each video in numbers."""
    return each(partial(_case, confident=confident), pairs, jobs)


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


def _case(one: Pair, confident: float) -> Case:
    real = tuple(n for n, track in enumerate(one.truths) if not track.ignore)
    truths = [one.truth_tubes[n] for n in real]
    shape = (one.length, len(truths), len(one.guess_tubes))
    shared = np.zeros(shape)
    if truths and one.guess_tubes:
        shared[:] = frame_intersections(truths, one.guess_tubes)
    truth_area, area = _areas(truths, one.length), _areas(one.guess_tubes, one.length)
    scores = np.array([track.score for track in one.guesses], np.float64)
    overlap = shared / np.maximum(truth_area[:, :, None] + area[:, None] - shared, 1)
    fit = overlap_of(shared, truth_area, area).T
    owner = _owners(overlap, fit, truth_area > 0, scores >= confident)
    return Case(
        pair=one,
        real=real,
        shared=shared,
        truth_area=truth_area,
        area=area,
        truth_labels=np.array([one.truths[n].label for n in real], np.int64),
        labels=np.array([track.label for track in one.guesses], np.int64),
        scores=scores,
        confident=scores >= confident,
        owner=owner,
        held=_longest(owner),
    )


def _areas(tubes: Sequence[Tube], length: int) -> np.ndarray:
    return np.stack([t.facts[:, AREA] for t in tubes], 1).astype(float) if tubes else np.zeros((length, 0))


def _owners(overlap: np.ndarray, fit: np.ndarray, present: np.ndarray, confident: np.ndarray) -> np.ndarray:
    """Follow each object, [T, G]: a track keeps it while it holds on, else a free one takes it up.

    Of several the one that fits best as a whole, so that a passing duplicate takes nothing over; `fit` is [G, P].
    """
    owner = np.full(present.shape, -1, np.int64)
    last: dict[int, int] = {}
    for t, frame in enumerate(overlap):
        taken: set[int] = set()
        for g, p in last.items():
            if present[t, g] and frame[g, p] >= KEEPS and p not in taken:
                owner[t, g] = p
                taken.add(p)
        g_free, p_free = np.nonzero((frame >= TAKES) & confident & (owner[t] < 0)[:, None])
        for n in np.argsort(-fit[g_free, p_free], kind="stable").tolist():
            g, p = int(g_free[n]), int(p_free[n])
            if owner[t, g] < 0 and p not in taken:
                owner[t, g] = last[g] = p
                taken.add(p)
    return owner


def _longest(owner: np.ndarray) -> dict[int, int]:
    """For each object the track that holds it longest, each track given to one object."""
    counts = {
        (g, int(p)): int((column == p).sum())
        for g, column in enumerate(owner.T)
        for p in np.unique(column[column >= 0])
    }
    held: dict[int, int] = {}
    for (g, p), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if g not in held and p not in held.values():
            held[g] = p
    return held


class _Namer:
    """Names the failures of one video."""

    def __init__(self, case: Case, place: int, matched: dict[int, int]) -> None:
        self.case, self.place = case, place
        self.partner = matched
        self.found = {g: p for p, g in matched.items() if g >= 0}
        self.overlap = overlap_of(case.shared, case.truth_area, case.area)
        self.present = case.truth_area > 0
        self.named: list[Failure] = []
        self.truths_explained: set[int] = set()
        self.truths_claimed: set[int] = set()  # by a prediction under another class or of a loose mask
        self.tracks_explained: set[int] = set()

    def failures(self) -> list[Failure]:
        """Identities first: what they explain is not named again."""
        merged = self._merges()
        self._changes()
        self._losses(merged)
        for p, g in self.partner.items():
            if g < 0:
                self._name_unmatched(p)
            elif self.overlap[p, g] < FITS and g not in self.truths_explained:
                self._add(LOOSE, self._rough(g, p), (g,), (p,))
        for g in range(len(self.case.truth_labels)):
            if g not in self.found and g not in self.truths_explained:
                self._add(MISSED, np.flatnonzero(self.present[:, g]), (g,), ())
        return self.named

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
        if kind not in (DUPLICATE, FALSE):
            self.truths_explained |= set(truths)
        if kind in (SWITCH, CHANGE, MERGE, LOST):
            self.tracks_explained |= set(tracks)

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
        if p in self.tracks_explained:
            return
        if best >= 0 and same[best] >= TAKES:
            self._add(DUPLICATE, frames, (best,), (p,))
        elif stranger >= 0 and other[stranger] >= TAKES:
            kind = DUPLICATE if stranger in self.found else CLASS
            self._add(kind, frames, (stranger,), (p,))
        elif best >= 0 and same[best] >= TOUCHES:
            self._add(
                DUPLICATE if best in self.found or best in self.truths_explained else LOOSE, frames, (best,), (p,)
            )
        else:
            self._add(FALSE, frames, (), (p,))

    def _claim(self, kind: str, frames: np.ndarray, g: int, p: int) -> None:
        """The first to come near a truth that is not found has a failure of its own, the others are duplicates."""
        taken = g in self.found or g in self.truths_claimed
        self._add(DUPLICATE if taken else kind, frames, (g,), (p,))
        self.truths_claimed.add(g)

    def _rough(self, g: int, p: int) -> np.ndarray:
        """Frames in which a match is rough; all of the object's, where it is loose only in sum."""
        overlap = self.case.frame_overlap[:, g, p]
        either = (self.case.area[:, p] > 0) | self.present[:, g]
        rough = np.flatnonzero(either & (overlap < ROUGH))
        return rough if rough.size else np.flatnonzero(either)
