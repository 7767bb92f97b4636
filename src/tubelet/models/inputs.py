"""From decoded frames to network input: the only place where pixels are resized and normalised."""

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
    """B normalised images in one tensor, padded at the right and the bottom.

    Example:
        >>> from tubelet.models.inputs import InputConfig
        >>> frames = torch.zeros(2, 3, 90, 160, dtype=torch.uint8)
        >>> images = InputConfig().prepare([frames])
        >>> images.pixels.shape, images.sizes
        (torch.Size([2, 3, 384, 640]), [(360, 640), (360, 640)])
        >>> images.at(1).pixels.shape
        torch.Size([1, 3, 384, 640])
    """

    pixels: Tensor  # [B, 3, H, W]
    sizes: list[tuple[int, int]]  # height and width of each image, without padding
    scales: Tensor  # [B, 4], on the CPU: input = frame * scale, for boxes (x1, y1, x2, y2)

    def at(self, *images: int) -> Images:
        """Select images by their numbers, in that order."""
        if images == tuple(range(len(self.sizes))):
            return self
        rows = list(images)
        sizes = [self.sizes[i] for i in rows]
        return Images(self.pixels[rows], sizes, self.scales[rows])


class KeepRatio(Config):
    """Resize to a long side of at most `long` and a short side of at most `short`, then pad.

    Example:
        >>> from tubelet.models.inputs import KeepRatio
        >>> KeepRatio(long=640, short=360).target(height=1080, width=1920)
        (360, 640)
    """

    kind: Literal["keep_ratio"] = "keep_ratio"
    long: int = Field(default=640, ge=16, le=8192)
    short: int = Field(default=360, ge=16, le=8192)
    multiple: int = Field(default=32, ge=1, le=256)  # sides are padded to a multiple of this

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that a frame of this size is resized to."""
        scale = min(self.long / max(height, width), self.short / min(height, width))
        return max(round(height * scale), 1), max(round(width * scale), 1)

    def at_short(self, short: int) -> KeepRatio:
        """Return the same settings with another limit of the short side."""
        return KeepRatio(long=self.long, short=short, multiple=self.multiple)


class Stretch(Config):
    """Resize every frame to one size, whatever its aspect ratio.

    Example:
        >>> from tubelet.models.inputs import Stretch
        >>> Stretch(height=300, width=300).target(height=1080, width=1920)
        (300, 300)
    """

    kind: Literal["stretch"] = "stretch"
    height: int = Field(default=300, ge=32, le=8192)
    width: int = Field(default=300, ge=32, le=8192)
    multiple: int = Field(default=1, ge=1, le=256)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Return the configured height and width."""
        return self.height, self.width

    def at_short(self, short: int) -> KeepRatio:
        """Raise InputError: a stretched frame has no short side of its own."""
        raise InputError("another short side needs input.resize.kind=keep_ratio")


class Fit(Config):
    """Resize to the largest size with the frame's ratio that fits into `height` x `width`.

    Example:
        >>> from tubelet.models.inputs import Fit
        >>> Fit(height=640, width=640).target(height=1080, width=1920)
        (360, 640)
    """

    kind: Literal["fit"] = "fit"
    height: int = Field(default=640, ge=16, le=8192)
    width: int = Field(default=640, ge=16, le=8192)
    multiple: int = Field(default=1, ge=1, le=256)  # sides are padded to a multiple of this

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that a frame of this size is resized to."""
        scale = min(self.height / height, self.width / width)
        return max(round(height * scale), 1), max(round(width * scale), 1)

    def at_short(self, short: int) -> KeepRatio:
        """Raise InputError: the size that frames are fitted into has no short side of its own."""
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
    """How frames become network input; `mean` and `std` are RGB in units of 0..255.

    Example:
        >>> from tubelet.models.inputs import InputConfig, Stretch
        >>> frames = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
        >>> resize = Stretch(height=32, width=32)
        >>> config = InputConfig(resize=resize, mean=(127.5,) * 3, std=(127.5,) * 3)
        >>> config.prepare([frames]).pixels[0, :, 0, 0]
        tensor([1., 1., 1.])
    """

    resize: Annotated[KeepRatio | Stretch | Fit | KeepArea, Field(discriminator="kind")] = KeepRatio()
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[Spread, Spread, Spread] = (58.395, 57.12, 57.375)

    def at_short(self, short: int) -> InputConfig:
        """Return the same settings at another short side; raises InputError for Stretch."""
        return InputConfig(resize=self.resize.at_short(short), mean=self.mean, std=self.std)

    def unresized(self, size: tuple[int, int]) -> InputConfig:
        """Return settings that leave frames of this size (height, width) as they are."""
        multiple = self.resize.multiple
        # model_construct, because a training clip may be smaller than the limits of the fields
        resize = KeepRatio.model_construct(long=max(size), short=min(size), multiple=multiple)
        return InputConfig(resize=resize, mean=self.mean, std=self.std)

    def prepare(self, clips: Sequence[Tensor]) -> Images:
        """Resize, normalise and pad the frames of several clips into one batch.

        Args:
            clips: uint8 frames [T_i, 3, H_i, W_i] of each clip.

        Returns:
            B = sum T_i images.
        """
        resized = [_resize(frames, self.resize.target(*frames.shape[-2:])) for frames in clips]
        height = _round_up(max(frames.shape[-2] for frames in resized), self.resize.multiple)
        width = _round_up(max(frames.shape[-1] for frames in resized), self.resize.multiple)
        mean = clips[0].new_tensor(self.mean, dtype=torch.float32).view(3, 1, 1)
        std = clips[0].new_tensor(self.std, dtype=torch.float32).view(3, 1, 1)

        pixels: list[Tensor] = []
        sizes: list[tuple[int, int]] = []
        scales: list[Tensor] = []
        for frames, source in zip(resized, clips, strict=True):
            h, w = frames.shape[-2:]
            normalised = (frames.float() - mean) / std
            pixels.append(F.pad(normalised, (0, width - w, 0, height - h)))
            sizes += [(h, w)] * len(frames)
            scale = torch.tensor([w / source.shape[-1], h / source.shape[-2]] * 2)
            scales.append(scale.expand(len(frames), 4))
        return Images(torch.cat(pixels), sizes, torch.cat(scales))


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(frames.shape[-2:]) == size:
        return frames
    return TV.resize(frames, list(size), antialias=True)
