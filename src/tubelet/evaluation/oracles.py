"""Replace one stage of a prediction by truth and compute AP again: the most that better work there could give.

An oracle sees predicted and true tracks alone, so it is the same for every system and for any result
file. Everything rests on two statements, which hold for the prediction as it is, before any oracle:

- A mask is *on* the object that it overlaps most in its frame, from an IoU of 0.1 on.
- Objects and tracks are paired one to one so that the sum of their overlaps over the whole video is
  greatest, from an IoU of 0.1 on; the same class counts double. This gives an object its *main track*.
  Each other track is *of* the object that it overlaps most, and a duplicate, or of none.

What each oracle does is said in `ORACLES`; all of them together give AP 100. Source of the idea: TIDE
(Bolya et al., ECCV 2020), whose bound for "touches no object" is 0.1 as well.

Letters: T frames, G objects (truths without crowds), P tracks; g numbers the objects, p the tracks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from tubelet.core import masks
from tubelet.core.masks import RLE
from tubelet.core.masks.packed import pack
from tubelet.core.records import Prediction, Track, Video
from tubelet.evaluation.cases import Case, cases
from tubelet.evaluation.pairing import Pair, pair
from tubelet.evaluation.parallel import each
from tubelet.evaluation.partners import Split, match
from tubelet.evaluation.ytvis import curves, numbers

TOUCHES = 0.1  # IoU from which a track is of an object, and a mask on it

CLASSES = "true classes"
IDENTITIES = "true identities"
BOXES = "true boxes"
MASKS = "true masks"
MISSED = "nothing missed"
DUPLICATES = "no duplicates"
FALSE = "nothing false"
SCORES = "true scores"

# what each one does; several are applied in this order
ORACLES: dict[str, str] = {
    CLASSES: "The track that overlaps an object most takes its class; its other tracks of wrong classes are left out.",
    IDENTITIES: "In a frame where an object's main track is not on it and another mask is, they exchange masks.",
    BOXES: "A mask on the object of its track is stretched to the object's true box, where that fits better.",
    MASKS: "A mask on the object of its track becomes the object's true mask.",
    MISSED: "Where no mask is on an object, its main track takes the true one; an object without a track gets one.",
    DUPLICATES: "Of an object's tracks only the main one stays, with the highest score of those of its class.",
    FALSE: "Tracks of no object are left out, and a track's masks in frames where its object is not there.",
    SCORES: "A track's score is its overlap with the objects of its class.",
}


class Ceiling(NamedTuple):
    """AP with an oracle.

    Example:
        >>> from tubelet.evaluation.oracles import Ceiling
        >>> ceiling = Ceiling(alone=0.4, together=0.75)
        >>> f"{ceiling.alone} by itself, {ceiling.together} with those before it"
        '0.4 by itself, 0.75 with those before it'
    """

    alone: float
    together: float  # with this oracle and all before it


def ceilings(cases: Sequence[Case], *, jobs: int = 1) -> dict[str, float]:
    """Compute AP with each oracle by itself, by its name in `ORACLES`; -1 if there is no truth.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation.cases import cases
        >>> from tubelet.evaluation.oracles import ceilings
        >>> from tubelet.evaluation.pairing import pair
        >>> rles = encode(np.ones((2, 4, 4)))
        >>> dog = tubelet.Track(id=1, label=0, score=1.0, rles=rles)
        >>> cat = tubelet.Track(id=1, label=1, score=0.5, rles=rles)
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(dog,))
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=(cat,))
        >>> ap = ceilings(cases(pair([video], [prediction])))
        >>> round(ap["true classes"], 3), ap["true masks"]
        (1.0, 0.0)
    """
    return {name: precision(cases, [name], jobs=jobs) for name in ORACLES}


def ledger(cases: Sequence[Case], *, jobs: int = 1) -> tuple[float, dict[str, Ceiling]]:
    """Compute AP as it is, and with each oracle: by itself, and with all before it, which ends at 1.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation.cases import cases
        >>> from tubelet.evaluation.oracles import ledger
        >>> from tubelet.evaluation.pairing import pair
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> ap, by_oracle = ledger(cases(pair([video], [])))
        >>> ap, round(by_oracle["nothing missed"].together, 3)
        (0.0, 1.0)
    """
    names = list(ORACLES)
    alone = ceilings(cases, jobs=jobs)
    together = {name: precision(cases, names[: n + 1], jobs=jobs) for n, name in enumerate(names)}
    return precision(cases), {name: Ceiling(alone[name], together[name]) for name in names}


def precision(cases: Sequence[Case], oracles: Collection[str] = (), *, jobs: int = 1) -> float:
    """Compute AP with the oracles of these names; -1 if there is no truth.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation.cases import cases
        >>> from tubelet.evaluation.oracles import precision
        >>> from tubelet.evaluation.pairing import pair
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> round(precision(cases(pair([video], [])), ["nothing missed"]), 3)
        1.0
    """
    pairs = each(partial(_pair_with_truth, oracles=frozenset(oracles)), cases, jobs)
    return numbers(curves(match(pairs, [Split("all")], jobs=jobs)))["AP"]


def with_truth(prediction: Prediction, video: Video, oracles: Collection[str]) -> Prediction:
    """Replace stages of a prediction by the truth of its video.

    Args:
        prediction: The tracks of a system.
        video: The same video with its true tracks.
        oracles: Names out of `ORACLES`.

    Raises:
        InputError: if the prediction is of another video, size or length, or if the video has no truth.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation.oracles import with_truth
        >>> rles = encode(np.ones((2, 4, 4)))
        >>> dog = tubelet.Track(id=1, label=0, score=1.0, rles=rles)
        >>> cat = tubelet.Track(id=7, label=1, score=0.5, rles=rles)
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(dog,))
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=(cat,))
        >>> with_truth(prediction, video, ["true classes"]).tracks
        (Track(id=7, label=0, score=0.5, frames=2 of 2),)
    """
    (case,) = cases(pair([video], [prediction]))
    return replace(prediction, tracks=tuple(_tracks(case, oracles)))


def _pair_with_truth(case: Case, oracles: Collection[str]) -> Pair:
    if not oracles:
        return case.pair
    tracks = tuple(_tracks(case, oracles))
    tubes = tuple(pack([track.rles for track in tracks], case.pair.size))
    return replace(case.pair, predictions=tracks, guess_tubes=tubes)


def _tracks(case: Case, oracles: Collection[str]) -> list[Track]:
    scene = _Scene(case)
    stages = {
        CLASSES: scene.correct_classes,
        IDENTITIES: scene.correct_identities,
        BOXES: scene.fit_boxes,
        MASKS: scene.correct_masks,
        MISSED: scene.add_missed,
        DUPLICATES: scene.drop_duplicates,
        FALSE: scene.drop_false,
        SCORES: scene.correct_scores,
    }
    for name in ORACLES:
        if name in oracles:
            stages[name]()
    return scene.tracks()


class _Scene:
    """The tracks of one video, whose stages are replaced one after another."""

    def __init__(self, case: Case) -> None:
        predictions = case.pair.predictions
        self.case = case
        self.ids = [track.id for track in predictions]
        self.labels = [track.label for track in predictions]
        self.scores = [track.score for track in predictions]
        self.rles: list[list[RLE | None]] = [list(tube) for tube in case.pair.guess_tubes]
        self.alive = [True] * len(predictions)

        self.truths = [case.pair.truths[n] for n in case.objects]
        self.present = case.truth_area > 0  # [T, G]
        self.overlap = case.table().overlap  # of whole tracks, [P, G]
        self.frame_overlap = case.frame_overlap  # [T, G, P]
        self.on = _most(np.moveaxis(self.frame_overlap, 1, 2))  # object that each mask is on, [T, P]; -1 for none
        self.main = self._main_tracks()  # object -> its main track
        self.object_of: list[int] = _most(self.overlap).tolist()  # of each track, -1 for none
        for g, p in self.main.items():
            self.object_of[p] = g

    def _main_tracks(self) -> dict[int, int]:
        same_class = self.case.labels[:, None] == self.case.truth_labels
        worth = np.where(self.overlap >= TOUCHES, self.overlap * (1 + same_class), 0)
        tracks, objects = linear_sum_assignment(worth, maximize=True)
        pairs = zip(objects.tolist(), tracks.tolist(), strict=True)
        return {g: p for g, p in pairs if worth[p, g] > 0}

    def tracks(self) -> list[Track]:
        """The tracks that are left and have a mask."""
        return [
            Track(id=self.ids[p], label=self.labels[p], score=self.scores[p], rles=tuple(self.rles[p]))
            for p, alive in enumerate(self.alive)
            if alive and any(rle is not None for rle in self.rles[p])
        ]

    # the oracles

    def correct_classes(self) -> None:
        for g, truth in enumerate(self.truths):
            tracks = [p for p, number in enumerate(self.object_of) if number == g]
            wrong = [p for p in tracks if self.labels[p] != truth.label]
            if not wrong:
                continue
            best = max(tracks, key=lambda p: (self.overlap[p, g], p == self.main[g]))
            self.labels[best] = truth.label
            self.scores[best] = max(self.scores[p] for p in [best, *wrong])
            for p in wrong:
                if p != best:
                    self._leave_out(p)

    def _leave_out(self, p: int) -> None:
        self.alive[p] = False
        self.on[:, p] = -1

    def correct_identities(self) -> None:
        for g, main in self.main.items():
            for t in np.flatnonzero((self.on == g).any(1) & (self.on[:, main] != g)).tolist():
                others = np.flatnonzero(self.on[t] == g)
                best = others[self.frame_overlap[t, g, others].argmax()]
                self._exchange(t, main, int(best))

    def _exchange(self, t: int, first: int, second: int) -> None:
        """Exchange the masks of two tracks in a frame."""
        both = [first, second]
        exchanged = [second, first]
        self.rles[first][t], self.rles[second][t] = self.rles[second][t], self.rles[first][t]
        self.on[t, both] = self.on[t, exchanged]
        self.frame_overlap[t][:, both] = self.frame_overlap[t][:, exchanged]

    def fit_boxes(self) -> None:
        for p, g, t in self._masks_on_their_object():
            self.rles[p][t] = _fit(self.rles[p][t], self._truth(g, t))

    def correct_masks(self) -> None:
        for p, g, t in self._masks_on_their_object():
            self.rles[p][t] = self._truth(g, t)

    def _masks_on_their_object(self) -> list[tuple[int, int, int]]:
        """Track, object and frame of each mask that is on the object of its track."""
        found = []
        for p, g in enumerate(self.object_of):
            if g >= 0:
                found += [(p, g, t) for t in np.flatnonzero(self.on[:, p] == g).tolist()]
        return found

    def add_missed(self) -> None:
        for g, truth in enumerate(self.truths):
            if g not in self.main:
                self._add_track(g)
                continue
            unseen = self.present[:, g] & ~(self.on == g).any(1)
            for t in np.flatnonzero(unseen).tolist():
                self.rles[self.main[g]][t] = truth.rles[t]

    def _add_track(self, g: int) -> None:
        """Add an object as its truth has it, with a score of 1."""
        self.main[g] = len(self.rles)
        self.ids.append(max(self.ids, default=0) + 1)
        self.labels.append(self.truths[g].label)
        self.scores.append(1.0)
        self.rles.append(list(self.truths[g].rles))
        self.object_of.append(g)
        self.alive.append(True)

    def drop_duplicates(self) -> None:
        for p, g in enumerate(self.object_of):
            if g < 0 or self.main[g] == p:
                continue
            self._leave_out(p)
            main = self.main[g]
            if self.labels[p] == self.labels[main]:
                self.scores[main] = max(self.scores[main], self.scores[p])

    def drop_false(self) -> None:
        for p, g in enumerate(self.object_of):
            if g < 0:
                self._leave_out(p)
                continue
            for t in np.flatnonzero(~self.present[:, g]).tolist():
                self.rles[p][t] = None

    def correct_scores(self) -> None:
        true_labels = self.case.truth_labels
        for p, overlap in enumerate(self.overlap):
            self.scores[p] = float(overlap[true_labels == self.labels[p]].max(initial=0))

    def _truth(self, g: int, t: int) -> RLE:
        rle = self.truths[g].rles[t]
        assert rle is not None, "a mask is on objects that are there"
        return rle


def _most(overlap: np.ndarray) -> np.ndarray:
    """The position on the last axis with the greatest overlap, -1 where none is enough."""
    if overlap.shape[-1] == 0:
        return np.full(overlap.shape[:-1], -1)
    best = overlap.argmax(-1)
    return np.where(overlap.max(-1) >= TOUCHES, best, -1)


def _fit(rle: RLE | None, truth: RLE) -> RLE:
    """Stretch a mask to the box of the true one by the nearest pixel, if it fits better then."""
    assert rle is not None, "a mask that is on an object"
    (x1, y1, x2, y2), (left, top, right, bottom) = masks.boxes([rle, truth]).astype(int).tolist()
    rows = y1 + (np.arange(bottom - top) + 0.5) * (y2 - y1) / (bottom - top)
    columns = x1 + (np.arange(right - left) + 0.5) * (x2 - x1) / (right - left)

    stretched = np.zeros(rle.size, np.uint8)
    source = masks.decode([rle])[0]
    stretched[top:bottom, left:right] = source[np.ix_(rows.astype(int), columns.astype(int))]
    (fitted,) = masks.encode(stretched[None])
    return max(rle, fitted, key=lambda each: masks.spatio_temporal_iou([each], [truth]))
