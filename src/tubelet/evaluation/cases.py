"""Videos in numbers: which track shares how many pixels with which object in which frame, and who holds which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tubelet.core.masks.overlaps import frame_intersections
from tubelet.core.masks.packed import Tube
from tubelet.core.masks.run_codec import AREA
from tubelet.evaluation.pairing import Pair
from tubelet.evaluation.parallel import each
from tubelet.evaluation.partners import Table

TAKES = 0.5  # overlap in a frame with which a track takes an object up
KEEPS = 0.25  # overlap with which it still holds it
CONFIDENT = 0.3  # score from which on tracks take part in identities


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
    held: dict[int, int]  # the track that should be an object's own, for objects that are held; one object per track

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


def span(case: Case, g: int, p: int) -> np.ndarray:
    """Frames in which a track stands for an object, bool [T]: those that no failure of identity takes from it.

    Where it holds the object, where the object is not there and the track holds no other, and before the object is held
    for the first time.
    """
    owner, present = case.owner[:, g], case.truth_area[:, g] > 0
    if not (owner == p).any():
        return np.ones(len(owner), bool)
    elsewhere = (case.owner == p).any(1) & (owner != p)
    late = np.arange(len(owner)) < np.flatnonzero(owner >= 0)[0]
    return np.asarray((owner == p) | ((~present | late) & ~elsewhere))


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
    truth_labels = np.array([one.truths[n].label for n in real], np.int64)
    labels = np.array([track.label for track in one.guesses], np.int64)
    return Case(
        pair=one,
        real=real,
        shared=shared,
        truth_area=truth_area,
        area=area,
        truth_labels=truth_labels,
        labels=labels,
        scores=scores,
        confident=scores >= confident,
        owner=owner,
        held=_holders(owner, truth_labels[:, None] == labels),
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


def _holders(owner: np.ndarray, same: np.ndarray) -> dict[int, int]:
    """For each object the track that should be its own: of its class if any, then the one that holds it longest.

    Each track is given to one object; `same` is bool [G, P].
    """
    options = [
        (not same[g, p], -int((column == p).sum()), g, int(p))
        for g, column in enumerate(owner.T)
        for p in np.unique(column[column >= 0])
    ]
    held: dict[int, int] = {}
    for _, _, g, p in sorted(options):
        if g not in held and p not in held.values():
            held[g] = p
    return held
