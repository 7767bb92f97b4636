"""What is asked of each region: its mask, and which known object it is.

Source: docs/papers/masktrack_rcnn.md. Letters: N regions, C channels, K classes, D embedding, M objects in memory.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import expand_boxes, expand_masks

from tubelet.core.config import Config


class MaskHeadConfig(Config):
    """3x3 convolutions, a deconvolution that doubles the size, and one channel per class (or one in all).

    With one per class, channel 0 stands for the background and is never used, as in the original.
    """

    kind: Literal["cells"] = "cells"
    convs: int = Field(default=4, ge=1)
    channels: int = Field(default=256, ge=1)
    resolution: int = Field(default=14, ge=1, le=128)  # cells of the region; the mask has twice as many
    class_agnostic: bool = False
    norm: bool = False  # group norm after each convolution
    margin: float = Field(
        default=0.0, ge=0, le=1
    )  # the region is the box grown by this share of its size on every side

    def build(self, channels: int, num_classes: int) -> MaskHead:
        return MaskHead(self, channels, num_classes)


class MaskHead(nn.Module):
    """[N, C, r, r] -> mask logits [N, K + 1 or 1, 2r, 2r]."""

    def __init__(self, config: MaskHeadConfig, channels: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for _ in range(config.convs):
            layers.append(nn.Conv2d(channels, config.channels, 3, padding=1, bias=not config.norm))
            if config.norm:
                layers.append(nn.GroupNorm(math.gcd(32, config.channels), config.channels))
            layers.append(nn.ReLU(inplace=True))
            channels = config.channels
        self.convs = nn.Sequential(*layers)
        self.deconv = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, 1 if config.class_agnostic else num_classes + 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, regions: Tensor) -> Tensor:
        return self.logits(F.relu(self.deconv(self.convs(regions))))

    def of_class(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The channel of each region's class: [N, K + 1 or 1, h, w], [N] -> [N, h, w]."""
        if self.config.class_agnostic:
            return logits[:, 0]
        return logits[torch.arange(len(labels), device=labels.device), labels + 1]


class FullyConnectedMatchConfig(Config):
    """The match head of MaskTrack R-CNN: two fully connected layers, similarity by inner product."""

    kind: Literal["fully_connected"] = "fully_connected"
    channels: int = Field(default=1024, ge=1)
    layers: int = Field(default=2, ge=1)
    resolution: int = Field(default=7, ge=1, le=64)
    cosine: float | None = Field(
        default=None, gt=0
    )  # a temperature: compare directions only, divided by it (off in the paper)
    normalise_at_test: bool = False  # lengths of 1 at test alone, as ObjProp's released code has it

    def build(self, channels: int) -> FullyConnectedMatch:
        return FullyConnectedMatch(self, channels)


class FullyConnectedMatch(nn.Module):
    """Descriptors of regions and the match matrix between current and known ones."""

    def __init__(self, config: FullyConnectedMatchConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        sizes = [channels * config.resolution**2] + [config.channels] * config.layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        for name, parameter in self.layers.named_parameters():
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, std=0.01)
        # a learned height of the "new object" column makes sense only where similarities are bounded
        self.new = nn.Parameter(torch.zeros(())) if config.cosine is not None else None

    def describe(self, regions: Tensor) -> Tensor:
        """[N, C, r, r] -> descriptors [N, D]; no activation after the last layer."""
        x = regions.flatten(1)
        for i, layer in enumerate(self.layers):
            x = layer(F.relu(x) if i else x)
        normal = self.config.cosine is not None or (self.config.normalise_at_test and not self.training)
        return F.normalize(x, dim=1) if normal else x

    def forward(self, current: Tensor, known: Tensor) -> Tensor:
        """[N, D], [M, D] -> logits [N, M + 1]; column 0, exactly 0 in the paper, stands for a new object."""
        with torch.autocast(current.device.type, enabled=False):  # logits of a hundred need more than 8 bits
            similarity = current.float() @ known.float().T
        if self.config.cosine is not None:
            similarity = similarity / self.config.cosine
        column = similarity.new_zeros(len(current), 1) if self.new is None else self.new.expand(len(current), 1)
        return torch.cat([column, similarity], dim=1)


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks of regions [N, r, r] stretched over their boxes [N, 4] in whole frames, [N, H, W].

    Equal to torchvision's paste_masks_in_image (one cell of padding, whole pixels), but written into one canvas.
    """
    canvas = masks.new_zeros(len(masks), *size)
    padded, stretch = expand_masks(masks[:, None], padding=1)
    corners = expand_boxes(boxes, stretch).to(torch.int64).tolist()
    height, width = size
    for i, (x1, y1, x2, y2) in enumerate(corners):
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2 + 1, width), min(y2 + 1, height)
        if left >= right or top >= bottom:
            continue
        whole = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        mask = F.interpolate(padded[i : i + 1], size=whole, mode="bilinear", align_corners=False)[0, 0]
        canvas[i, top:bottom, left:right] = mask[top - y1 : bottom - y1, left - x1 : right - x1]
    return canvas
