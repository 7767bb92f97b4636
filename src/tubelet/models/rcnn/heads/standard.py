"""The heads of MaskTrack R-CNN: a convolutional mask head and a fully connected match head.

Source: docs/papers/masktrack_rcnn.md.

Letters: N regions, C channels, r cells of a region's side, K classes, D descriptor, M known objects.
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
from tubelet.engines.graph import Graph
from tubelet.models.rcnn.detectors.detector import Features
from tubelet.models.rcnn.heads.sockets import Batch, MaskConfig, MaskPlug, MatchConfig, MatchPlug, View


class MaskHeadConfig(MaskConfig):
    """Configure the mask head: 3x3 convolutions, a deconvolution that doubles the size, and logits.

    There is one channel of logits per class, or a single one with `class_agnostic`. With one per
    class, channel 0 stands for the background and is never used, as in the original.

    Example:
        >>> from tubelet.models.rcnn.heads.standard import MaskHeadConfig
        >>> head = MaskHeadConfig(channels=8, resolution=7).build(channels=4, num_classes=2)
        >>> head(torch.zeros(5, 4, 7, 7)).shape
        torch.Size([5, 3, 14, 14])
    """

    kind: Literal["cells"] = "cells"
    convs: int = Field(default=4, ge=1)
    channels: int = Field(default=256, ge=1)
    resolution: int = Field(default=14, ge=1, le=128)  # cells of a region's side; the mask has twice as many
    class_agnostic: bool = False
    norm: bool = False  # group norm after each convolution

    # standard deviation of the last layer's initial weights; None: Kaiming initialisation, as in the paper
    logits_std: float | None = Field(default=None, gt=0)

    # the region is the box enlarged on every side by this share of its width or height
    margin: float = Field(default=0.0, ge=0, le=1)

    def build(self, channels: int, num_classes: int) -> MaskHead:
        """Build the head for a pyramid of `channels` channels."""
        return MaskHead(self, channels, num_classes)


class MaskHead(MaskPlug):
    """Compute mask logits [N, K + 1 or 1, 2r, 2r] of regions [N, C, r, r].

    Example:
        >>> from tubelet.models.rcnn.heads.standard import MaskHeadConfig
        >>> config = MaskHeadConfig(channels=8, class_agnostic=True)
        >>> head = config.build(channels=4, num_classes=2)
        >>> head(torch.zeros(5, 4, 14, 14)).shape
        torch.Size([5, 1, 28, 28])
    """

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

        num_logits = 1 if config.class_agnostic else num_classes + 1
        self.convs = nn.Sequential(*layers)
        self.deconv = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, num_logits, 1)
        self.network = Graph("masks", self, self._logits, rows=True)

        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                self._initialise(module)

    def _initialise(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        """Draw a layer's weights at random and set its bias to zero."""
        std = self.config.logits_std
        if layer is self.logits and std is not None:
            nn.init.normal_(layer.weight, std=std)
        else:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor) -> Tensor:
        x = self.convs(regions)
        x = F.relu(self.deconv(x))
        return self.logits(x)

    def _logits(self, regions: Tensor) -> tuple[Tensor]:
        logits: Tensor = self(regions)
        return (logits,)

    def graphs(self) -> list[Graph]:
        return [self.network]

    def of_class(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Select the channel of each region's class: [N, K + 1 or 1, h, w], [N] -> [N, h, w].

        Example:
            >>> from tubelet.models.rcnn.heads.standard import MaskHeadConfig
            >>> head = MaskHeadConfig(channels=8).build(channels=4, num_classes=2)
            >>> logits = torch.arange(3.0).reshape(1, 3, 1, 1)  # background, class 0, class 1
            >>> head.of_class(logits, torch.tensor([1]))
            tensor([[[2.]]])
        """
        if self.config.class_agnostic:
            return logits[:, 0]

        rows = torch.arange(len(labels), device=labels.device)
        return logits[rows, labels + 1]

    def losses(self, batch: Batch) -> Losses:
        """Compute the binary cross-entropy on the channel of each region's class, mean over cells."""
        samples = batch.samples
        boxes = [self.reach(s.boxes) for s in samples.values()]
        cells = batch.cells(list(samples), boxes, self.config.resolution)
        logits = self(cells)

        labels = batch.labels(samples)
        if len(labels) == 0:
            return {"mask": logits.sum() * 0}

        target_masks = batch.masks(samples, boxes, logits.shape[-1])
        class_logits = self.of_class(logits, labels).float()
        return {"mask": F.binary_cross_entropy_with_logits(class_logits, target_masks)}

    def inside(self, view: View, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute regions [N, 4] and the mask probabilities [N, 2r, 2r] in them."""
        regions = self.reach(boxes)
        cells = view.cells(regions, self.config.resolution)
        (logits,) = self.network(cells)
        return regions, self.of_class(logits, labels.to(logits.device)).float().sigmoid()

    def reach(self, boxes: Tensor) -> Tensor:
        """Enlarge boxes [N, 4] by the configured margin."""
        return grow(boxes, self.config.margin)


class FullyConnectedMatchConfig(MatchConfig):
    """Configure MaskTrack R-CNN's match head: two fully connected layers and an inner product.

    Example:
        >>> from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig
        >>> head = FullyConnectedMatchConfig(channels=16, resolution=3).build(channels=4)
        >>> head.describe(torch.zeros(5, 4, 3, 3)).shape
        torch.Size([5, 16])
    """

    kind: Literal["fully_connected"] = "fully_connected"
    channels: int = Field(default=1024, ge=1)
    layers: int = Field(default=2, ge=1)
    resolution: int = Field(default=7, ge=1, le=64)

    # compare by cosine similarity, divided by this temperature; None: inner product, as in the paper
    cosine: float | None = Field(default=None, gt=0)

    # scale descriptors to length 1 in evaluation mode only, as in ObjProp's released code
    normalise_at_test: bool = False

    def build(self, channels: int, strides: list[int] | None = None) -> FullyConnectedMatch:
        """Build the head for a pyramid of `channels` channels; `strides` are not used."""
        return FullyConnectedMatch(self, channels)


class FullyConnectedMatch(MatchPlug):
    """Describe regions, and compute the match matrix between current and known descriptors.

    Example:
        >>> from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig
        >>> head = FullyConnectedMatchConfig(channels=2).build(channels=4)
        >>> current = torch.tensor([[1.0, 0.0]])
        >>> known = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
        >>> head(current, known)  # new object, first known object, second known object
        tensor([[0., 3., 0.]])
    """

    def __init__(self, config: FullyConnectedMatchConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.resolution = config.resolution

        sizes = [channels * config.resolution**2] + [config.channels] * config.layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        for name, parameter in self.layers.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.01)

        # a learned logit of the "new object" column makes sense only where similarities are bounded
        self.new = nn.Parameter(torch.zeros(())) if config.cosine is not None else None
        self.network = Graph("descriptors", self, self._descriptors, rows=True)

    def describe(self, regions: Tensor) -> Tensor:
        """Compute descriptors [N, D] of regions [N, C, r, r]; no activation after the last layer."""
        (descriptors,) = self.network(regions)
        return descriptors

    def graphs(self) -> list[Graph]:
        return [self.network]

    def _descriptors(self, regions: Tensor) -> tuple[Tensor]:
        x = regions.flatten(1)
        for i, layer in enumerate(self.layers):
            x = layer(F.relu(x) if i else x)

        normalise_now = self.config.normalise_at_test and not self.training
        if self.config.cosine is not None or normalise_now:
            x = F.normalize(x, dim=1)
        return (x,)

    def forward(self, current: Tensor, known: Tensor) -> Tensor:
        """Compute match logits: [N, D], [M, D] -> [N, M + 1].

        Column 0 stands for a new object. It is exactly 0, as in the paper, unless `cosine` is set:
        then it is learned.
        """
        # logits around a hundred need more than the 8 bits of bfloat16
        with torch.autocast(current.device.type, enabled=False):
            similarity = current.float() @ known.float().T
        if self.config.cosine is not None:
            similarity = similarity / self.config.cosine

        if self.new is None:
            new_column = similarity.new_zeros(len(current), 1)
        else:
            new_column = self.new.expand(len(current), 1)
        return torch.cat([new_column, similarity], dim=1)

    def compare(self, features: Features, boxes: Tensor, current: Tensor, known: Tensor) -> Tensor:
        """Compute match logits [N, M + 1] from descriptors alone; `features` and `boxes` are not used."""
        logits: Tensor = self(current, known)
        return logits
