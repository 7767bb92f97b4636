"""Where a plug's attention looks, put into the form that is drawn: shared by every plug that can tell."""

from __future__ import annotations

import torch
from torch import Tensor

from tubelet.core.protocol import Glance
from tubelet.models.rcnn.context import Kept

Point = tuple[float, float]  # x, y in input pixels


def cell_at(at: Point, maps: Tensor, stride: int) -> Tensor:
    """The number, row by row, of the cell of a map [..., h, w] that holds the point, [1]."""
    height, width = maps.shape[-2:]
    x = min(int(at[0] / stride), width - 1)
    y = min(int(at[1] / stride), height - 1)
    return torch.tensor([y * width + x], device=maps.device)


def glances_over(name: str, weights: Tensor, frames: list[Kept], stride: int) -> list[Glance]:
    """Weights [S, h, w] over the padded maps of S frames, cut to what shows image."""
    glances = []
    for values, frame in zip(weights, frames, strict=True):
        height, width = (-(-side // stride) for side in frame.size)
        glances.append(Glance(name=name, frame=frame.index, values=values[:height, :width].float()))
    return glances
