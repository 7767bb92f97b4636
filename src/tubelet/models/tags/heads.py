"""What follows the first attention: the bottleneck, the tag generator, the decoder of the semantic branch.

The paper names these parts and gives two of their sizes; the layers are our choice (docs/papers/tags.md). Transposed
convolutions overlap (a kernel of twice the stride), so that their output has no blocks in it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from tubelet.core.config import Config
from tubelet.models.tags.encoder import start_weights

Width = Annotated[int, Field(ge=1, le=4096)]


class Bottleneck(nn.Module):
    """[B, C, T, H, W] -> the same shape, by way of maps of half the resolution: a (2+1)D convolution and back."""

    def __init__(self, channels: int, between: int) -> None:
        super().__init__()
        self.down = _then_norm(nn.Conv3d(channels, between, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False))
        self.time = _then_norm(nn.Conv3d(between, between, (3, 1, 1), 1, (1, 0, 0), bias=False))
        self.up = _then_norm(_enlarging(between, channels, 2, bias=False))
        start_weights(self)

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        up: Tensor = self.up(self.time(self.down(features)))
        return up[..., :height, :width]  # an odd number of cells comes back as one more


class Generator(nn.Sequential):
    """[B, C, T, H, W] -> [B, D, T, 8H, 8W], two layers: of tags; of the foreground where no decoder is."""

    def __init__(self, channels: int, between: int, dimensions: int) -> None:
        super().__init__(_enlarging(channels, between, 4), nn.ReLU(inplace=True), _enlarging(between, dimensions, 2))
        start_weights(self)


class DecoderConfig(Config):
    """Three doublings of the resolution; the paper gives its input's 512 channels and no more."""

    widths: tuple[Width, Width, Width] = (256, 128, 64)

    def build(self, inside: int, outside: int) -> Decoder:
        return Decoder(self, inside, outside)


class Decoder(nn.Module):
    """[B, C, T, H, W] -> logits [B, K, T, 8H, 8W]: in space, then in time, three times over."""

    def __init__(self, config: DecoderConfig, inside: int, outside: int) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for width in config.widths:
            steps.append(_then_norm(_enlarging(inside, width, 2, bias=False)))
            steps.append(_then_norm(nn.Conv3d(width, width, (3, 1, 1), 1, (1, 0, 0), bias=False)))
            inside = width
        self.steps = nn.Sequential(*steps)
        start_weights(self)
        self.logits = nn.Conv3d(inside, outside, 1)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.logits(self.steps(features))
        return logits


def _enlarging(inside: int, outside: int, stride: int, *, bias: bool = True) -> nn.ConvTranspose3d:
    kernel, padding = (1, 2 * stride, 2 * stride), (0, stride // 2, stride // 2)
    return nn.ConvTranspose3d(inside, outside, kernel, (1, stride, stride), padding, bias=bias)


def _then_norm(convolution: nn.Conv3d | nn.ConvTranspose3d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm3d(convolution.out_channels), nn.ReLU(inplace=True))
