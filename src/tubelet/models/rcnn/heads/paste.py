"""Paste the masks of regions into whole frames.

Letters: R regions, N objects, r cells of a mask's side, H and W the frame's size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import expand_boxes, expand_masks


class Extent(NamedTuple):
    """A part of a frame, in whole pixels; right and bottom are not in it.

    Example:
        >>> from tubelet.models.rcnn.heads.paste import Extent
        >>> Extent(left=1, top=0, right=3, bottom=2).of(torch.arange(12).view(3, 4))
        tensor([[1, 2],
                [5, 6]])
    """

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether it has no pixel."""
        return self.left >= self.right or self.top >= self.bottom

    def of(self, frame: Tensor) -> Tensor:
        """Return the part of a frame [H, W], without a copy."""
        return frame[self.top : self.bottom, self.left : self.right]

    def joined(self, other: Extent) -> Extent:
        """Return the smallest extent around both."""
        if self.is_empty:
            return other
        return Extent(
            left=min(self.left, other.left),
            top=min(self.top, other.top),
            right=max(self.right, other.right),
            bottom=max(self.bottom, other.bottom),
        )


class FrameMasks(NamedTuple):
    """Mask probabilities of N objects in a whole frame, on the CPU; each is 0 outside of its extent."""

    probabilities: Tensor  # [N, H, W]
    extents: list[Extent]

    @classmethod
    def none(cls, size: tuple[int, int]) -> FrameMasks:
        """Return the masks of no objects."""
        return cls(torch.zeros(0, *size), [])

    def part(self, objects: slice) -> FrameMasks:
        """Return the masks of some of the objects, without a copy."""
        return FrameMasks(self.probabilities[objects], self.extents[objects])


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int], owners: Sequence[int] | None = None) -> FrameMasks:
    """Resize the masks of regions [R, r, r] to their boxes [R, 4] in whole frames.

    Boxes are in pixels of a frame of `size` (H, W); parts outside the frame are cropped. A mask
    equals that of torchvision's `paste_masks_in_image` (one cell of padding, corners truncated to
    whole pixels), but all are written into one canvas.

    Args:
        masks: Probabilities.
        boxes: Corners of the regions.
        size: Height and width of the frame.
        owners: Number of each region's object, 0 to N - 1; the masks of an object are averaged.
            None: every region is an object of its own.

    Example:
        >>> from tubelet.models.rcnn.heads.paste import paste
        >>> frames = paste(torch.ones(1, 4, 4), torch.tensor([[1.0, 1.0, 4.0, 3.0]]), (4, 6))
        >>> (frames.probabilities[0] > 0.5).long()
        tensor([[0, 0, 0, 0, 0, 0],
                [0, 1, 1, 1, 0, 0],
                [0, 1, 1, 1, 0, 0],
                [0, 0, 0, 0, 0, 0]])
    """
    owners = range(len(masks)) if owners is None else owners
    views = Counter(owners)
    canvas = masks.new_zeros(len(views), *size)
    extents = [Extent()] * len(views)

    padded, stretch = expand_masks(masks[:, None], padding=1)
    corners = expand_boxes(boxes, stretch).to(torch.int64).tolist()

    for i, (owner, (x1, y1, x2, y2)) in enumerate(zip(owners, corners, strict=True)):
        extent = Extent(max(x1, 0), max(y1, 0), min(x2 + 1, size[1]), min(y2 + 1, size[0]))
        if extent.is_empty:
            continue

        box_size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        resized = F.interpolate(padded[i : i + 1], size=box_size, mode="bilinear", align_corners=False)[0, 0]
        in_frame = Extent(extent.left - x1, extent.top - y1, extent.right - x1, extent.bottom - y1).of(resized)
        if views[owner] == 1:
            extent.of(canvas[owner]).copy_(in_frame)
        else:
            extent.of(canvas[owner]).add_(in_frame, alpha=1 / views[owner])
        extents[owner] = extents[owner].joined(extent)

    return FrameMasks(canvas, extents)
