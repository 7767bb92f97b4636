"""R(2+1)D up to conv4, without its temporal strides: a clip in, one feature map per frame out.

Blocks and names are torchvision's r2plus1d_18 (stem, layer1, layer2, layer3), whose weights on Kinetics-400 load by
name: a stride has no weights. Source: Tran et al., A Closer Look at Spatiotemporal Convolutions, CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

from tubelet.core.config import Config
from tubelet.models.backbones import hold_norms

Blocks = Annotated[int, Field(ge=1, le=64)]
MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)  # of Kinetics-400, for pixels in 0..1


class EncoderConfig(Config):
    """18 layers at full width, as in the paper's cost; narrower ones learn on a CPU."""

    width: int = Field(default=64, ge=4, le=512)  # channels of the stem; layer2 and layer3 have two and four times it
    blocks: tuple[Blocks, Blocks, Blocks] = (2, 2, 2)  # of layer1, layer2, layer3
    pool: bool = True  # halve once more after the stem: cells of 16 pixels instead of 8
    frozen_norm: bool = True  # batch norm keeps its statistics: batches are tiny

    def build(self) -> ClipEncoder:
        return ClipEncoder(self)


class ClipEncoder(nn.Module):
    """[B, 3, T, H, W] -> [B, 4 width, T, H / stride, W / stride]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stride, self.channels = (16 if config.pool else 8), 4 * config.width
        self.stem = _stem(config.width)
        self.pool = nn.MaxPool3d((1, 2, 2)) if config.pool else nn.Identity()
        self.layer1 = _layer(config.width, config.width, config.blocks[0], stride=1)
        self.layer2 = _layer(config.width, 2 * config.width, config.blocks[1], stride=2)
        self.layer3 = _layer(2 * config.width, 4 * config.width, config.blocks[2], stride=2)
        start_weights(self)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.layer3(self.layer2(self.layer1(self.pool(self.stem(pixels)))))
        return features

    def train(self, mode: bool = True) -> ClipEncoder:
        super().train(mode)
        if self.config.frozen_norm:
            hold_norms(self)
        return self


class SpaceThenTime(Conv2Plus1D):
    """A convolution in space, then one in time, which keeps every frame whatever the stride in space."""

    def __init__(self, inside: int, outside: int, between: int, stride: int = 1, padding: int = 1) -> None:
        super().__init__(inside, outside, between, stride, padding)
        self[3].stride = (1, 1, 1)


def start_weights(module: nn.Module) -> None:
    """He's start for convolutions before a ReLU, as torchvision's video networks have it."""
    for child in module.modules():
        if isinstance(child, nn.Conv3d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
            if child.bias is not None:
                nn.init.zeros_(child.bias)


def norm_by_clip(module: nn.Module) -> None:
    """Replace batch norms by norms over each clip alone, without running statistics."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d):
            setattr(module, name, nn.InstanceNorm3d(child.num_features, affine=True))
        else:
            norm_by_clip(child)


def from_torchvision_video(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's r2plus1d_18, tensor by tensor, onto a tag-based model; layer4 and the classifier are left out."""
    parts = ("stem.", "layer1.", "layer2.", "layer3.")
    return {f"network.encoder.{key}": tensor for key, tensor in tensors.items() if key.startswith(parts)}


def _stem(width: int) -> nn.Sequential:
    between = 45 * width // 64  # torchvision's 45 for 64
    return nn.Sequential(
        nn.Conv3d(3, between, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
        nn.BatchNorm3d(between),
        nn.ReLU(inplace=True),
        nn.Conv3d(between, width, (3, 1, 1), 1, (1, 0, 0), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )


def _layer(inside: int, outside: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or inside != outside:
        convolution = nn.Conv3d(inside, outside, 1, (1, stride, stride), bias=False)
        shortcut = nn.Sequential(convolution, nn.BatchNorm3d(outside))
    first = BasicBlock(inside, outside, SpaceThenTime, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outside, outside, SpaceThenTime) for _ in range(blocks - 1)))
