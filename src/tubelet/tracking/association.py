"""Which known object is this? The decision rule of MaskTrack R-CNN, from match logits and three cues.

Source: Yang et al. 2019, section 4.3; docs/papers/masktrack_rcnn.md. For detection i and known object j:
score_i(j) = log p_i(j) + a log s_i + b IoU(box_i, box_j) + c [label_i = label_j], column 0 standing for a new object
(IoU 0, label agrees). Letters: N detections, M known objects.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from tubelet.core import boxes as box_ops
from tubelet.core.config import Config
from tubelet.core.matching import assign

NEW, DROPPED = -1, -2


class AssociationConfig(Config):
    """The cues' weights and what becomes of a detection that loses its object to a better one."""

    cues: bool = True  # off: the match probabilities alone decide (CompFeat, Tables 1-4)
    score_weight: float = 1.0  # a
    iou_weight: float = 2.0  # b
    label_weight: float = 10.0  # c
    doubt: float = Field(
        default=0.0, ge=0
    )  # adds -doubt log s_i to column 0: a weak detection must fit a known one well
    assignment: Literal["greedy", "optimal"] = "greedy"  # optimal: one decision for all, no detection is lost to a tie
    unique_ids: bool = True  # off: both claimants carry the id in this frame, as the original leaves it
    birth: float = Field(default=0.0, ge=0, le=1)  # a new object needs this score; the paper has no such bound
    leash: float = Field(default=0.0, ge=0, le=1)  # one too weak for that must overlap the object that it is (IoU)
    shadow: float = Field(default=1.0, ge=0, le=1)  # a new object may overlap an accepted one by this much (IoU)
    keep: int | None = Field(default=None, ge=1)  # frames for which an unseen object is remembered; None = for ever
    cut_match: float = Field(default=0.999, ge=0, le=1)  # in another shot: least probability of it against a new one
    cut_keep: int | None = Field(default=1000, ge=1)  # frames for which an object of an earlier shot is remembered


def cue_scores(
    logits: Tensor,
    scores: Tensor,
    boxes: Tensor,
    labels: Tensor,
    known_boxes: Tensor,
    known_labels: Tensor,
    config: AssociationConfig,
) -> Tensor:
    """Match logits [N, M + 1] with the cues added, [N, M + 1]; boxes [N, 4] and [M, 4], labels [N] and [M]."""
    total = logits.float().log_softmax(1)
    if not config.cues:
        return total
    overlap = torch.cat([boxes.new_zeros(len(boxes), 1), box_ops.iou(boxes, known_boxes)], 1)
    agrees = torch.cat([labels.new_ones(len(labels), 1).bool(), labels[:, None] == known_labels[None]], 1)
    confident = scores.clamp(min=1e-12).log()[:, None]
    total = total + config.score_weight * confident + config.iou_weight * overlap + config.label_weight * agrees
    total[:, :1] -= config.doubt * confident
    if config.leash:
        strays = (scores < config.birth)[:, None] & (overlap < config.leash)
        strays[:, 0] = False
        total = total.masked_fill(strays, float("-inf"))
    return total


def across_cuts(
    table: Tensor, logits: Tensor, labels: Tensor, known_labels: Tensor, elsewhere: Tensor, config: AssociationConfig
) -> Tensor:
    """The table [N, M + 1] where known objects that were last seen in another shot, bool [M], must be proven.

    Such an object is continued only by a detection of its label that is, by the match logits, more probably it than all
    else together, and of the two, it and a new object, it with a probability of `cut_match`: where few are known, the
    match probability alone is high for anybody. Ours: the papers' videos have no cuts, and without one nothing changes.
    """
    if not elsewhere.any():
        return table
    logits = logits.float()
    likeliest = logits.softmax(1)[:, 1:] >= 0.5
    alike = (logits[:, 1:] - logits[:, :1]).sigmoid() >= config.cut_match
    barred = elsewhere & ~(likeliest & alike & (labels[:, None] == known_labels))
    return torch.cat([table[:, :1], table[:, 1:].masked_fill(barred, float("-inf"))], 1)


def associate(table: Tensor, scores: Tensor, config: AssociationConfig) -> Tensor:
    """Decide for N detections, in their order: position of a known object, NEW or DROPPED, int64 [N].

    `table` is what cue_scores gives. Greedy is the paper's rule: each takes its best column; of two that claim one
    object the higher entry wins, and the loser gets no second choice.
    """
    decided = _greedy(table, config.unique_ids) if config.assignment == "greedy" else _optimal(table)
    decided[(decided == NEW) & (scores.cpu() < config.birth)] = DROPPED
    return decided


def drop_shadows(decided: Tensor, boxes: Tensor, labels: Tensor, shadow: float) -> Tensor:
    """Drop new objects [N] that are second answers for an accepted one, best first.

    Those overlap its box by more than `shadow` (IoU), or have its class and lie inside its box by more than that.

    A detector that answers twice for one object would otherwise start a second identity, which then competes for it.
    """
    if shadow >= 1:
        return decided
    same = labels[:, None] == labels[None]
    overlap = torch.where(same, box_ops.coverage(boxes, boxes), box_ops.iou(boxes, boxes)).cpu()
    decided = decided.clone()
    accepted = decided >= 0
    for i in (decided == NEW).nonzero()[:, 0].tolist():
        if (overlap[i, accepted] > shadow).any():
            decided[i] = DROPPED
        else:
            accepted[i] = True
    return decided


def _greedy(table: Tensor, unique: bool) -> Tensor:
    values, columns = (t.cpu() for t in table.max(1))
    decided = torch.full((len(table),), NEW)
    holder: dict[int, int] = {}
    for i, column in enumerate(columns.tolist()):
        if column == 0:
            continue
        rival = holder.get(column)
        if rival is not None and values[i] <= values[rival]:
            decided[i] = DROPPED
            continue
        if rival is not None and unique:
            decided[rival] = DROPPED
        holder[column] = i
        decided[i] = column - 1
    return decided


def _optimal(table: Tensor) -> Tensor:
    """Least total cost where every detection also has a "new object" column of its own."""
    known = table.shape[1] - 1
    own = torch.full((len(table), len(table)), float("-inf"), device=table.device)
    own.diagonal().copy_(table[:, 0])
    rows, columns = assign(-torch.cat([table[:, 1:], own], 1))
    decided = torch.full((len(table),), NEW)
    matched = columns < known
    decided[rows[matched]] = columns[matched]
    return decided
