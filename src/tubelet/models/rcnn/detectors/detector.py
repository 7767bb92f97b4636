"""The socket of detectors: what each of them answers, and how regions are cut from its maps.

A detector is a module with four methods: `extract` (images -> features), `detect` (features -> boxes), `losses`
(features and truth -> losses, and the regions on which mask and match heads learn), and `cells` (boxes -> what heads
see of them, object-level attention included).
Three are built: the papers' two stages (`two_stage.py`), and two one-stage detectors made for CPUs (`ssdlite.py`,
`nanodet.py`, which share `one_stage.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from tubelet.core.errors import ConfigError
from tubelet.core.plugs import PlugConfig
from tubelet.core.types import Losses
from tubelet.models.inputs import Images, InputConfig
from tubelet.models.rcnn.context import Support
from tubelet.models.rcnn.regions import RegionsPlug


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Maps of B images. `maps` is the pyramid that regions are cut from; `taps` is what only the detector reads."""

    maps: list[Tensor]  # [B, C, H/s, W/s] each, finest first
    taps: list[Tensor]
    supports: list[Support] | None = None  # of each image, where object-level attention is on

    def at(self, *images: int) -> Features:
        """The features of some images, in that order."""
        if images == tuple(range(len(self.maps[0]))):
            return self
        rows = slice(images[0], images[0] + 1) if len(images) == 1 else list(images)
        maps = [m[rows] for m in self.maps]
        return Features(
            maps=maps,
            taps=maps if self.taps is self.maps else [t[rows] for t in self.taps],
            supports=None if self.supports is None else [self.supports[i] for i in images],
        )

    def with_rows(self, rows: list[int], others: Features) -> Features:
        """The same with the images at `rows` exchanged for those of `others`."""
        at = torch.tensor(rows, device=self.maps[0].device)
        maps = [own.index_copy(0, at, new) for own, new in zip(self.maps, others.maps, strict=True)]
        if self.taps is self.maps and others.taps is others.maps:
            return replace(self, maps=maps, taps=maps)
        taps = [own.index_copy(0, at, new) for own, new in zip(self.taps, others.taps, strict=True)]
        return replace(self, maps=maps, taps=taps)


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
    drawn: int  # regions drawn with these, background included


class DetectorConfig(PlugConfig):
    """What fits the socket `detector`."""

    input: InputConfig

    @abstractmethod
    def build(self, num_classes: int) -> Detector:
        """For so many classes."""


class Detector(nn.Module, ABC):
    """Base of detectors: holds what the heads need to know to cut regions from its pyramid."""

    config: DetectorConfig
    channels: int  # of every pyramid map
    strides: list[int]  # of the pyramid maps that regions are cut from, finest first
    all_strides: list[int]  # of all pyramid maps
    proposes_from_maps: bool  # whether its boxes come from the pyramid, so that `taps` are `maps`
    aligned: bool = True  # pixel centres at half cells; off only to agree with weights trained without
    sampling: int = 2  # points per cell and side
    fixed_shapes: bool = False  # cut every box from every map and choose then, as files of a network need it

    def __init__(self) -> None:
        super().__init__()
        self.attention: RegionsPlug | None = None  # object level

    @abstractmethod
    def extract(self, images: Images) -> Features:
        """Maps of B images."""

    @abstractmethod
    def detect(self, features: Features, images: Images) -> list[Detections]:
        """Boxes of each image, best first, after suppression."""

    @abstractmethod
    def losses(self, features: Features, images: Images, targets: list[Targets]) -> tuple[Losses, list[Samples]]:
        """Named losses, and per image the regions on which mask and match heads learn."""

    def detect_fixed(self, features: Features, images: Images) -> tuple[Detections, Tensor]:
        """`detect` for one image by fixed shapes: always as many boxes, and which of them there are, bool [D].

        Raises ConfigError for a detector that has no such form.
        """
        raise ConfigError(f"export: {type(self).__name__} has no form with fixed shapes")

    def cells(self, features: Features, boxes: list[Tensor], resolution: int) -> Tensor:
        """What heads see of the boxes of each image: `regions`, refined by object-level attention where it is on."""
        cells = self.regions(features.maps, boxes, resolution)
        if self.attention is None or features.supports is None:
            return cells
        parts = zip(cells.split([len(b) for b in boxes]), features.supports, strict=True)
        return torch.cat([self.attention.refine(own, support) for own, support in parts])

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
            if self.fixed_shapes:
                cells = self._cut(one, rows, resolution, stride)
                out = torch.where((level == i)[:, None, None, None], cells, out)
                continue
            at = (level == i).nonzero()[:, 0]
            if len(at):
                out = out.index_copy(0, at, self._cut(one, rows[at], resolution, stride))
        return out

    def _cut(self, maps: Tensor, rows: Tensor, resolution: int, stride: int) -> Tensor:
        """Boxes (image, x1, y1, x2, y2) of one level, [N, C, resolution, resolution]."""
        cells: Tensor = roi_align(
            maps, rows.to(maps.dtype), resolution, 1 / stride, self.sampling, aligned=self.aligned
        )
        return cells
