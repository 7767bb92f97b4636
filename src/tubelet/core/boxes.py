"""Areas, IoUs and tight boxes of masks.

Boxes are (x1, y1, x2, y2) in pixels, half-open: x2 - x1 is the width, and the box of a mask of one
pixel has area 1.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def area(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Compute width times height; 0 if x2 < x1 or y2 < y1.

    Example:
        >>> from tubelet.core.boxes import area
        >>> area(torch.tensor([[1.0, 1.0, 4.0, 3.0]]))
        tensor([6.])
    """
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def intersection(first: Float[Tensor, "N 4"], second: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Compute the area of intersection of each pair of boxes.

    Example:
        >>> from tubelet.core.boxes import intersection
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]])
        >>> intersection(boxes[:1], boxes)
        tensor([[4., 2.]])
    """
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    return (bottom_right - top_left).clamp(min=0).prod(-1)


def iou(first: Float[Tensor, "N 4"], second: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Compute the intersection over union of each pair of boxes; 0 if both are empty.

    Example:
        >>> from tubelet.core.boxes import iou
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 2.0]])
        >>> iou(boxes[:1], boxes)
        tensor([[1.0000, 0.5000]])
    """
    overlap = intersection(first, second)
    union = area(first)[:, None] + area(second)[None] - overlap
    return torch.where(union > 0, overlap / union.clamp(min=1e-12), torch.zeros_like(overlap))


def coverage(first: Float[Tensor, "N 4"], second: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Compute which share of each first box is inside each second box; 0 for an empty first box.

    Example:
        >>> from tubelet.core.boxes import coverage
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 2.0]])
        >>> coverage(boxes, boxes)
        tensor([[1.0000, 0.5000],
                [1.0000, 1.0000]])
    """
    return intersection(first, second) / area(first)[:, None].clamp(min=1e-12)


def grow(boxes: Float[Tensor, "N 4"], margin: float) -> Float[Tensor, "N 4"]:
    """Enlarge boxes on every side by `margin` times their width or height.

    Example:
        >>> from tubelet.core.boxes import grow
        >>> grow(torch.tensor([[4.0, 4.0, 8.0, 6.0]]), margin=0.5)
        tensor([[ 2.,  3., 10.,  7.]])
    """
    if margin == 0:
        return boxes
    extent = (boxes[:, 2:] - boxes[:, :2]) * margin
    return torch.cat([boxes[:, :2] - extent, boxes[:, 2:] + extent], 1)


def from_masks(masks: Bool[Tensor, "*B H W"]) -> Float[Tensor, "*B 4"]:
    """Compute the tight boxes of binary masks; zeros for an empty mask.

    Example:
        >>> from tubelet.core.boxes import from_masks
        >>> masks = torch.zeros(1, 4, 6, dtype=torch.bool)
        >>> masks[0, 1:3, 2:5] = True
        >>> from_masks(masks)
        tensor([[2., 1., 5., 3.]])
    """
    height, width = masks.shape[-2:]
    rows = masks.any(-1)
    columns = masks.any(-2)
    y1, y2 = _extent(rows, height)
    x1, x2 = _extent(columns, width)
    return torch.stack([x1, y1, x2, y2], -1).float() * rows.any(-1, keepdim=True)


def _extent(line: Bool[Tensor, "*B L"], length: int) -> tuple[Tensor, Tensor]:
    """The position of the first True, and one past the last."""
    flags = line.to(torch.uint8)
    begin = flags.argmax(-1)
    end = length - flags.flip(-1).argmax(-1)
    return begin, end
