"""Suppression with fixed shapes, for files: the same boxes as by the loop that it stands for.

Letters: N boxes, D detections.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tubelet.core import boxes as box_ops

CANDIDATES = 1000  # boxes that suppression looks at, those with the best scores
NOTHING = -1.0  # the score of what is no candidate


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor | None, overlap: float, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` boxes [N, 4] that greedy suppression within groups keeps: positions, and which there are.

    Scores below 0 are no candidates. Nothing here depends on the data but values, so that it can be written to a file.
    """
    hidden = box_ops.iou(boxes, boxes) > overlap
    if groups is not None:
        hidden = hidden & (groups[:, None] == groups)
    hidden = hidden | torch.eye(len(boxes), dtype=torch.bool, device=boxes.device)
    left, kept, there = scores, [], []
    for _ in range(count):
        best = left.argmax(0, keepdim=True)
        kept.append(best)
        there.append(left[best] >= 0)
        left = left.masked_fill(hidden[best][0], NOTHING)
    return torch.cat(kept), torch.cat(there)
