"""What follows the first attention: the bottleneck, the tag generator, the decoder of the semantic branch.

The paper names these parts and gives two of their sizes; the layers are our choice
(docs/papers/tags.md). Maps are enlarged in one of two ways:

    "transposed"   a transposed convolution; kernels of twice the stride overlap, so blocks are rare. But
                   each of its phases has weights of its own, and one that dies leaves a grid of holes
    "resize"       bilinear resizing, then a 3 x 3 convolution: the same weights for every cell
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tubelet.core.config import Config
from tubelet.core.devices import has_half_kernels
from tubelet.models.tags.encoder import start_weights

Width = Annotated[int, Field(ge=1, le=4096)]
Upsampling = Literal["transposed", "resize"]


class Bottleneck(nn.Module):
    """[B, C, T, H, W] -> the same shape, by way of maps of half the resolution.

    `skip` adds the input to the output.

    Example:
        >>> from tubelet.models.tags.heads import Bottleneck
        >>> Bottleneck(8, 12)(torch.zeros(2, 8, 3, 5, 7)).shape
        torch.Size([2, 8, 3, 5, 7])
    """

    def __init__(
        self,
        channels: int,
        between: int,
        upsampling: Upsampling = "transposed",
        *,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.skip = skip
        self.down = _then_norm(nn.Conv3d(channels, between, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False))
        self.time = _then_norm(nn.Conv3d(between, between, (3, 1, 1), 1, (1, 0, 0), bias=False))
        self.up = _then_norm(*_enlarging(between, channels, 2, upsampling, bias=False))
        start_weights(self)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve in space and time at half the resolution, then enlarge."""
        height, width = features.shape[-2:]
        up: Tensor = self.up(self.time(self.down(features)))
        up = up[..., :height, :width]  # an odd number of cells comes back as one more
        return features + up if self.skip else up


class Generator(nn.Sequential):
    """[B, C, T, H, W] -> [B, D, T, 8H, 8W], two layers: the tags, or the foreground without a decoder.

    Example:
        >>> from tubelet.models.tags.heads import Generator
        >>> Generator(8, 4, 1, "resize")(torch.zeros(2, 8, 3, 2, 3)).shape
        torch.Size([2, 1, 3, 16, 24])
    """

    def __init__(
        self,
        channels: int,
        between: int,
        dimensions: int,
        upsampling: Upsampling = "transposed",
    ) -> None:
        first = _enlarging(channels, between, 4, upsampling)
        last = _enlarging(between, dimensions, 2, upsampling)
        super().__init__(*first, nn.ReLU(inplace=True), *last)
        start_weights(self)


class DecoderConfig(Config):
    """Three doublings of the resolution; the paper gives its input's 512 channels and no more.

    Example:
        >>> from tubelet.models.tags.heads import DecoderConfig
        >>> decoder = DecoderConfig(widths=(8, 6, 4)).build(16, 3)
        >>> decoder(torch.zeros(1, 16, 2, 2, 3)).shape
        torch.Size([1, 3, 2, 16, 24])
    """

    widths: tuple[Width, Width, Width] = (256, 128, 64)

    def build(
        self,
        inside: int,
        outside: int,
        upsampling: Upsampling = "transposed",
        finer: Sequence[int] = (),
    ) -> Decoder:
        """Build the module; `finer`: channels of the encoder's finer maps, the finest first."""
        return Decoder(self, inside, outside, upsampling, finer)


class Decoder(nn.Module):
    """[B, C, T, H, W] -> [B, K, T, 8H, 8W]: three times a doubling, then a convolution in time.

    Finer maps of the encoder, where given, are projected and added after the doubling of their size.
    """

    def __init__(
        self,
        config: DecoderConfig,
        inside: int,
        outside: int,
        upsampling: Upsampling,
        finer: Sequence[int],
    ) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for width in config.widths:
            steps.append(_then_norm(*_enlarging(inside, width, 2, upsampling, bias=False)))
            steps.append(_then_norm(nn.Conv3d(width, width, (3, 1, 1), 1, (1, 0, 0), bias=False)))
            inside = width
        self.steps = nn.ModuleList(steps)
        start_weights(self)
        self.logits = nn.Conv3d(inside, outside, 1)

        coarse_to_fine = zip(reversed(finer), config.widths, strict=False)
        self.skips = nn.ModuleList(nn.Conv3d(c, width, 1) for c, width in coarse_to_fine)

    def forward(self, features: Tensor, finer: Sequence[Tensor] = ()) -> Tensor:
        """Decode; `finer` are as many of the encoder's finer maps as were announced, the finest first."""
        for n, step in enumerate(self.steps):
            features = step(features)
            doubling = n // 2
            if n % 2 == 0 and doubling < len(self.skips):
                features = features + self.skips[doubling](finer[-1 - doubling])
        logits: Tensor = self.logits(features)
        return logits


class BilinearEnlarging(nn.Module):
    """Enlarge maps [B, C, T, H, W] bilinearly in space.

    Example:
        >>> from tubelet.models.tags.heads import BilinearEnlarging
        >>> BilinearEnlarging(2)(torch.zeros(1, 8, 2, 3, 5)).shape
        torch.Size([1, 8, 2, 6, 10])
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Enlarge by the scale."""
        height, width = features.shape[-2:]
        return enlarge(features, (self.scale * height, self.scale * width))


def enlarge(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps [B, C, T, h, w] bilinearly in space, frame by frame; faster than trilinear resizing.

    Example:
        >>> from tubelet.models.tags.heads import enlarge
        >>> enlarge(torch.zeros(1, 8, 2, 3, 5), (5, 9)).shape
        torch.Size([1, 8, 2, 5, 9])
    """
    frames = features.transpose(1, 2)
    resized = F.interpolate(frames.flatten(0, 1), size, mode="bilinear", align_corners=False)
    return resized.unflatten(0, frames.shape[:2]).transpose(1, 2)


def _enlarging(
    inside: int,
    outside: int,
    stride: int,
    upsampling: Upsampling,
    *,
    bias: bool = True,
) -> list[nn.Module]:
    if upsampling == "resize":
        return [BilinearEnlarging(stride), nn.Conv3d(inside, outside, (1, 3, 3), padding=(0, 1, 1), bias=bias)]

    kernel = (1, 2 * stride, 2 * stride)
    padding = (0, stride // 2, stride // 2)
    return [_TransposedConvolution(inside, outside, kernel, (1, stride, stride), padding, bias=bias)]


class _TransposedConvolution(nn.ConvTranspose3d):
    """The layer of torch, in float32 on Apple GPUs, which have it for no half type."""

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Enlarge features [N, C, T, h, w]."""
        if has_half_kernels(features.device):
            return super().forward(features, output_size)
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float(), output_size)


def _then_norm(*layers: nn.Module) -> nn.Sequential:
    """Layers that end in a convolution, then batch norm and ReLU."""
    last = layers[-1]
    assert isinstance(last, nn.Conv3d | nn.ConvTranspose3d)
    return nn.Sequential(*layers, nn.BatchNorm3d(last.out_channels), nn.ReLU(inplace=True))
