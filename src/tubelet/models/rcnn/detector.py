"""What every detector of the family answers, and how regions are cut from its maps.

A detector is a module with four methods: `extract` (images -> features), `detect` (features -> boxes), `losses`
(features and truth -> losses, and the regions on which mask and match heads learn), and `regions` (boxes -> cells).
Two are built: the papers' two stages (`two_stage.py`) and a one-stage detector made for CPUs (`ssdlite.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from tubelet.core.types import Losses
from tubelet.models.rcnn.inputs import Images


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Maps of B images. `maps` is the pyramid that regions are cut from; `taps` is what only the detector reads."""

    maps: list[Tensor]  # [B, C, H/s, W/s] each, finest first
    taps: list[Tensor]

    def at(self, image: int) -> Features:
        """The features of one image, as a batch of one."""
        one = slice(image, image + 1)
        return Features(maps=[m[one] for m in self.maps], taps=[t[one] for t in self.taps])


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """N boxes of one image in input pixels, best first; a row of `scores` holds the probabilities of K classes."""

    boxes: Tensor  # [N, 4]
    scores: Tensor  # [N, K]

    @property
    def labels(self) -> Tensor:
        return self.scores.argmax(1)

    @property
    def confidence(self) -> Tensor:
        return self.scores.amax(1)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, keep: Tensor | slice | list[int]) -> Detections:
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep])


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The truth of one image: M objects, boxes in input pixels, masks at the frame's own size."""

    boxes: Tensor  # [M, 4]
    labels: Tensor  # [M]
    ids: Tensor  # [M]
    masks: Tensor  # [M, H, W] of the frame
    scale: Tensor  # [4]: input = frame * scale
    ignored: Tensor  # [I, 4] boxes of crowds: neither object nor background


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """P regions of one image on which mask and match heads learn, each with the position of its object in Targets."""

    boxes: Tensor  # [P, 4] in input pixels
    matched: Tensor  # [P]


class Detector(nn.Module, ABC):
    """Base of the two detectors: holds what the heads need to know to cut regions from its pyramid."""

    channels: int  # of every pyramid map
    strides: list[int]  # of the pyramid maps, finest first
    aligned: bool = True  # pixel centres at half cells; off only to agree with weights trained without
    sampling: int = 2  # points per cell and side

    @abstractmethod
    def extract(self, images: Images) -> Features:
        """Maps of B images."""

    @abstractmethod
    def detect(self, features: Features, images: Images) -> list[Detections]:
        """Boxes of each image, best first, after suppression."""

    @abstractmethod
    def losses(self, features: Features, images: Images, targets: list[Targets]) -> tuple[Losses, list[Samples]]:
        """Named losses, and per image the regions on which mask and match heads learn."""

    def regions(self, maps: list[Tensor], boxes: list[Tensor], resolution: int) -> Tensor:
        """Boxes of each image [N_i, 4] -> cells [sum N_i, C, resolution, resolution], in order.

        A box is cut from the level whose stride suits its size: floor(log2(sqrt(w h) / (14 s_0))), which is the
        usual rule with 56 pixels on the level of stride 4 (docs/papers/masktrack_rcnn.md).
        """
        rows = torch.cat([torch.cat([b.new_full((len(b), 1), i), b], 1) for i, b in enumerate(boxes)])
        out = maps[0].new_zeros(len(rows), self.channels, resolution, resolution)
        size = ((rows[:, 3] - rows[:, 1]) * (rows[:, 4] - rows[:, 2])).clamp(min=1e-6).sqrt()
        level = (torch.log2(size / (14 * self.strides[0])) + 1e-6).floor().clamp(0, len(self.strides) - 1)
        for i, (one, stride) in enumerate(zip(maps, self.strides, strict=False)):
            at = (level == i).nonzero()[:, 0]
            if len(at):
                cells = roi_align(
                    one, rows[at].to(one.dtype), resolution, 1 / stride, self.sampling, aligned=self.aligned
                )
                out = out.index_copy(0, at, cells)
        return out
