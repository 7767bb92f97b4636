"""The heads: a class for each query, and its mask as a kernel on patch tokens brought to a quarter of the input.

Letters: B frames, Q queries, P patches, D channels, K classes, h w a quarter of the input.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tubelet.models.queries.outputs import STRIDE


class Heads(nn.Module):
    """Class logits, mask kernels and mask features of tokens after the final LayerNorm.

    Example:
        >>> from tubelet.models.videomt.heads import Heads
        >>> heads = Heads(channels=16, num_classes=3, patch=16)
        >>> heads.features(torch.zeros(1, 8, 16), grid=(2, 4)).shape
        torch.Size([1, 16, 8, 16])
        >>> heads.class_predictor(torch.zeros(1, 5, 16)).shape  # the last column is "no object"
        torch.Size([1, 5, 4])
    """

    def __init__(self, channels: int, num_classes: int, patch: int) -> None:
        super().__init__()
        self.class_predictor = nn.Linear(channels, num_classes + 1)
        self.mask_predictor = nn.Sequential(
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.Linear(channels, channels),
        )
        doublings = int(math.log2(patch // STRIDE))
        self.upscale = nn.Sequential(*(Doubling(channels) for _ in range(doublings)))

    def features(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Bring patch tokens [B, P, D] of a grid to mask features [B, D, h, w]."""
        maps = patches.transpose(1, 2).unflatten(2, grid)
        upscaled: Tensor = self.upscale(maps)
        return upscaled


class Doubling(nn.Module):
    """Double the sides of a map: transposed convolution, GELU, depthwise convolution, LayerNorm over channels.

    Example:
        >>> from tubelet.models.videomt.heads import Doubling
        >>> Doubling(8)(torch.zeros(1, 8, 3, 5)).shape
        torch.Size([1, 8, 6, 10])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, D, 2 h, 2 w]."""
        maps = self.smooth(torch.nn.functional.gelu(self.expand(maps)))
        normed: Tensor = self.norm(maps.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)
