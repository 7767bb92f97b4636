"""From decoded frames to network input: the one place where pixels are resized and normalised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torchvision.transforms.v2 import functional as TV

from tubelet.core.config import Config
from tubelet.core.errors import InputError

Spread = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class Images:
    """B normalised images in one tensor, padded right and bottom."""

    pixels: Tensor  # [B, 3, H, W]
    sizes: list[tuple[int, int]]  # height, width of each without padding
    scales: Tensor  # [B, 4]: input = frame * scale, for boxes (x1, y1, x2, y2)

    def at(self, *images: int) -> Images:
        """Some of them, in that order, in a tensor of the same size."""
        rows = list(images)
        return Images(self.pixels[rows], [self.sizes[i] for i in rows], self.scales[rows])


class KeepRatio(Config):
    """Shrink or enlarge so that the long side is at most `long` and the short side at most `short`, then pad."""

    kind: Literal["keep_ratio"] = "keep_ratio"
    long: int = Field(default=640, ge=16, le=8192)
    short: int = Field(default=360, ge=16, le=8192)
    multiple: int = Field(default=32, ge=1, le=256)  # padded to a multiple of this

    def target(self, height: int, width: int) -> tuple[int, int]:
        scale = min(self.long / max(height, width), self.short / min(height, width))
        return max(round(height * scale), 1), max(round(width * scale), 1)

    def at_short(self, short: int) -> KeepRatio:
        """The same with another limit of the short side."""
        return KeepRatio(long=self.long, short=short, multiple=self.multiple)


class Stretch(Config):
    """Squeeze every frame to one size, whatever its ratio."""

    kind: Literal["stretch"] = "stretch"
    height: int = Field(default=300, ge=32, le=8192)
    width: int = Field(default=300, ge=32, le=8192)
    multiple: int = Field(default=1, ge=1, le=256)

    def target(self, height: int, width: int) -> tuple[int, int]:
        return self.height, self.width

    def at_short(self, short: int) -> KeepRatio:
        """A stretched frame has no short side of its own: raises InputError."""
        raise InputError("another short side needs input.resize.kind=keep_ratio")


class KeepArea(Config):
    """Bring every frame to about the same area and keep its ratio, to the nearest sides that fit the strides.

    Example:
        >>> from tubelet.models.inputs import KeepArea
        >>> KeepArea(area=416 * 416).target(1080, 1920)
        (320, 544)
    """

    kind: Literal["keep_area"] = "keep_area"
    area: int = Field(default=416 * 416, ge=64 * 64, le=8192 * 8192)  # pixels
    multiple: int = Field(default=32, ge=1, le=256)  # of each side

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the input for a frame of the given height and width."""
        scale = math.sqrt(self.area / (height * width))
        return self._side(height * scale), self._side(width * scale)

    def _side(self, length: float) -> int:
        return max(round(length / self.multiple), 1) * self.multiple

    def at_short(self, short: int) -> KeepRatio:
        """A frame of constant area has no short side of its own: raises InputError."""
        raise InputError("another short side needs input.resize.kind=keep_ratio")


class InputConfig(Config):
    """How frames become network input; mean and std in units of 0..255, RGB."""

    resize: Annotated[KeepRatio | Stretch | KeepArea, Field(discriminator="kind")] = KeepRatio()
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[Spread, Spread, Spread] = (58.395, 57.12, 57.375)

    def at_short(self, short: int) -> InputConfig:
        """The same input at another short side; raises InputError for frames that are stretched."""
        return InputConfig(resize=self.resize.at_short(short), mean=self.mean, std=self.std)

    def unresized(self, size: tuple[int, int]) -> InputConfig:
        """The same input for frames of a size (height, width) that stay as they are."""
        resize = KeepRatio.model_construct(long=max(size), short=min(size), multiple=self.resize.multiple)
        return InputConfig(resize=resize, mean=self.mean, std=self.std)

    def prepare(self, clips: Sequence[Tensor]) -> Images:
        """uint8 frames [T_i, 3, H_i, W_i] of several clips -> one batch of B = sum T_i images."""
        resized = [_resize(frames, self.resize.target(*frames.shape[-2:])) for frames in clips]
        sizes = [(r.shape[-2], r.shape[-1]) for r in resized]
        multiple = self.resize.multiple
        height = -(-max(h for h, _ in sizes) // multiple) * multiple
        width = -(-max(w for _, w in sizes) // multiple) * multiple
        mean, std = (clips[0].new_tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (self.mean, self.std))
        pixels = [F.pad((r.float() - mean) / std, (0, width - r.shape[-1], 0, height - r.shape[-2])) for r in resized]
        scales = [
            torch.tensor([w / f.shape[-1], h / f.shape[-2]] * 2).expand(len(f), 4)
            for f, (h, w) in zip(clips, sizes, strict=True)
        ]
        counted = [size for f, size in zip(clips, sizes, strict=True) for _ in range(len(f))]
        return Images(torch.cat(pixels), counted, torch.cat(scales).to(clips[0].device))


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(frames.shape[-2:]) == size:
        return frames
    return TV.resize(frames, list(size), antialias=True)
