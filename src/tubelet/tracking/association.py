"""Assign detections to known objects from match logits and three cues, as in MaskTrack R-CNN.

    score_i(j) = log p_i(j) + a log s_i + b IoU(box_i, box_j) + c [label_i = label_j]

for detection i and known object j; column 0 stands for a new object, with IoU 0 and the same label.

Letters: N detections, M known objects. Source: Yang et al. 2019, section 4.3;
docs/papers/masktrack_rcnn.md.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from tubelet.core import boxes as box_ops
from tubelet.core.config import Config
from tubelet.core.matching import assign

NEW = -1
DROPPED = -2


class AssociationConfig(Config):
    """Settings of the association of detections with known objects.

    Example:
        >>> from tubelet.tracking.association import AssociationConfig
        >>> AssociationConfig(assignment="optimal", birth=0.3).iou_weight
        2.0
    """

    cues: bool = True  # off: use the match probabilities only (CompFeat, Tables 1-4)
    score_weight: float = 1.0  # a
    iou_weight: float = 2.0  # b
    label_weight: float = 10.0  # c
    # adds -doubt log s_i to column 0, so that a detection with a low score must fit a known object well
    doubt: float = Field(default=0.0, ge=0)
    # optimal: maximise the total score; no detection is dropped because another one claims its object
    assignment: Literal["greedy", "optimal"] = "greedy"
    # off: two detections that claim an object can both get its id in a frame, as in the original code
    unique_ids: bool = True
    birth: float = Field(default=0.0, ge=0, le=1)  # minimum score of a new object; 0 in the paper
    leash: float = Field(default=0.0, ge=0, le=1)  # minimum IoU with its object of a detection below `birth`
    shadow: float = Field(default=1.0, ge=0, le=1)  # maximum IoU of a new object with an accepted one
    # an object whose detection has less than this share of its usual area may continue with a larger one; 0: never
    shrunk: float = Field(default=0.0, ge=0, le=1)
    keep: int | None = Field(default=None, ge=1)  # frames for which an unseen object is kept; None: all
    # of an object of another shot: minimum of p(object) / (p(object) + p(new))
    cut_match: float = Field(default=0.999, ge=0, le=1)
    cut_keep: int | None = Field(default=1000, ge=1)  # frames for which an object of another shot is kept
    # frames for which detections below `birth` alone can keep an object; None: all. Else an object that has left
    # rests for ever on something that looks a little like it, whose weak detections fit where it was
    weak_keep: int | None = Field(default=None, ge=1)


def cue_scores(
    logits: Tensor,
    scores: Tensor,
    boxes: Tensor,
    labels: Tensor,
    known_boxes: Tensor,
    known_labels: Tensor,
    config: AssociationConfig,
) -> Tensor:
    """Add the cues to the match logits, [N, M + 1].

    Args:
        logits: Match logits [N, M + 1]; column 0 stands for a new object.
        scores: Confidence of each detection [N].
        boxes: Boxes of the detections [N, 4].
        labels: Classes of the detections [N].
        known_boxes: Last boxes of the known objects [M, 4].
        known_labels: Classes of the known objects [M].
        config: The weights of the cues.

    Example:
        >>> from tubelet.tracking.association import AssociationConfig, cue_scores
        >>> box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
        >>> label = torch.tensor([2])
        >>> cue_scores(
        ...     logits=torch.zeros(1, 2),
        ...     scores=torch.ones(1),
        ...     boxes=box,
        ...     labels=label,
        ...     known_boxes=box,
        ...     known_labels=label,
        ...     config=AssociationConfig(),
        ... )
        tensor([[ 9.3069, 11.3069]])
    """
    total = logits.float().log_softmax(1)
    if not config.cues:
        return total

    overlap = torch.cat([boxes.new_zeros(len(boxes), 1), box_ops.iou(boxes, known_boxes)], 1)
    same_label = torch.cat([labels.new_ones(len(labels), 1).bool(), labels[:, None] == known_labels[None]], 1)
    log_scores = scores.clamp(min=1e-12).log()[:, None]

    total = total + config.score_weight * log_scores
    total = total + config.iou_weight * overlap
    total = total + config.label_weight * same_label
    total[:, :1] -= config.doubt * log_scores

    if config.leash:
        too_far = (scores < config.birth)[:, None] & (overlap < config.leash)
        too_far[:, 0] = False
        total = total.masked_fill(too_far, float("-inf"))
    return total


def across_cuts(
    table: Tensor,
    logits: Tensor,
    labels: Tensor,
    known_labels: Tensor,
    in_other_shot: Tensor,
    config: AssociationConfig,
) -> Tensor:
    """Set the scores of known objects of another shot to -inf unless the match is beyond doubt.

    A detection can continue such an object if it has its label, if the match probability of the
    object is at least one half, and if p(object) / (p(object) + p(new)) is at least `cut_match`.
    The last test matters if few objects are known: then match probabilities are high in general.
    Not in the papers, whose videos have no cuts; without cuts it changes nothing.

    Args:
        table: The result of `cue_scores` [N, M + 1].
        logits: Match logits [N, M + 1].
        labels: Classes of the detections [N].
        known_labels: Classes of the known objects [M].
        in_other_shot: Whether a known object was last seen in another shot, bool [M].
        config: Its `cut_match`.

    Example:
        >>> from tubelet.tracking.association import AssociationConfig, across_cuts
        >>> logits = torch.tensor([[0.0, 5.0]])
        >>> label = torch.tensor([2])
        >>> across_cuts(logits, logits, label, label, torch.tensor([True]), AssociationConfig())
        tensor([[0., -inf]])
    """
    if not in_other_shot.any():
        return table

    logits = logits.float()
    likely = logits.softmax(1)[:, 1:] >= 0.5
    more_likely_than_new = (logits[:, 1:] - logits[:, :1]).sigmoid() >= config.cut_match
    same_label = labels[:, None] == known_labels
    excluded = in_other_shot & ~(likely & more_likely_than_new & same_label)
    return torch.cat([table[:, :1], table[:, 1:].masked_fill(excluded, float("-inf"))], 1)


def associate(table: Tensor, scores: Tensor, config: AssociationConfig) -> Tensor:
    """Assign each of N detections to a known object: its position, NEW or DROPPED, int64 [N].

    Greedy is the paper's rule: each detection takes its best column. Of two that claim the same
    object, the one with the higher score gets it, and the other gets no second choice.

    Args:
        table: The result of `cue_scores` [N, M + 1].
        scores: Confidence of each detection [N].
        config: The rule, and the minimum score of a new object.

    Example:
        >>> from tubelet.tracking.association import AssociationConfig, associate
        >>> table = torch.tensor([[0.0, 5.0], [3.0, 1.0]])
        >>> associate(table, torch.ones(2), AssociationConfig())
        tensor([ 0, -1])
    """
    if config.assignment == "greedy":
        assigned = _greedy(table, config.unique_ids)
    else:
        assigned = _optimal(table)
    assigned[(assigned == NEW) & (scores.cpu() < config.birth)] = DROPPED
    return assigned


def take_wholes(
    assigned: Tensor, boxes: Tensor, labels: Tensor, usual_areas: Tensor, config: AssociationConfig
) -> Tensor:
    """Let objects that sit on a part of themselves continue with the whole, int64 [N].

    Behind a tree, a detector takes a bus for two, and the bus that was known goes on as one of the
    parts. When the whole is found again, it would be a new object. Here a new object gets the
    identity of an accepted one of its class that is inside it by a share above `shadow` and has
    shrunk, if its own area is nearer to the usual one. The part becomes new, which is then a shadow.

    Args:
        assigned: The result of `associate` [N], best detection first.
        boxes: Boxes of the detections [N, 4].
        labels: Classes of the detections [N].
        usual_areas: Areas that the known objects used to have [M].
        config: Its `shrunk`, with 0 nothing changes, and `shadow`.

    Example:
        >>> from tubelet.tracking.association import AssociationConfig, take_wholes
        >>> boxes = torch.tensor([[0.0, 0.0, 8.0, 4.0], [0.0, 0.0, 2.0, 4.0]])
        >>> label = torch.tensor([2, 2])
        >>> config = AssociationConfig(shrunk=0.75, shadow=0.5)
        >>> take_wholes(torch.tensor([-1, 0]), boxes, label, torch.tensor([30.0]), config)
        tensor([ 0, -1])
    """
    if not config.shrunk or not len(usual_areas):
        return assigned

    areas = box_ops.area(boxes).clamp(min=1)
    usual = usual_areas[assigned.clamp(min=0)].clamp(min=1)
    is_part = (assigned >= 0) & (areas < config.shrunk * usual)

    # [N, N]: whether detection i may continue the object of detection j
    nearer = (areas[:, None] / usual).log().abs() < (areas / usual).log().abs()
    share_inside = box_ops.coverage(boxes, boxes).T
    same_label = labels[:, None] == labels
    may_continue = is_part & nearer & same_label & (share_inside > config.shadow)

    assigned = assigned.clone()
    for i in (assigned == NEW).nonzero()[:, 0].tolist():
        parts = (may_continue[i] & (assigned >= 0)).nonzero()[:, 0]
        if len(parts):
            largest = parts[areas[parts].argmax()]
            assigned[i] = assigned[largest].clone()
            assigned[largest] = NEW
    return assigned


def drop_shadows(assigned: Tensor, boxes: Tensor, labels: Tensor, shadow: float) -> Tensor:
    """Drop new objects that are duplicate detections of an accepted one, int64 [N].

    A duplicate overlaps the box of an accepted object by an IoU above `shadow`, or has its class and
    is inside its box by a share above `shadow`. Otherwise a detector that finds an object twice
    would start a second identity, which then competes for it.

    Args:
        assigned: The result of `associate` [N], best detection first.
        boxes: Boxes of the detections [N, 4].
        labels: Classes of the detections [N].
        shadow: The largest overlap; from 1 on, nothing is dropped.

    Example:
        >>> from tubelet.tracking.association import drop_shadows
        >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0]])
        >>> drop_shadows(torch.tensor([-1, -1]), boxes, torch.tensor([2, 2]), shadow=0.7)
        tensor([-1, -2])
    """
    if shadow >= 1:
        return assigned

    same_label = labels[:, None] == labels[None]
    overlap = torch.where(same_label, box_ops.coverage(boxes, boxes), box_ops.iou(boxes, boxes)).cpu()

    assigned = assigned.clone()
    accepted = assigned >= 0
    for i in (assigned == NEW).nonzero()[:, 0].tolist():
        if (overlap[i, accepted] > shadow).any():
            assigned[i] = DROPPED
        else:
            accepted[i] = True
    return assigned


def _greedy(table: Tensor, unique: bool) -> Tensor:
    """Give each detection its best column; the highest score wins an object."""
    best = table.max(1)
    values = best.values.cpu()
    columns = best.indices.cpu()

    assigned = torch.full((len(table),), NEW)
    winners: dict[int, int] = {}  # column -> detection
    for i, column in enumerate(columns.tolist()):
        if column == 0:
            continue

        rival = winners.get(column)
        if rival is not None and values[i] <= values[rival]:
            assigned[i] = DROPPED
            continue

        if rival is not None and unique:
            assigned[rival] = DROPPED
        winners[column] = i
        assigned[i] = column - 1
    return assigned


def _optimal(table: Tensor) -> Tensor:
    """Maximise the total score; every detection has its own column for a new object."""
    num_known = table.shape[1] - 1
    new = torch.full((len(table), len(table)), float("-inf"), device=table.device)
    new.diagonal().copy_(table[:, 0])
    rows, columns = assign(-torch.cat([table[:, 1:], new], 1))

    assigned = torch.full((len(table),), NEW)
    matched = columns < num_known
    assigned[rows[matched]] = columns[matched]
    return assigned
