"""Masks of regions, stretched over their boxes in whole frames.

Letters: N regions, r cells of a mask's side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import expand_boxes, expand_masks


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks of regions [N, r, r] stretched over their boxes [N, 4] in whole frames, [N, H, W].

    Equal to torchvision's paste_masks_in_image (one cell of padding, whole pixels), but written into one canvas.
    """
    canvas = masks.new_zeros(len(masks), *size)
    padded, stretch = expand_masks(masks[:, None], padding=1)
    corners = expand_boxes(boxes, stretch).to(torch.int64).tolist()
    height, width = size
    for i, (x1, y1, x2, y2) in enumerate(corners):
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2 + 1, width), min(y2 + 1, height)
        if left >= right or top >= bottom:
            continue
        whole = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        mask = F.interpolate(padded[i : i + 1], size=whole, mode="bilinear", align_corners=False)[0, 0]
        canvas[i, top:bottom, left:right] = mask[top - y1 : bottom - y1, left - x1 : right - x1]
    return canvas
