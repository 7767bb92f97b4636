"""The interface of detectors: their data types, their base class, and how regions are cut from the feature pyramid.

A detector is a module with four methods: `extract` (images -> features), `detect` (features -> boxes), `losses`
(features and truth -> losses, and the regions that mask and match heads learn on), and `cells` (boxes -> region
features for the heads, refined by object-level attention if it is on).

There are three detectors: the two-stage detector of the papers (`two_stage.py`), and two one-stage detectors made for
CPUs (`ssdlite.py`, `nanodet.py`, which share `one_stage.py`).

Letters: B images, N boxes of an image, K classes, M objects of an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from tubelet.core.devices import upload
from tubelet.core.errors import ConfigError
from tubelet.core.plugs import PlugConfig
from tubelet.core.types import Losses
from tubelet.engines.graph import Graph
from tubelet.models.inputs import Images, InputConfig
from tubelet.models.rcnn.context import Support
from tubelet.models.rcnn.regions import RegionsPlug


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Feature maps of B images: `maps`, the pyramid that regions are cut from, and `taps`, read by the detector only.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Features
        >>> maps = [torch.zeros(3, 8, 4, 4), torch.zeros(3, 8, 2, 2)]
        >>> Features(maps=maps, taps=maps).at(2, 0).maps[1].shape
        torch.Size([2, 8, 2, 2])
    """

    maps: list[Tensor]  # [B, C, H/s, W/s] each, finest first
    taps: list[Tensor]
    supports: list[Support] | None = None  # one per image if object-level attention is on

    def at(self, *images: int) -> Features:
        """Select the features of some images, in the given order.

        Example:
            >>> from tubelet.models.rcnn.detectors.detector import Features
            >>> maps = [torch.tensor([10.0, 20, 30]).view(3, 1, 1, 1)]
            >>> Features(maps=maps, taps=maps).at(2, 0).maps[0].flatten().tolist()
            [30.0, 10.0]
        """
        if images == tuple(range(len(self.maps[0]))):
            return self

        rows = slice(images[0], images[0] + 1) if len(images) == 1 else list(images)
        maps = [level[rows] for level in self.maps]
        taps = maps if self.taps is self.maps else [tap[rows] for tap in self.taps]
        supports = None if self.supports is None else [self.supports[i] for i in images]
        return Features(maps=maps, taps=taps, supports=supports)

    def with_rows(self, rows: list[int], others: Features) -> Features:
        """Replace the maps and taps of the images at `rows` by those of `others`, in order; supports stay.

        Example:
            >>> from tubelet.models.rcnn.detectors.detector import Features
            >>> maps = [torch.zeros(3, 1, 1, 1)]
            >>> new_maps = [torch.ones(1, 1, 1, 1)]
            >>> features = Features(maps=maps, taps=maps)
            >>> features.with_rows([1], Features(maps=new_maps, taps=new_maps)).maps[0].flatten().tolist()
            [0.0, 1.0, 0.0]
        """
        index = torch.tensor(rows, device=self.maps[0].device)
        maps = [old.index_copy(0, index, new) for old, new in zip(self.maps, others.maps, strict=True)]
        if self.taps is self.maps and others.taps is others.maps:
            return replace(self, maps=maps, taps=maps)

        taps = [old.index_copy(0, index, new) for old, new in zip(self.taps, others.taps, strict=True)]
        return replace(self, maps=maps, taps=taps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """N boxes of one image, best first, with their class probabilities, on the CPU.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Detections
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 9, 9]])
        >>> detections = Detections(boxes=boxes, scores=torch.tensor([[0.25, 0.75], [0.5, 0.0]]))
        >>> detections.labels.tolist(), detections.confidence.tolist(), len(detections[:1])
        ([1, 0], [0.75, 0.5], 1)
    """

    boxes: Tensor  # [N, 4], corners in input pixels
    scores: Tensor  # [N, K], probabilities

    @property
    def labels(self) -> Tensor:
        """The most probable class of each box, int64 [N]."""
        return self.scores.argmax(1)

    @property
    def confidence(self) -> Tensor:
        """The probability of that class, [N]."""
        return self.scores.amax(1)

    def __len__(self) -> int:
        return len(self.boxes)

    def __add__(self, more: Detections) -> Detections:
        return Detections(boxes=torch.cat([self.boxes, more.boxes]), scores=torch.cat([self.scores, more.scores]))

    def __getitem__(self, keep: Tensor | slice | list[int]) -> Detections:
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep])


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The truth of one image: M objects, with boxes in input pixels and masks at the frame's own size.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Targets
        >>> targets = Targets(
        ...     boxes=torch.tensor([[0.0, 0, 8, 8]]),
        ...     labels=torch.tensor([2]),
        ...     ids=torch.tensor([7]),
        ...     masks=torch.ones(1, 4, 4, dtype=torch.bool),
        ...     scale=torch.full((4,), 2.0),
        ...     ignored=torch.zeros(0, 4),
        ... )
        >>> (targets.boxes / targets.scale).tolist()
        [[0.0, 0.0, 4.0, 4.0]]
    """

    boxes: Tensor  # [M, 4]
    labels: Tensor  # [M]
    ids: Tensor  # [M]
    masks: Tensor  # [M, H, W] of the frame
    scale: Tensor  # [4]: input = frame * scale
    ignored: Tensor  # [I, 4] boxes of crowds: neither object nor background


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """P regions of one image that mask and match heads learn on, each with the index of its object in Targets.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Samples
        >>> samples = Samples(boxes=torch.zeros(2, 4), matched=torch.tensor([1, 0]), drawn=8)
        >>> object_labels = torch.tensor([5, 6])
        >>> object_labels[samples.matched].tolist()
        [6, 5]
    """

    boxes: Tensor  # [P, 4] in input pixels
    matched: Tensor  # [P]
    drawn: int  # number of regions sampled with these, background included


class DetectorConfig(PlugConfig):
    """Base of the configs that fit the field `detector`.

    Example:
        >>> from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
        >>> NanoDetConfig().build(num_classes=40).strides
        [8, 16, 32]
    """

    input: InputConfig

    @abstractmethod
    def build(self, num_classes: int) -> Detector:
        """Build the detector for `num_classes` classes, background not counted."""


class Detector(nn.Module, ABC):
    """Base of detectors, with what the heads need to cut regions from the pyramid.

    Example:
        >>> from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
        >>> detector = NanoDetConfig(size="m").build(num_classes=40)
        >>> maps = [torch.zeros(1, 96, 32 // stride, 32 // stride) for stride in detector.strides]
        >>> detector.regions(maps, [torch.tensor([[0.0, 0, 16, 16]])], resolution=7).shape
        torch.Size([1, 96, 7, 7])
    """

    config: DetectorConfig
    channels: int  # of every pyramid map
    strides: list[int]  # of the pyramid maps that regions are cut from, finest first
    all_strides: list[int]  # of all pyramid maps
    proposes_from_maps: bool  # whether its boxes come from the pyramid, so that `taps` are `maps`
    aligned: bool = True  # shift boxes by half a cell in roi_align; off for weights trained without it
    sampling: int = 2  # points per cell and side
    fixed_shapes: bool = False  # for export: cut every box from every map, then choose, so that shapes are constant

    def __init__(self) -> None:
        super().__init__()
        self.attention: RegionsPlug | None = None  # object level

    def graphs(self) -> list[Graph]:
        """Return the parts that an engine can compute; none by default."""
        return []

    @abstractmethod
    def extract(self, images: Images) -> Features:
        """Compute the feature maps of B images."""

    @abstractmethod
    def detect(self, features: Features, images: Images) -> list[Detections]:
        """Detect the boxes of each image, best first, after suppression.

        They are on the CPU, where all is decided that follows from a few boxes.
        """

    @abstractmethod
    def losses(self, features: Features, images: Images, targets: list[Targets]) -> tuple[Losses, list[Samples]]:
        """Compute the named losses, and per image the regions that mask and match heads learn on."""

    def detect_fixed(self, features: Features, images: Images) -> tuple[Detections, Tensor]:
        """Do `detect` for one image with fixed shapes: a constant number D of boxes, and which exist, bool [D].

        Raises ConfigError if the detector cannot do this.
        """
        raise ConfigError(f"export: {type(self).__name__} has no form with fixed shapes")

    def cells(self, features: Features, boxes: list[Tensor], resolution: int) -> Tensor:
        """Cut the region features of the boxes for the heads, refined by object-level attention if it is on.

        Args:
            features: of B images.
            boxes: corners in input pixels, [N_i, 4] per image, on the CPU or on the device of the features.
            resolution: cells per side.

        Returns cells [sum N_i, C, resolution, resolution], in the order of the boxes.
        """
        cells = self.regions(features.maps, boxes, resolution)
        if self.attention is None or features.supports is None:
            return cells

        counts = [len(image_boxes) for image_boxes in boxes]
        per_image = zip(cells.split(counts), features.supports, strict=True)
        refined = [self.attention.refine(image_cells, support) for image_cells, support in per_image]
        return torch.cat(refined)

    def regions(self, maps: list[Tensor], boxes: list[Tensor], resolution: int) -> Tensor:
        """Cut boxes of each image [N_i, 4] from the pyramid: cells [sum N_i, C, resolution, resolution], in order.

        A box is cut from the level whose stride suits its size: floor(log2(sqrt(w h) / (14 s_0))), s_0 the finest
        stride. That is the usual rule with 56 pixels on the level of stride 4 (docs/papers/masktrack_rcnn.md).
        """
        numbered = []
        for image, image_boxes in enumerate(boxes):
            column = image_boxes.new_full((len(image_boxes), 1), image)
            numbered.append(torch.cat([column, image_boxes], 1))
        rows = torch.cat(numbered)

        area = (rows[:, 3] - rows[:, 1]) * (rows[:, 4] - rows[:, 2])
        size = area.clamp(min=1e-6).sqrt()
        level = torch.log2(size / (14 * self.strides[0])) + 1e-6
        level = level.floor().clamp(0, len(self.strides) - 1)
        if self.fixed_shapes:
            return self._cut_from_all(maps, rows, level, resolution)

        order = level.argsort(stable=True)
        counts = [(level == i).sum() for i in range(len(self.strides))]
        parts = upload(rows[order], maps[0].device).split(torch.stack(counts).tolist())
        cells = [
            self._cut(level_maps, part, resolution, stride)
            for level_maps, part, stride in zip(maps, parts, self.strides, strict=False)
            if len(part)
        ]
        if not cells:
            return maps[0].new_zeros(0, self.channels, resolution, resolution)
        if len(cells) == 1:
            return cells[0]
        return torch.cat(cells)[upload(order.argsort(), maps[0].device)]

    def _cut_from_all(self, maps: list[Tensor], rows: Tensor, level: Tensor, resolution: int) -> Tensor:
        """Cut every row from every level, then choose that of its `level` [N]: shapes do not depend on values."""
        out = maps[0].new_zeros(len(rows), self.channels, resolution, resolution)
        for i, (level_maps, stride) in enumerate(zip(maps, self.strides, strict=False)):
            cells = self._cut(level_maps, rows, resolution, stride)
            out = torch.where((level == i)[:, None, None, None], cells, out)
        return out

    def _cut(self, maps: Tensor, rows: Tensor, resolution: int, stride: int) -> Tensor:
        """Cut rows (image, x1, y1, x2, y2) from the maps of one level, [N, C, resolution, resolution].

        Computed in float32, returned in the type of `maps`: bfloat16 would round a box's corners to one or two pixels,
        and on Apple GPUs torchvision has no kernel for it.
        """
        cells: Tensor = roi_align(
            maps.float(), rows.float(), resolution, 1 / stride, self.sampling, aligned=self.aligned
        )
        return cells.to(maps.dtype)
