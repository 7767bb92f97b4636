"""From frames to network input without this package: the same results as `models/inputs.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.models.inputs import Images, InputConfig

HALF = 0.501  # a half, and what two programs may differ by in computing one


class Resize(nn.Module):
    """`InputConfig.prepare` for frames [B, 3, H, W] of one size: two products with matrices, which run anywhere."""

    rows: Tensor  # [h, H]
    columns: Tensor  # [w, W]
    mean: Tensor
    std: Tensor
    scale: Tensor  # [1, 4]

    def __init__(self, config: InputConfig, size: tuple[int, int]) -> None:
        super().__init__()
        self.target = config.resize.target(*size)
        multiple = config.resize.multiple
        self.padding = tuple(-side % multiple for side in reversed(self.target))  # right, below
        self.register_buffer("rows", _resizing(size[0], self.target[0]))
        self.register_buffer("columns", _resizing(size[1], self.target[1]))
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1))
        scale = torch.tensor([self.target[1] / size[1], self.target[0] / size[0]] * 2)
        self.register_buffer("scale", scale[None])

    def forward(self, frames: Tensor) -> Images:
        # in this order, and halves rounded up, as whole numbers are resized
        wide = (frames @ self.columns.T + HALF).floor()
        resized = (self.rows @ wide + HALF).floor().clamp(0, 255)
        pixels = F.pad((resized - self.mean) / self.std, (0, self.padding[0], 0, self.padding[1]))
        return Images(pixels, [self.target] * len(frames), self.scale.expand(len(frames), 4))


def _resizing(before: int, after: int) -> Tensor:
    """The matrix [after, before] of a resize with antialiasing: what becomes of each unit vector."""
    unit = torch.eye(before)[None, None]
    return F.interpolate(unit, (after, before), mode="bilinear", align_corners=False, antialias=True)[0, 0]
