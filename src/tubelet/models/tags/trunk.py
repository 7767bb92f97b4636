"""A pretrained image network as encoder of clips: frames go through it one by one, then time is mixed.

    trunk          strides 2 to 32           each frame alone, weights of an image task
    projection     1 x 1 convolutions         to few channels; the map of 32 is added to that of 16
    time           3 x 1 x 1 convolutions     added to what they read, so they start as a small change

Beside R(2+1)D (encoder.py), for which there are weights of one width only, trained on videos of 112 x
112. Our choice; the paper has no such encoder (docs/papers/tags.md).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tubelet.models.backbones import BackboneConfig
from tubelet.models.tags.encoder import ClipEncoder, ClipEncoderConfig, PixelStatistics
from tubelet.models.tags.heads import enlarge

Width = Annotated[int, Field(ge=4, le=1024)]


class TrunkConfig(ClipEncoderConfig):
    """An image backbone with temporal convolutions. `init=FILE` of a training loads its weights.

    Example:
        >>> from tubelet.models.backbones import BackboneConfig
        >>> from tubelet.models.tags.trunk import TrunkConfig
        >>> config = TrunkConfig(backbone=BackboneConfig(name="mobilenetv2_050"), widths=(8, 8, 16))
        >>> [tuple(maps.shape[1:]) for maps in config.build()(torch.zeros(1, 3, 2, 32, 64))]
        [(8, 2, 8, 16), (8, 2, 4, 8), (16, 2, 2, 4)]
    """

    kind: Literal["trunk"] = "trunk"
    pixels: PixelStatistics = PixelStatistics(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    # its maps of strides 4 to 32 are taken, whatever `stages` says
    backbone: BackboneConfig = BackboneConfig(name="mobilenetv2_100", frozen_stages=4, pad_type="same")
    # channels of the maps, that of stride 16 last: three are of strides 4, 8, 16, four begin at 2
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=4)] = (32, 48, 96)
    time: bool = True  # temporal convolutions; off: each frame is encoded alone

    @property
    def stride(self) -> int:
        """Always 16."""
        return 16

    def build(self, *, finer_maps: bool = True) -> TrunkEncoder:
        """Build the module with random weights."""
        return TrunkEncoder(self, finer_maps=finer_maps)


class TrunkEncoder(ClipEncoder):
    """The backbone, a projection of each of its maps, and temporal convolutions."""

    def __init__(self, config: TrunkConfig, *, finer_maps: bool) -> None:
        super().__init__()
        self.channels = config.widths if finer_maps else config.widths[-1:]
        stages = len(self.channels) + 1  # of the backbone: that of stride 32 too
        self.backbone = config.backbone.but(stages=stages).build()

        outside = (*self.channels, self.channels[-1])
        sides = zip(self.backbone.channels, outside, strict=True)
        self.projections = nn.ModuleList(nn.Conv3d(c, width, 1) for c, width in sides)
        self.norms = nn.ModuleList(nn.BatchNorm3d(width) for width in self.channels)
        self.times = nn.ModuleList(_time(width) for width in self.channels if config.time)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Encode a clip."""
        frames = pixels.transpose(1, 2)  # [B, T, 3, H, W]
        images = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # a quarter faster
        maps = []
        for features, projection in zip(self.backbone(images), self.projections, strict=True):
            clips = features.unflatten(0, frames.shape[:2]).transpose(1, 2)
            maps.append(projection(clips))

        coarsest = maps.pop()
        maps[-1] = maps[-1] + enlarge(coarsest, (maps[-1].shape[-2], maps[-1].shape[-1]))

        maps = [norm(features).relu() for norm, features in zip(self.norms, maps, strict=True)]
        for n, time in enumerate(self.times):
            maps[n] = maps[n] + time(maps[n])
        return maps


def _time(width: int) -> nn.Sequential:
    """A temporal convolution per channel, then across channels."""
    return nn.Sequential(
        nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), groups=width),
        nn.ReLU(inplace=True),
        nn.Conv3d(width, width, 1),
    )
