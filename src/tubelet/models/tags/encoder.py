"""Encoders of clips: a clip in, feature maps of every frame out.

The socket (`ClipEncoderConfig`, `ClipEncoder`) and the paper's encoder, R(2+1)D up to conv4 without
its temporal strides. Its blocks and names are torchvision's r2plus1d_18 (stem, layer1, layer2,
layer3), whose weights on Kinetics-400 load by name: a stride has no weights. A pretrained image
network as encoder: trunk.py.

Source: Tran et al., A Closer Look at Spatiotemporal Convolutions, CVPR 2018.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

from tubelet.core.config import Config
from tubelet.core.plugs import PlugConfig
from tubelet.models.backbones import hold_norms

Blocks = Annotated[int, Field(ge=1, le=64)]
Deviation = Annotated[float, Field(gt=0)]


class PixelStatistics(Config):
    """Mean and standard deviation of pixels in 0..1, per colour.

    Example:
        >>> from tubelet.models.tags.encoder import PixelStatistics
        >>> PixelStatistics().mean[0]  # of Kinetics-400
        0.43216
    """

    mean: tuple[float, float, float] = (0.43216, 0.394666, 0.37645)
    std: tuple[Deviation, Deviation, Deviation] = (0.22803, 0.22145, 0.216989)


class ClipEncoderConfig(PlugConfig):
    """Socket of the encoder; a config without `kind` is of the paper's."""

    default_kind: ClassVar[str | None] = "r2plus1d"

    pixels: PixelStatistics = PixelStatistics()

    @property
    @abstractmethod
    def stride(self) -> int:
        """Pixels along each side of a cell of the coarsest map."""

    @abstractmethod
    def build(self, *, finer_maps: bool = True) -> ClipEncoder:
        """Build the module; without finer maps, what only serves them is left out."""


class ClipEncoder(nn.Module, ABC):
    """[B, 3, T, H, W] -> maps [B, C, T, h, w], the coarsest last, each twice as fine as the next.

    Without finer maps there is only the coarsest; `channels` are those of the maps.
    """

    channels: tuple[int, ...]

    @abstractmethod
    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Encode normalised pixels, whose sides are multiples of the stride."""


class EncoderConfig(ClipEncoderConfig):
    """R(2+1)D: 18 layers at full width, as the paper's cost says; narrower ones train on a CPU.

    Example:
        >>> from tubelet.models.tags.encoder import EncoderConfig
        >>> encoder = EncoderConfig(width=4, blocks=(1, 1, 1)).build()
        >>> [tuple(maps.shape[1:]) for maps in encoder(torch.zeros(1, 3, 2, 32, 48))]
        [(4, 2, 8, 12), (8, 2, 4, 6), (16, 2, 2, 3)]
    """

    kind: Literal["r2plus1d"] = "r2plus1d"
    width: int = Field(default=64, ge=4, le=512)  # channels of the stem; layer2 and layer3 double them
    blocks: tuple[Blocks, Blocks, Blocks] = (2, 2, 2)  # of layer1, layer2, layer3
    pool: bool = True  # halve once more after the stem: cells of 16 pixels instead of 8
    frozen_norm: bool = True  # batch norm keeps its statistics: batches are tiny

    @property
    def stride(self) -> int:
        """16 with the pool, 8 without."""
        return 16 if self.pool else 8

    def build(self, *, finer_maps: bool = True) -> R2Plus1D:
        """Build the module with random weights; all of it is needed for the coarsest map too."""
        return R2Plus1D(self)


class R2Plus1D(ClipEncoder):
    """Stem to layer3 of torchvision's network; the maps are those of the three layers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.channels = (width, 2 * width, 4 * width)
        self.stem = _stem(width)
        self.pool = nn.MaxPool3d((1, 2, 2)) if config.pool else nn.Identity()
        self.layer1 = _layer(width, width, config.blocks[0], stride=1)
        self.layer2 = _layer(width, 2 * width, config.blocks[1], stride=2)
        self.layer3 = _layer(2 * width, 4 * width, config.blocks[2], stride=2)
        start_weights(self)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Encode a clip."""
        fine = self.layer1(self.pool(self.stem(pixels)))
        middle = self.layer2(fine)
        return [fine, middle, self.layer3(middle)]

    def train(self, mode: bool = True) -> R2Plus1D:
        """Set the mode; frozen norms stay in evaluation mode."""
        super().train(mode)
        if self.config.frozen_norm:
            hold_norms(self)
        return self


class SpaceThenTime(Conv2Plus1D):
    """A convolution in space, then one in time; the stride is in space alone, so every frame stays.

    Example:
        >>> from tubelet.models.tags.encoder import SpaceThenTime
        >>> SpaceThenTime(3, 8, 5, stride=2)(torch.zeros(1, 3, 4, 6, 6)).shape
        torch.Size([1, 8, 4, 3, 3])
    """

    def __init__(self, inside: int, outside: int, between: int, stride: int = 1, padding: int = 1) -> None:
        super().__init__(inside, outside, between, stride, padding)
        self[3].stride = (1, 1, 1)


def start_weights(module: nn.Module) -> None:
    """Initialise convolutions that precede a ReLU by He's method, as torchvision's video networks do.

    Example:
        >>> from tubelet.models.tags.encoder import start_weights
        >>> convolution = torch.nn.Conv3d(3, 8, 1)
        >>> start_weights(convolution)
        >>> float(convolution.bias.abs().max())
        0.0
    """
    for child in module.modules():
        if isinstance(child, nn.Conv3d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
            if child.bias is not None:
                nn.init.zeros_(child.bias)


def norm_by_clip(module: nn.Module) -> None:
    """Replace 3-D batch norms by norms over each clip alone, without running statistics.

    Example:
        >>> from tubelet.models.tags.encoder import norm_by_clip
        >>> layers = torch.nn.Sequential(torch.nn.BatchNorm3d(8))
        >>> norm_by_clip(layers)
        >>> type(layers[0]).__name__
        'InstanceNorm3d'
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d):
            setattr(module, name, nn.InstanceNorm3d(child.num_features, affine=True))
        else:
            norm_by_clip(child)


def from_torchvision_video(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of torchvision's r2plus1d_18 for a tag-based model; layer4 and classifier are left out.

    Example:
        >>> from tubelet.models.tags.encoder import from_torchvision_video
        >>> list(from_torchvision_video({"stem.0.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}))
        ['network.encoder.stem.0.weight']
    """
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
    rest = [BasicBlock(outside, outside, SpaceThenTime) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
