"""Box suppression with fixed shapes, for export to files; it keeps the same boxes as greedy suppression.

Letters: N boxes, D detections.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tubelet.core import boxes as box_ops

CANDIDATES = 1000  # boxes with the best scores, the only ones that enter suppression
NOTHING = -1.0  # score of a row that is not a candidate


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor | None, overlap: float, count: int) -> tuple[Tensor, Tensor]:
    """Select the first `count` boxes that greedy suppression within groups keeps.

    The shapes depend on the arguments' shapes and `count` only, never on values, so the operation can be exported.

    Args:
        boxes: corners [N, 4].
        scores: [N]; a box with a score below 0 is not a candidate.
        groups: [N], only boxes of the same group suppress each other; None for one group of all boxes.
        overlap: IoU above which the weaker of two boxes is dropped, from 0 to 1.
        count: number D of rows to return.

    Returns positions of the boxes, best first, int64 [D], and whether each row is a kept box, bool [D].

    Example:
        >>> from tubelet.models.rcnn.detectors.fixed_shapes import suppress
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [1, 0, 10, 10]])
        >>> positions, exists = suppress(boxes, torch.tensor([0.8, 0.3, 0.9]), None, overlap=0.5, count=3)
        >>> positions[exists].tolist(), exists.tolist()
        ([2, 1], [True, True, False])
    """
    suppressed = box_ops.iou(boxes, boxes) > overlap
    if groups is not None:
        suppressed = suppressed & (groups[:, None] == groups)
    suppressed = suppressed | torch.eye(len(boxes), dtype=torch.bool, device=boxes.device)

    remaining = scores
    positions = []
    exists = []
    for _ in range(count):
        best = remaining.argmax(0, keepdim=True)
        positions.append(best)
        exists.append(remaining[best] >= 0)
        remaining = remaining.masked_fill(suppressed[best][0], NOTHING)

    return torch.cat(positions), torch.cat(exists)
