"""The heads of MaskTrack R-CNN: masks from cells of the pyramid, and matching by fully connected layers.

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

from tubelet.core.boxes import grow
from tubelet.core.types import Losses
from tubelet.models.rcnn.detectors.detector import Features
from tubelet.models.rcnn.heads.sockets import Batch, MaskConfig, MaskPlug, MatchConfig, MatchPlug, View


class MaskHeadConfig(MaskConfig):
    """3x3 convolutions, a deconvolution that doubles the size, and one channel per class (or one in all).

    With one per class, channel 0 stands for the background and is never used, as in the original.
    """

    kind: Literal["cells"] = "cells"
    convs: int = Field(default=4, ge=1)
    channels: int = Field(default=256, ge=1)
    resolution: int = Field(default=14, ge=1, le=128)  # cells of the region; the mask has twice as many
    class_agnostic: bool = False
    norm: bool = False  # group norm after each convolution
    logits_std: float | None = Field(default=None, gt=0)  # of the last layer's start; None: Kaiming's (the paper)
    margin: float = Field(
        default=0.0, ge=0, le=1
    )  # the region is the box grown by this share of its size on every side

    def build(self, channels: int, num_classes: int) -> MaskHead:
        return MaskHead(self, channels, num_classes)


class MaskHead(MaskPlug):
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
                self._start(module)

    def _start(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        """Draw a layer's weights; its bias is zero."""
        std = self.config.logits_std
        if layer is self.logits and std is not None:
            nn.init.normal_(layer.weight, std=std)
        else:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor) -> Tensor:
        return self.logits(F.relu(self.deconv(self.convs(regions))))

    def of_class(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The channel of each region's class: [N, K + 1 or 1, h, w], [N] -> [N, h, w]."""
        if self.config.class_agnostic:
            return logits[:, 0]
        return logits[torch.arange(len(labels), device=labels.device), labels + 1]

    def losses(self, batch: Batch) -> Losses:
        """Binary cross-entropy on the channel of each region's class, mean over cells."""
        samples = batch.samples
        boxes = [self.reach(s.boxes) for s in samples.values()]
        logits = self(batch.cells(list(samples), boxes, self.config.resolution))
        labels = batch.labels(samples)
        if len(labels) == 0:
            return {"mask": logits.sum() * 0}
        goal = batch.masks(samples, boxes, logits.shape[-1])
        return {"mask": F.binary_cross_entropy_with_logits(self.of_class(logits, labels).float(), goal)}

    def inside(self, view: View, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        regions = self.reach(boxes)
        logits = self(view.cells(regions, self.config.resolution))
        return regions, self.of_class(logits, labels).float().sigmoid()

    def reach(self, boxes: Tensor) -> Tensor:
        return grow(boxes, self.config.margin)


class FullyConnectedMatchConfig(MatchConfig):
    """The match head of MaskTrack R-CNN: two fully connected layers, similarity by inner product."""

    kind: Literal["fully_connected"] = "fully_connected"
    channels: int = Field(default=1024, ge=1)
    layers: int = Field(default=2, ge=1)
    resolution: int = Field(default=7, ge=1, le=64)
    cosine: float | None = Field(
        default=None, gt=0
    )  # a temperature: compare directions only, divided by it (off in the paper)
    normalise_at_test: bool = False  # lengths of 1 at test alone, as ObjProp's released code has it

    def build(self, channels: int, strides: list[int] | None = None) -> FullyConnectedMatch:
        return FullyConnectedMatch(self, channels)


class FullyConnectedMatch(MatchPlug):
    """Descriptors of regions and the match matrix between current and known ones."""

    def __init__(self, config: FullyConnectedMatchConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.resolution = config.resolution
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

    def compare(self, features: Features, boxes: Tensor, current: Tensor, known: Tensor) -> Tensor:
        logits: Tensor = self(current, known)
        return logits
