"""Find and name every failure of a result, with its video, frames and tracks.

Failures of identity, from Figure 1 of the IFR paper; they are found frame by frame, whatever the
class:
    identity switch   two objects exchange their tracks, or a track jumps from one object to another
    identity change   an object continues under a new track
    instance merge    one mask covers two objects
    instance lost     an object that a track followed is followed by none

Failures of whole tracks, from Figures 5 to 7 of the ObjProp-attention paper:
    misclassified     the right object under a wrong class
    duplicate         an object found a second time
    false object      a track of nothing
    loose mask        the right object, but the overlap is below the strictest threshold, 0.95
    missed            an object that no track explains

`evaluation.costs` computes what each kind costs.

Letters: T frames, G objects, P tracks; g numbers the objects of a video, p and q its tracks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tubelet.evaluation.cases import TAKES, Case, overlap_of, span
from tubelet.evaluation.partners import Matches, match_tables

SWITCH = "identity switch"
CHANGE = "identity change"
MERGE = "instance merge"
LOST = "instance lost"
CLASS = "misclassified"
DUPLICATE = "duplicate"
FALSE = "false object"
LOOSE = "loose mask"
MISSED = "missed"

IDENTITY = (SWITCH, CHANGE, MERGE, LOST)
KINDS = (*IDENTITY, CLASS, DUPLICATE, FALSE, LOOSE, MISSED)

FITS = 0.95  # overlap of tracks below which a mask is loose
ROUGH = 0.75  # overlap in a frame below which that frame is listed with a loose mask
TOUCHES = 0.1  # overlap of tracks below which a prediction has nothing to do with an object


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failure: its kind, and where it is.

    Frames count from 0; truths and tracks are ids in the files.

    Example:
        >>> from tubelet.evaluation.diagnosis import MISSED, Failure
        >>> failure = Failure(
        ...     kind=MISSED, video="v", frames=(0, 1), truths=(7,), tracks=(), score=0.0,
        ...     video_index=0, truth_indices=(2,), track_indices=(),
        ... )
        >>> f"{failure.kind}: object {failure.truths[0]} of video {failure.video}"
        'missed: object 7 of video v'
    """

    kind: str
    video: str
    frames: tuple[int, ...]
    truths: tuple[int, ...]
    tracks: tuple[int, ...]
    score: float  # of the first track; 0 without a track
    video_index: int  # index of the video
    truth_indices: tuple[int, ...]  # indices g of the objects
    track_indices: tuple[int, ...]  # indices p of the tracks


def failures(of: Sequence[Case]) -> list[Failure]:
    """List every failure of every video, in the order of the videos.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation import cases, diagnosis, pairing
        >>> track = tubelet.Track(id=7, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> (failure,) = diagnosis.failures(cases.cases(pairing.pair([video], [])))
        >>> failure.kind, failure.truths, failure.frames
        ('missed', (7,), (0, 1))
    """
    matches = match_tables([case.table() for case in of])
    named: list[Failure] = []
    for index, case in enumerate(of):
        truth_of_track = _matched_truths(matches, index)
        named += _Namer(case, index, truth_of_track).failures()
    return named


def _matched_truths(matches: Matches, video: int) -> dict[int, int]:
    """Track -> object at the lowest threshold, indices within the video; -1 for none."""
    rows = np.flatnonzero(matches.predictions.video == video)
    partner = matches.partner[0, 0, rows]
    truth = np.where(partner >= 0, np.append(matches.truths.track, -1)[partner], -1)
    return dict(zip(matches.predictions.track[rows].tolist(), truth.tolist(), strict=True))


class _Namer:
    """Names the failures of one video."""

    def __init__(self, case: Case, index: int, truth_of_track: dict[int, int]) -> None:
        self.case = case
        self.index = index  # of the video
        self.truth_of_track = truth_of_track
        self.track_of_truth = {g: p for p, g in truth_of_track.items() if g >= 0}
        self.overlap = overlap_of(case.shared, case.truth_area, case.area)
        self.present = case.truth_area > 0

        self.named: list[Failure] = []
        self.truths_entangled: set[int] = set()  # in failures of identity
        self.tracks_entangled: set[int] = set()
        # objects near which an unmatched prediction was named misclassified or loose
        self.truths_claimed: set[int] = set()

    def failures(self) -> list[Failure]:
        """Name failures of identity first: what they explain is not named again."""
        merged = self._add_merges()
        self._add_changes()
        self._add_losses(merged)

        for p, g in self.truth_of_track.items():
            if g < 0:
                self._add_unmatched(p)

        for g in range(len(self.case.truth_labels)):
            self._add_failures_of_object(g)
        return self.named

    def _add(
        self,
        kind: str,
        frames: Iterable[int],
        truths: tuple[int, ...],
        tracks: tuple[int, ...],
    ) -> None:
        case = self.case
        failure = Failure(
            kind=kind,
            video=case.pair.video,
            frames=tuple(int(t) for t in frames),
            truths=tuple(case.pair.truths[case.objects[g]].id for g in truths),
            tracks=tuple(case.pair.predictions[p].id for p in tracks),
            score=float(case.scores[tracks[0]]) if tracks else 0.0,
            video_index=self.index,
            truth_indices=truths,
            track_indices=tracks,
        )
        self.named.append(failure)
        if kind in IDENTITY:
            self.truths_entangled |= set(truths)
            self.tracks_entangled |= set(tracks)

    # failures of identity

    def _add_merges(self) -> np.ndarray:
        """Name merges; return where an object is inside another's mask, bool [T, G]."""
        case = self.case
        covered = (case.shared >= 0.5 * case.truth_area[:, :, None]) & self.present[:, :, None]  # [T, G, P]
        is_object = (case.shared.sum(1) >= 0.5 * case.area) & (case.area > 0)  # not a mask of everything

        follows = np.zeros_like(covered)
        t, g = np.nonzero(case.owner >= 0)
        follows[t, g, case.owner[t, g]] = True
        followed_by_another = follows.any(2, keepdims=True) & ~follows
        inside = covered & ~followed_by_another
        covers_several = is_object & (inside.sum(1) > 1) & case.confident  # [T, P]

        # track and its objects -> frames
        frames_of: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for frame, p in np.argwhere(covers_several).tolist():
            objects = tuple(np.flatnonzero(inside[frame, :, p]).tolist())
            main = next((g for g in objects if follows[frame, g, p]), objects[0])
            others = [g for g in objects if g != main]
            frames_of.setdefault((p, (main, *others)), []).append(frame)

        merged = np.zeros(self.present.shape, bool)
        for (p, truths), frames in frames_of.items():
            merged[np.ix_(frames, truths[1:])] = True
            self._add(MERGE, frames, truths, (p,))
        return merged

    def _add_changes(self) -> None:
        """Name switches and changes: objects that change their track, and tracks that jump."""
        switched: set[tuple[int, frozenset[int]]] = set()  # frame and the two objects
        for g, owner in enumerate(self.case.owner.T):
            followed = np.flatnonzero(owner >= 0).tolist()
            for before, after in pairwise(followed):
                p = int(owner[before])
                q = int(owner[after])
                if p == q:
                    continue

                other = self._last_object(q, after)
                if other is None or other == g:
                    self._add(CHANGE, (after,), (g,), (p, q))
                    continue

                switch = (after, frozenset((g, other)))
                if switch not in switched:
                    switched.add(switch)
                    self._add(SWITCH, (after,), (g, other), (p, q))

        for g, p, frame in self._jumps():
            other = int(np.flatnonzero(self.case.owner[frame] == p)[0])
            objects = frozenset((g, other))
            if not any((t, objects) in switched for t in range(self.case.pair.length)):
                self._add(SWITCH, (frame,), (g, other), (p,))

    def _last_object(self, p: int, frame: int) -> int | None:
        """The object that a track followed last before a frame."""
        t, g = np.nonzero(self.case.owner[:frame] == p)
        return int(g[-1]) if len(t) else None

    def _jumps(self) -> list[tuple[int, int, int]]:
        """Tracks that leave an object for one not followed before: (object left, track, frame)."""
        jumps = []
        for g, owner in enumerate(self.case.owner.T):
            followed = np.flatnonzero(owner >= 0)
            if followed.size == 0:
                continue
            first = int(followed[0])
            p = int(owner[first])
            before = self._last_object(p, first)
            if before is not None and before != g:
                jumps.append((before, p, first))
        return jumps

    def _add_losses(self, merged: np.ndarray) -> None:
        """Name each stretch of frames in which a once followed object is present but not followed."""
        for g, owner in enumerate(self.case.owner.T):
            followed = np.flatnonzero(owner >= 0)
            if followed.size == 0:
                continue
            lost = self.present[:, g] & (owner < 0) & ~merged[:, g]
            lost[: followed[0]] = False

            visible = np.flatnonzero(self.present[:, g])  # absences of the object do not end a stretch
            edges = np.flatnonzero(np.diff(lost[visible].astype(np.int8), prepend=0, append=0))
            for start, stop in edges.reshape(-1, 2).tolist():
                frames = visible[start:stop]
                last_followed = followed[followed < frames[0]][-1]
                self._add(LOST, frames, (g,), (int(owner[last_followed]),))

    # failures of whole tracks

    def _add_unmatched(self, p: int) -> None:
        """Name what is wrong with a prediction that is matched to no truth."""
        if p in self.tracks_entangled:
            return
        case = self.case
        frames = np.flatnonzero(case.area[:, p] > 0)
        same_class = case.truth_labels == case.labels[p]
        same = np.where(same_class, self.overlap[p], -1.0)
        other = np.where(same_class, -1.0, self.overlap[p])
        best_same = int(same.argmax()) if len(same) else -1
        best_other = int(other.argmax()) if len(other) else -1

        if best_same >= 0 and same[best_same] >= TAKES:
            self._add(DUPLICATE, frames, (best_same,), (p,))
        elif best_other >= 0 and other[best_other] >= TAKES:
            self._claim(CLASS, frames, best_other, p)
        elif best_same >= 0 and same[best_same] >= TOUCHES:
            self._claim(LOOSE, frames, best_same, p)
        else:
            self._add(FALSE, frames, (), (p,))

    def _claim(self, kind: str, frames: np.ndarray, g: int, p: int) -> None:
        """Name the first prediction near an unmatched truth `kind`, those after it duplicates."""
        taken = g in self.track_of_truth or g in self.truths_claimed
        self._add(DUPLICATE if taken else kind, frames, (g,), (p,))
        self.truths_claimed.add(g)

    def _add_failures_of_object(self, g: int) -> None:
        """Name what is wrong with an object's track, beyond identity; or that it has none."""
        case = self.case
        main = case.main_track.get(g) if g in self.truths_entangled else None
        p = self.track_of_truth.get(g, main)
        if p is None:
            if g not in self.truths_claimed | self.truths_entangled:
                self._add(MISSED, np.flatnonzero(self.present[:, g]), (g,), ())
            return

        responsible = span(case, g, p)
        for failure in self.named:
            if failure.kind == MERGE and p in failure.track_indices:
                responsible[list(failure.frames)] = False

        if case.labels[p] != case.truth_labels[g]:
            self._add(CLASS, np.flatnonzero(responsible & (case.area[:, p] > 0)), (g,), (p,))

        shared = case.shared[responsible, g, p].sum()
        union = case.truth_area[responsible, g].sum() + case.area[responsible, p].sum() - shared
        if shared < FITS * union:
            self._add(LOOSE, self._rough_frames(g, p, responsible), (g,), (p,))

    def _rough_frames(self, g: int, p: int, responsible: np.ndarray) -> np.ndarray:
        """Frames of low overlap; all frames of the two where the overlap is low only in sum."""
        either = (self.case.area[:, p] > 0) | self.present[:, g]
        either = either & responsible
        rough = np.flatnonzero(either & (self.case.frame_overlap[:, g, p] < ROUGH))
        return rough if rough.size else np.flatnonzero(either)
