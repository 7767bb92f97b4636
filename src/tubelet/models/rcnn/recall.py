"""Objects that the detector misses for a few frames are looked for where they were.

Ours, in no paper: a one-stage detector loses an object in single frames (blur, an odd pose), and each gap may cost its
identity. The mask head, asked at the last box, moves the box with the object; the match head says whether it still is
that object.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from tubelet.core import boxes as box_ops
from tubelet.core.config import Config
from tubelet.models.rcnn.memory import Memory


class RecallConfig(Config):
    """When a missed object is taken to be still there."""

    frames: int = Field(default=8, ge=1)  # after its last detection
    agreement: float = Field(default=0.5, ge=0, le=1)  # match probability of the region with the object itself
    overlap: float = Field(default=0.5, ge=0, le=1)  # not where a detected object overlaps the box by more (IoU)
    decay: float = Field(default=0.9, gt=0, le=1)  # of its score with every frame
    change: float = Field(default=2.0, ge=1)  # its box may grow or shrink in area by at most this, from frame to frame


def missing(memory: Memory, detected: Tensor, config: RecallConfig) -> Tensor:
    """Positions in the memory of objects that are worth looking for, given the boxes [N, 4] detected in this frame."""
    lost = (memory.seen < memory.time) & (memory.seen >= memory.time - config.frames) & ~memory.elsewhere
    if len(detected) and lost.any():
        lost &= box_ops.iou(memory.boxes, detected).amax(1) <= config.overlap
    return lost.nonzero()[:, 0]


def faded(memory: Memory, lost: Tensor, decay: float) -> Tensor:
    """Scores [L, K] of the lost, lower with every frame since they were detected."""
    return memory.scores[lost] * decay ** (memory.time - memory.seen[lost])[:, None].to(memory.scores.dtype)


def follow(
    memory: Memory, lost: Tensor, masks: Tensor, regions: Tensor, scale: Tensor, change: float
) -> tuple[Memory, Tensor]:
    """Move the boxes of the lost [L] to their masks [L, H, W]; also which of them [L] are plausible.

    `regions` [L, 4] are where the masks were asked for: beyond, where pasting blurs them, they say nothing.
    """
    boxes = box_ops.from_masks(masks > 0.5) * scale
    boxes = torch.cat([torch.maximum(boxes[:, :2], regions[:, :2]), torch.minimum(boxes[:, 2:], regions[:, 2:])], 1)
    ratio = box_ops.area(boxes) / box_ops.area(memory.boxes[lost]).clamp(min=1)
    plausible = (ratio <= change) & (ratio >= 1 / change)
    moved = memory.boxes.clone()
    moved[lost[plausible]] = boxes[plausible]
    return replace(memory, boxes=moved), plausible


def own_probability(logits: Tensor, lost: Tensor) -> Tensor:
    """Probability [L] that each region is the object it was cut for, from match logits [L, M + 1]."""
    return logits.float().softmax(1)[torch.arange(len(lost), device=lost.device), lost + 1]
