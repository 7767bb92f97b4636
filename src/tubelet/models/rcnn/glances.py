"""Attention weights as `Glance`s, cut to the image: shared by all plugs with attention."""

from __future__ import annotations

import torch
from torch import Tensor

from tubelet.core.protocol import Glance
from tubelet.models.rcnn.context import FrameFeatures

Point = tuple[float, float]  # x, y in input pixels


def cell_at(at: Point, maps: Tensor, stride: int) -> Tensor:
    """Return the row-major index [1] of the cell of maps [..., h, w] that contains a point.

    Example:
        >>> from tubelet.models.rcnn.glances import cell_at
        >>> cell_at((9.0, 5.0), torch.zeros(1, 8, 3, 4), stride=4)  # column 2, row 1
        tensor([6])
    """
    height, width = maps.shape[-2:]
    x = min(int(at[0] / stride), width - 1)
    y = min(int(at[1] / stride), height - 1)
    return torch.tensor([y * width + x], device=maps.device)


def glances_over(name: str, weights: Tensor, frames: list[FrameFeatures], stride: int) -> list[Glance]:
    """Make a `Glance` of each frame's attention weights, without the cells of padding.

    Args:
        name: Of the attention.
        weights: Over the padded maps of S frames, [S, h, w].
        frames: The S frames.
        stride: Input pixels per cell.

    Example:
        >>> from tubelet.models.rcnn.context import FrameFeatures
        >>> from tubelet.models.rcnn.glances import glances_over
        >>> frame = FrameFeatures(index=3, maps=[], size=(8, 12))
        >>> (glance,) = glances_over("STA", torch.zeros(1, 4, 4), [frame], stride=4)
        >>> glance.frame, glance.values.shape
        (3, torch.Size([2, 3]))
    """
    glances = []
    for values, frame in zip(weights, frames, strict=True):
        height, width = (-(-side // stride) for side in frame.size)
        cut = values[:height, :width].float()
        glances.append(Glance(name=name, frame=frame.index, values=cut))
    return glances
