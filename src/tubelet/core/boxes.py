"""Boxes are half-open (x1, y1, x2, y2) in pixels: x2 - x1 is the width, and a one-pixel mask has a box of area 1."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def area(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Width times height; an inside-out box has area 0."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def intersection(first: Float[Tensor, "N 4"], second: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Pairwise area that two boxes share."""
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    return (bottom_right - top_left).clamp(min=0).prod(-1)


def iou(first: Float[Tensor, "N 4"], second: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Pairwise intersection over union; 0 where both are empty."""
    overlap = intersection(first, second)
    union = area(first)[:, None] + area(second)[None] - overlap
    return torch.where(union > 0, overlap / union.clamp(min=1e-12), torch.zeros_like(overlap))


def coverage(first: Float[Tensor, "N 4"], second: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Share of each first box that lies inside each second one; 0 for an empty first box."""
    return intersection(first, second) / area(first)[:, None].clamp(min=1e-12)


def grow(boxes: Float[Tensor, "N 4"], margin: float) -> Float[Tensor, "N 4"]:
    """Boxes grown on every side by a share of their width and height."""
    if margin == 0:
        return boxes
    extent = (boxes[:, 2:] - boxes[:, :2]) * margin
    return torch.cat([boxes[:, :2] - extent, boxes[:, 2:] + extent], 1)


def from_masks(masks: Bool[Tensor, "*B H W"]) -> Float[Tensor, "*B 4"]:
    """Tight boxes of binary masks; an empty mask gives zeros."""
    height, width = masks.shape[-2:]
    rows, columns = masks.any(-1), masks.any(-2)
    y1, y2 = _extent(rows, height)
    x1, x2 = _extent(columns, width)
    return torch.stack([x1, y1, x2, y2], -1).float() * rows.any(-1, keepdim=True)


def _extent(line: Bool[Tensor, "*B L"], length: int) -> tuple[Tensor, Tensor]:
    flags = line.to(torch.uint8)
    return flags.argmax(-1), length - flags.flip(-1).argmax(-1)
