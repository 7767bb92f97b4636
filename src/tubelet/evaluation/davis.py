"""DAVIS J & F: overlap of regions (J) and of contours (F), unsupervised (2019) and semi-supervised (2017).

A frame is a label map: 0 background, k object or proposal k, 255 void in truth. Everything is computed from label maps:
all overlaps of a frame from one joint histogram, all contours from one comparison with the neighbours, and whether
contours lie within the tolerance from a distance map of each, cut to its surroundings. So a frame costs proposals plus
objects, not proposals times objects. Source: the public rules of the DAVIS 2017 evaluation; see docs/metrics.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from tubelet.core.errors import FormatError
from tubelet.evaluation.parallel import each

VOID = 255
MOST_PROPOSALS = 20
TOLERANCE = 0.008  # of the image diagonal
MEASURES = ("J", "F")


class LabelledSequence(NamedTuple):
    """One sequence: label maps uint8 [H, W] of truth and answer, frame by frame, iterated over once."""

    name: str
    truth: Iterable[np.ndarray]
    answer: Iterable[np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectScores:
    """How well one object of the truth was found, frame by frame."""

    sequence: str
    object: int
    proposal: int  # 0 where no proposal was left for it
    values: np.ndarray  # float [2, T], J and F


def evaluate(
    sequences: Sequence[LabelledSequence], *, semi_supervised: bool = False, jobs: int = 1
) -> dict[str, float]:
    """Means over all objects of all sequences: J&F J F J_recall J_decay F_recall F_decay.

    Raises FormatError, which names the sequence, for more than 20 proposals, maps of different sizes or numbers, and,
    semi-supervised, for proposals that the truth does not have.
    """
    return numbers(score(sequences, semi_supervised=semi_supervised, jobs=jobs))


def score(sequences: Sequence[LabelledSequence], *, semi_supervised: bool = False, jobs: int = 1) -> list[ObjectScores]:
    """Every object of every sequence with the proposal that is counted for it.

    Unsupervised, proposals are assigned to objects so that the sum of (J + F) / 2 is largest. Semi-supervised,
    proposal k is object k, and the first and last frame are left out.
    """
    scores = each(partial(_score, semi_supervised=semi_supervised), sequences, jobs)
    return [one for part in scores for one in part]


def numbers(scores: Sequence[ObjectScores]) -> dict[str, float]:
    """Means over objects of each object's mean, recall and decay; -1 where there is no object."""
    if not scores:
        return dict.fromkeys(("J&F", "J", "F", "J_recall", "J_decay", "F_recall", "F_decay"), -1.0)
    mean, recall, decay = np.mean([statistics(one.values) for one in scores], axis=0)  # [3, 2]
    summary = {"J&F": float(mean.mean()), "J": float(mean[0]), "F": float(mean[1])}
    for n, measure in enumerate(MEASURES):
        summary |= {f"{measure}_recall": float(recall[n]), f"{measure}_decay": float(decay[n])}
    return summary


def statistics(values: np.ndarray) -> np.ndarray:
    """Mean, share above one half, and first quarter less last, of values [2, T] -> float [3, 2].

    The quarters share their end frames, as in the official evaluation.
    """
    ends = (np.round(np.linspace(1, values.shape[1], 5) + 1e-10) - 1).astype(int)
    first, last = values[:, : ends[1] + 1], values[:, ends[3] : ends[4] + 1]
    return np.stack([values.mean(1), (values > 0.5).mean(1), first.mean(1) - last.mean(1)])


def _score(sequence: LabelledSequence, semi_supervised: bool) -> list[ObjectScores]:
    frames = _Frames(sequence.name, semi_supervised)
    for t, (truth, answer) in enumerate(zip_longest(sequence.truth, sequence.answer)):
        if truth is None or answer is None:
            raise FormatError(f"sequence {sequence.name}: truth and answer have different numbers of frames")
        frames.add(t, truth, answer)
    return frames.assigned()


class _Frames:
    """The frames of one sequence as they are scored."""

    def __init__(self, name: str, semi_supervised: bool) -> None:
        self.name, self.semi_supervised = name, semi_supervised
        self.num_objects = 0
        self.scores: list[np.ndarray] = []  # of each frame, [P + 1, G, 2]; row 0 is what an empty proposal scores

    def add(self, t: int, truth: np.ndarray, answer: np.ndarray) -> None:
        """Score one frame."""
        where = f"sequence {self.name}, frame {t}"
        if truth.shape != answer.shape:
            expected = (
                f"expected an answer of {truth.shape[1]}x{truth.shape[0]}, got {answer.shape[1]}x{answer.shape[0]}"
            )
            raise FormatError(f"{where}: {expected}")
        if t == 0:
            self.num_objects = int(truth[truth != VOID].max(initial=0))
        most = int(answer.max(initial=0))
        if self.semi_supervised and most > self.num_objects:
            raise FormatError(f"{where}: proposal {most}, but the truth has {self.num_objects} objects")
        if most > MOST_PROPOSALS:
            raise FormatError(f"{where}: proposal {most}, more than {MOST_PROPOSALS} are not allowed")
        if not self.semi_supervised:
            answer = np.where(truth == VOID, 0, answer).astype(np.uint8)
        self.scores.append(score_frame(np.where(truth > self.num_objects, 0, truth), answer, self.num_objects, most))

    def assigned(self) -> list[ObjectScores]:
        """Objects with their proposals."""
        scores = self.scores[1:-1] if self.semi_supervised else self.scores
        if not scores:
            raise FormatError(f"sequence {self.name}: has no frame that counts")
        count = max(self.num_objects, *(len(one) - 1 for one in scores))
        table = np.stack([_padded(one, count) for one in scores])  # [T, P, G, 2]
        if self.semi_supervised:
            proposals = objects = np.arange(self.num_objects)
        else:
            proposals, objects = linear_sum_assignment(-table.mean((0, 3)))
        held = max(len(one) - 1 for one in scores)
        return [
            ObjectScores(
                sequence=self.name,
                object=int(g) + 1,
                proposal=int(p) + 1 if p < held else 0,
                values=table[:, p, g].T,
            )
            for g, p in sorted(zip(objects.tolist(), proposals.tolist(), strict=True))
        ]


def _padded(scores: np.ndarray, count: int) -> np.ndarray:
    """Rows for `count` proposals; those that a frame does not have score as empty ones."""
    missing = count - (len(scores) - 1)
    return np.concatenate([scores[1:], np.repeat(scores[:1], missing, 0)])


def score_frame(truth: np.ndarray, answer: np.ndarray, num_objects: int, num_proposals: int) -> np.ndarray:
    """J and F of every proposal with every object, [P + 1, G, 2]; row 0 is an empty proposal.

    Label maps uint8 [H, W] without void, of labels up to the numbers given.
    """
    scores = np.zeros((num_proposals + 1, num_objects, 2))
    joint = np.bincount(
        (truth.astype(np.uint16) * np.uint16(num_proposals + 1) + answer).ravel(),
        minlength=(num_objects + 1) * (num_proposals + 1),
    ).reshape(num_objects + 1, num_proposals + 1)
    shared = joint.T[:, 1:].astype(np.float64)
    shared[0] = 0
    sizes = joint.sum(0).astype(np.float64)
    sizes[0] = 0
    union = sizes[:, None] + joint.sum(1)[1:] - shared
    scores[..., 0] = np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
    radius = math.ceil(TOLERANCE * math.hypot(*truth.shape))
    objects, proposals = _contours(truth, num_objects, radius), _contours(answer, num_proposals, radius)
    for g, real in enumerate(objects):
        for p, guess in enumerate([None, *proposals]):
            scores[p, g, 1] = _contour_score(guess, real)
    return scores


class _Contour:
    """Boundary pixels of one label, and where the tolerance around them reaches."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray, radius: int) -> None:
        self.rows, self.columns = rows, columns
        self.top, self.left = int(rows.min()) - radius, int(columns.min()) - radius
        canvas = np.ones(
            (int(rows.max()) - self.top + radius + 1, int(columns.max()) - self.left + radius + 1), np.uint8
        )
        canvas[rows - self.top, columns - self.left] = 0
        distance = cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        self.near = distance <= radius + 0.001  # distances are roots of integers: none lies in between

    def __len__(self) -> int:
        return len(self.rows)

    def count_near(self, other: _Contour) -> int:
        """How many boundary pixels of the other lie within the tolerance of this one's."""
        rows, columns = other.rows - self.top, other.columns - self.left
        height, width = self.near.shape
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        return int(np.count_nonzero(self.near[rows[inside], columns[inside]]))


def _contours(labels: np.ndarray, count: int, radius: int) -> list[_Contour | None]:
    """The boundary of each label from 1 to `count`; None where it has none.

    A pixel is on the boundary of a mask if the mask changes between it and its right, lower or lower right neighbour;
    the border of the image is no boundary. So it is on the boundary of every label among these four, unless they are
    one.
    """
    around = np.pad(labels, ((0, 1), (0, 1)), mode="edge")
    right, below, corner = around[:-1, 1:], around[1:, :-1], around[1:, 1:]
    places = np.flatnonzero((labels != right) | (labels != below) | (labels != corner))
    rows, columns = np.divmod(places, labels.shape[1])
    four = np.stack([part[rows, columns] for part in (labels, right, below, corner)])
    contours: list[_Contour | None] = []
    for label in range(1, count + 1):
        on = (four == label).any(0)
        contours.append(_Contour(rows[on], columns[on], radius) if on.any() else None)
    return contours


def _contour_score(guess: _Contour | None, real: _Contour | None) -> float:
    if guess is None or real is None:
        return float(guess is real)
    precision, recall = real.count_near(guess) / len(guess), guess.count_near(real) / len(real)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
