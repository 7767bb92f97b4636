"""Paste the masks of regions into whole frames.

Letters: N regions, r cells of a mask's side, H and W the frame's size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import expand_boxes, expand_masks


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize the masks of regions [N, r, r] to their boxes [N, 4] in whole frames, [N, H, W].

    Boxes are in pixels of a frame of `size` (H, W); parts outside the frame are cropped. The result
    equals torchvision's `paste_masks_in_image` (one cell of padding, corners truncated to whole
    pixels), but is written into one canvas.

    Example:
        >>> from tubelet.models.rcnn.heads.paste import paste
        >>> frames = paste(torch.ones(1, 4, 4), torch.tensor([[1.0, 1.0, 4.0, 3.0]]), (4, 6))
        >>> (frames[0] > 0.5).long()
        tensor([[0, 0, 0, 0, 0, 0],
                [0, 1, 1, 1, 0, 0],
                [0, 1, 1, 1, 0, 0],
                [0, 0, 0, 0, 0, 0]])
    """
    canvas = masks.new_zeros(len(masks), *size)
    height, width = size

    padded, stretch = expand_masks(masks[:, None], padding=1)
    corners = expand_boxes(boxes, stretch).to(torch.int64).tolist()

    for i, (x1, y1, x2, y2) in enumerate(corners):
        left = max(x1, 0)
        top = max(y1, 0)
        right = min(x2 + 1, width)
        bottom = min(y2 + 1, height)
        if left >= right or top >= bottom:
            continue

        box_size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        resized = F.interpolate(padded[i : i + 1], size=box_size, mode="bilinear", align_corners=False)
        mask = resized[0, 0]
        canvas[i, top:bottom, left:right] = mask[top - y1 : bottom - y1, left - x1 : right - x1]

    return canvas
