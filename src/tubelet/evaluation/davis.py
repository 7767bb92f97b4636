"""DAVIS J & F: overlap of regions (J) and of contours (F).

Unsupervised as in 2019, semi-supervised as in 2017. A frame is a label map: 0 background, k object
or proposal k, 255 void in truth. Everything is computed from label maps: all overlaps of a frame
from one joint histogram, all contours from one comparison with the neighbours, and the test whether
contours are within the tolerance from a distance map of each contour's surroundings. So the cost of
a frame grows with proposals plus objects, not with proposals times objects. Source: the public
rules of the DAVIS 2017 evaluation; see docs/metrics.md.

Letters: T frames, G objects, P proposals.
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
    """One sequence's label maps, uint8 [H, W] per frame; each iterable is read once.

    Example:
        >>> from tubelet.evaluation.davis import LabelledSequence
        >>> truth = np.ones((2, 4, 4), np.uint8)
        >>> LabelledSequence("dog", truth, truth).name
        'dog'
    """

    name: str
    truth: Iterable[np.ndarray]
    answer: Iterable[np.ndarray]  # the proposals


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectScores:
    """J and F of one object of the truth in every frame, with the proposal assigned to it.

    Example:
        >>> from tubelet.evaluation.davis import ObjectScores
        >>> scores = ObjectScores(sequence="dog", object=1, proposal=2, values=np.full((2, 5), 0.5))
        >>> scores.values.mean(1)  # J and F
        array([0.5, 0.5])
    """

    sequence: str
    object: int
    proposal: int  # 0 if no proposal was left for the object
    values: np.ndarray  # float [2, T], J and F


def evaluate(
    sequences: Sequence[LabelledSequence],
    *,
    semi_supervised: bool = False,
    jobs: int = 1,
) -> dict[str, float]:
    """Compute J and F, averaged over all objects of all sequences.

    Args:
        sequences: Label maps of truth and proposals.
        semi_supervised: Compare proposal k with object k, instead of assigning proposals to
            objects.
        jobs: Number of processes.

    Returns:
        J&F, J, F, J_recall, J_decay, F_recall and F_decay as fractions; -1 if there is no object.

    Raises:
        FormatError: names the sequence, if there are more than 20 proposals, if maps differ in size
            or number, or, semi-supervised, if there is a proposal that the truth does not have.

    Example:
        >>> from tubelet.evaluation.davis import LabelledSequence, evaluate
        >>> truth = np.zeros((5, 8, 8), np.uint8)
        >>> truth[:, 2:6, 2:6] = 1
        >>> evaluate([LabelledSequence("dog", truth, truth)])["J&F"]
        1.0
    """
    return numbers(score(sequences, semi_supervised=semi_supervised, jobs=jobs))


def score(
    sequences: Sequence[LabelledSequence],
    *,
    semi_supervised: bool = False,
    jobs: int = 1,
) -> list[ObjectScores]:
    """Score every object of every sequence against the proposal that counts for it.

    Unsupervised, proposals are assigned to objects so that the sum of (J + F) / 2 is largest.
    Semi-supervised, proposal k counts for object k, and the first and last frame are left out.

    Example:
        >>> from tubelet.evaluation.davis import LabelledSequence, score
        >>> truth = np.zeros((1, 8, 8), np.uint8)
        >>> truth[:, 2:6, 2:6] = 1
        >>> (only,) = score([LabelledSequence("dog", truth, 3 * truth)])
        >>> only.object, only.proposal
        (1, 3)
    """
    by_sequence = each(partial(_score, semi_supervised=semi_supervised), sequences, jobs)
    return [scores for of_sequence in by_sequence for scores in of_sequence]


def numbers(scores: Sequence[ObjectScores]) -> dict[str, float]:
    """Average each object's mean, recall and decay over the objects; -1 if there is no object.

    Example:
        >>> from tubelet.evaluation.davis import ObjectScores, numbers
        >>> values = np.full((2, 5), 0.75)
        >>> numbers([ObjectScores(sequence="dog", object=1, proposal=1, values=values)])["J"]
        0.75
    """
    if not scores:
        return dict.fromkeys(("J&F", "J", "F", "J_recall", "J_decay", "F_recall", "F_decay"), -1.0)

    of_objects = [statistics(each_object.values) for each_object in scores]
    mean, recall, decay = np.mean(of_objects, axis=0)  # [3, 2]
    summary = {"J&F": float(mean.mean()), "J": float(mean[0]), "F": float(mean[1])}
    for n, measure in enumerate(MEASURES):
        summary[f"{measure}_recall"] = float(recall[n])
        summary[f"{measure}_decay"] = float(decay[n])
    return summary


def statistics(values: np.ndarray) -> np.ndarray:
    """Compute mean, recall and decay of values [2, T]: float [3, 2].

    Recall is the share above one half; decay is the first quarter's mean minus the last one's. The
    quarters share their end frames, as in the official evaluation.

    Example:
        >>> from tubelet.evaluation.davis import statistics
        >>> statistics(np.array([[1.0, 1.0, 0.5, 0.0, 0.0]]))[:, 0]
        array([0.5, 0.4, 1. ])
    """
    bounds = (np.round(np.linspace(1, values.shape[1], 5) + 1e-10) - 1).astype(int)
    first = values[:, : bounds[1] + 1]
    last = values[:, bounds[3] : bounds[4] + 1]

    mean = values.mean(1)
    recall = (values > 0.5).mean(1)
    decay = first.mean(1) - last.mean(1)
    return np.stack([mean, recall, decay])


def score_frame(
    truth: np.ndarray,
    answer: np.ndarray,
    num_objects: int,
    num_proposals: int,
) -> np.ndarray:
    """Compute J and F of every proposal with every object of one frame.

    Args:
        truth: Label map uint8 [H, W] without void, labels up to `num_objects`.
        answer: Label map uint8 [H, W], labels up to `num_proposals`.
        num_objects: G.
        num_proposals: P.

    Returns:
        Float [P + 1, G, 2]; row 0 is an empty proposal.

    Example:
        >>> from tubelet.evaluation.davis import score_frame
        >>> truth = np.zeros((4, 4), np.uint8)
        >>> truth[1:3, 1:3] = 1
        >>> score_frame(truth, truth, num_objects=1, num_proposals=1)[:, 0]
        array([[0., 0.],
               [1., 1.]])
    """
    scores = np.zeros((num_proposals + 1, num_objects, 2))
    scores[..., 0] = _region_scores(truth, answer, num_objects, num_proposals)

    radius = math.ceil(TOLERANCE * math.hypot(*truth.shape))
    objects = _contours(truth, num_objects, radius)
    proposals = _contours(answer, num_proposals, radius)
    for g, of_object in enumerate(objects):
        for p, of_proposal in enumerate([None, *proposals]):
            scores[p, g, 1] = _contour_score(of_proposal, of_object)
    return scores


def _score(sequence: LabelledSequence, semi_supervised: bool) -> list[ObjectScores]:
    frames = _Frames(sequence.name, semi_supervised)
    for t, (truth, answer) in enumerate(zip_longest(sequence.truth, sequence.answer)):
        if truth is None or answer is None:
            raise FormatError(f"sequence {sequence.name}: truth and answer have different numbers of frames")
        frames.add(t, truth, answer)
    return frames.assign()


class _Frames:
    """Scores of one sequence, frame by frame."""

    def __init__(self, name: str, semi_supervised: bool) -> None:
        self.name = name
        self.semi_supervised = semi_supervised
        self.num_objects = 0
        self.scores: list[np.ndarray] = []  # of each frame, as `score_frame` returns them

    def add(self, t: int, truth: np.ndarray, answer: np.ndarray) -> None:
        """Score one frame."""
        where = f"sequence {self.name}, frame {t}"
        if truth.shape != answer.shape:
            expected = f"{truth.shape[1]}x{truth.shape[0]}"
            came = f"{answer.shape[1]}x{answer.shape[0]}"
            raise FormatError(f"{where}: expected an answer of {expected}, got {came}")

        if t == 0:
            self.num_objects = int(truth[truth != VOID].max(initial=0))

        num_proposals = int(answer.max(initial=0))
        if self.semi_supervised and num_proposals > self.num_objects:
            raise FormatError(f"{where}: proposal {num_proposals}, but the truth has {self.num_objects} objects")
        if num_proposals > MOST_PROPOSALS:
            raise FormatError(f"{where}: proposal {num_proposals}, more than {MOST_PROPOSALS} are not allowed")

        if not self.semi_supervised:
            answer = np.where(truth == VOID, 0, answer).astype(np.uint8)
        truth = np.where(truth > self.num_objects, 0, truth)  # also what is void
        self.scores.append(score_frame(truth, answer, self.num_objects, num_proposals))

    def assign(self) -> list[ObjectScores]:
        """Assign proposals to objects, over all frames."""
        scores = self.scores[1:-1] if self.semi_supervised else self.scores
        if not scores:
            raise FormatError(f"sequence {self.name}: has no frame that counts")

        num_proposals = max(len(of_frame) - 1 for of_frame in scores)
        num_rows = max(self.num_objects, num_proposals)  # enough for every object to get one
        table = np.stack([_padded(of_frame, num_rows) for of_frame in scores])  # [T, P, G, 2]
        if self.semi_supervised:
            proposals = objects = np.arange(self.num_objects)
        else:
            proposals, objects = linear_sum_assignment(-table.mean((0, 3)))

        by_object = sorted(zip(objects.tolist(), proposals.tolist(), strict=True))
        return [
            ObjectScores(
                sequence=self.name,
                object=int(g) + 1,
                proposal=int(p) + 1 if p < num_proposals else 0,
                values=table[:, p, g].T,
            )
            for g, p in by_object
        ]


def _padded(scores: np.ndarray, num_rows: int) -> np.ndarray:
    """Scores of `num_rows` proposals; those that a frame does not have score as empty ones."""
    missing = num_rows - (len(scores) - 1)
    return np.concatenate([scores[1:], np.repeat(scores[:1], missing, 0)])


def _region_scores(
    truth: np.ndarray,
    answer: np.ndarray,
    num_objects: int,
    num_proposals: int,
) -> np.ndarray:
    """J of every proposal with every object, float [P + 1, G]; row 0 is an empty proposal."""
    cells = truth.astype(np.uint16) * np.uint16(num_proposals + 1) + answer
    num_cells = (num_objects + 1) * (num_proposals + 1)
    joint = np.bincount(cells.ravel(), minlength=num_cells).reshape(num_objects + 1, num_proposals + 1)

    shared = joint.T[:, 1:].astype(np.float64)
    shared[0] = 0
    sizes = joint.sum(0).astype(np.float64)
    sizes[0] = 0
    union = sizes[:, None] + joint.sum(1)[1:] - shared
    return np.divide(shared, union, out=np.ones_like(shared), where=union > 0)


class _Contour:
    """The boundary pixels of one label, and a map of the pixels within the tolerance of them."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray, radius: int) -> None:
        self.rows = rows
        self.columns = columns
        self.top = int(rows.min()) - radius
        self.left = int(columns.min()) - radius

        height = int(rows.max()) - self.top + radius + 1
        width = int(columns.max()) - self.left + radius + 1
        canvas = np.ones((height, width), np.uint8)
        canvas[rows - self.top, columns - self.left] = 0
        distance = cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        self.near = distance <= radius + 0.001  # distances are roots of integers: none is between the two

    def __len__(self) -> int:
        return len(self.rows)

    def count_near(self, other: _Contour) -> int:
        """Count the boundary pixels of another contour that are within the tolerance of this one."""
        rows = other.rows - self.top
        columns = other.columns - self.left
        height, width = self.near.shape
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        return int(np.count_nonzero(self.near[rows[inside], columns[inside]]))


def _contours(labels: np.ndarray, num_labels: int, radius: int) -> list[_Contour | None]:
    """The boundary of each label from 1 to `num_labels`; None where it has none.

    A pixel is on the boundary of a mask if the mask changes between it and its right, lower or
    lower right neighbour; the border of the image is no boundary. So it is on the boundary of every
    label among these four, unless all four are the same.
    """
    padded = np.pad(labels, ((0, 1), (0, 1)), mode="edge")
    right = padded[:-1, 1:]
    below = padded[1:, :-1]
    corner = padded[1:, 1:]

    boundary = np.flatnonzero((labels != right) | (labels != below) | (labels != corner))
    rows, columns = np.divmod(boundary, labels.shape[1])
    four = np.stack([part[rows, columns] for part in (labels, right, below, corner)])

    contours: list[_Contour | None] = []
    for label in range(1, num_labels + 1):
        on = (four == label).any(0)
        contours.append(_Contour(rows[on], columns[on], radius) if on.any() else None)
    return contours


def _contour_score(proposal: _Contour | None, truth: _Contour | None) -> float:
    """F of one proposal with one object; 1 where neither has a contour."""
    if proposal is None or truth is None:
        return float(proposal is truth)
    precision = truth.count_near(proposal) / len(proposal)
    recall = proposal.count_near(truth) / len(truth)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
