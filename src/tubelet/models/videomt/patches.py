"""Patches of a pretrained network's maps, in the place of patches of pixels.

Ours, in no paper: a ViT needs more training than a CPU gives in minutes, so small versions see the maps of a small
convolutional trunk, as the other small systems do. Letters: B frames, P patches, D channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.models.backbones import BackboneConfig


class TrunkPatches(nn.Module):
    """Images [B, 3, H, W] -> tokens of patches [B, P, D]: the sum of a linear embedding of each of the trunk's maps.

    Example:
        >>> from tubelet.models.backbones import BackboneConfig
        >>> from tubelet.models.videomt.patches import TrunkPatches
        >>> patches = TrunkPatches(BackboneConfig(name="mobilenetv2_100"), channels=16, patch=8)
        >>> patches(torch.zeros(1, 3, 32, 64)).shape
        torch.Size([1, 32, 16])
    """

    def __init__(self, trunk: BackboneConfig, channels: int, patch: int) -> None:
        super().__init__()
        self.trunk = trunk.build()
        self.patch = patch
        self.projections = nn.ModuleList()
        for width, stride in zip(self.trunk.channels, self.trunk.strides, strict=True):
            cells = max(patch // stride, 1)  # of a patch's side, on a map that is finer than patches
            self.projections.append(nn.Conv2d(width, channels, cells, stride=cells))

    def forward(self, images: Tensor) -> Tensor:
        """Embed the maps; coarse ones are resized to the grid of patches."""
        height, width = images.shape[-2:]
        grid = (height // self.patch, width // self.patch)
        total = torch.zeros((), device=images.device)
        for features, projection in zip(self.trunk(images), self.projections, strict=True):
            embedded = projection(features)
            total = total + F.interpolate(embedded, grid, mode="bilinear", align_corners=False)
        return total.flatten(2).transpose(1, 2)
