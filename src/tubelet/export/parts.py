"""Preprocessing as a part of the exported network, with the results of `models/inputs.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.models.inputs import Images, InputConfig

HALF = 0.501  # a half plus a tolerance, so that runtimes with other rounding errors agree


class ResizeFrames(nn.Module):
    """`InputConfig.prepare` for frames of one size, as two matrix products, which all runtimes support.

    Takes frames float32 [B, 3, H, W] of 0 to 255.

    Example:
        >>> from tubelet.export.parts import ResizeFrames
        >>> from tubelet.models.inputs import InputConfig, Stretch
        >>> config = InputConfig(resize=Stretch(height=32, width=64))
        >>> resize = ResizeFrames(config, size=(45, 80))
        >>> resize(torch.zeros(1, 3, 45, 80)).pixels.shape
        torch.Size([1, 3, 32, 64])
    """

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
        # in this order, and with halves rounded up, as uint8 frames are resized
        wide = (frames @ self.columns.T + HALF).floor()
        resized = (self.rows @ wide + HALF).floor().clamp(0, 255)
        pixels = F.pad((resized - self.mean) / self.std, (0, self.padding[0], 0, self.padding[1]))
        return Images(pixels, [self.target] * len(frames), self.scale.expand(len(frames), 4))


def _resizing(before: int, after: int) -> Tensor:
    """The matrix [after, before] of a resize with antialiasing: the resized unit vectors."""
    unit = torch.eye(before)[None, None]
    return F.interpolate(unit, (after, before), mode="bilinear", align_corners=False, antialias=True)[0, 0]
