"""The sockets of mask and match heads: what a head answers, and what it is given.

A head owns its losses and its inference; the host (`model.py`) calls the methods below and never asks what a head is.
The other sockets stand beside their plugs: `detector.py`, `neck.py`, `regions.py`. To add a paper, subclass a plug and
its config; tests/models/rcnn/test_plugs.py does so for each.
Letters: B images, N regions, M known objects, C channels, K classes, r cells of a region's side, D a descriptor's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.core.plugs import PlugConfig
from tubelet.core.protocol import Glance
from tubelet.core.types import Losses
from tubelet.models.rcnn.context import FrameFeatures
from tubelet.models.rcnn.detectors.detector import Detections, Detector, Features, Samples, Targets
from tubelet.models.rcnn.heads.paste import paste
from tubelet.models.rcnn.targets import columns_of, crop_masks


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B training images. Heads learn on the regions of key frames, and compare them with reference frames."""

    detector: Detector
    features: Features
    frames: list[Tensor]  # uint8 [3, H, W] each, at its own size
    targets: list[Targets]
    samples: dict[int, Samples]  # of key frames, by position in the batch, ascending
    reference: dict[int, int]  # of every frame

    def cells(self, images: list[int], boxes: list[Tensor], resolution: int) -> Tensor:
        """What heads see of boxes [N_i, 4] of some images, ascending: [sum N_i, C, resolution, resolution]."""
        assert images == sorted(images), "images must come in ascending order"
        nothing = torch.zeros(0, 4, device=self.features.maps[0].device)
        of_image = dict(zip(images, boxes, strict=True))
        everywhere = [of_image.get(i, nothing) for i in range(len(self.features.maps[0]))]
        return self.detector.cells(self.features, everywhere, resolution)

    def labels(self, samples: dict[int, Samples]) -> Tensor:
        """The class of each region's object, [N]."""
        return torch.cat([self.targets[i].labels[s.matched] for i, s in samples.items()])

    def masks(self, samples: dict[int, Samples], boxes: list[Tensor], resolution: int) -> Tensor:
        """The truth of each region's object within its box, 0/1 [N, resolution, resolution]."""
        pairs = zip(samples.items(), boxes, strict=True)
        return torch.cat([crop_masks(self.targets[i], s.matched, b, resolution) for (i, s), b in pairs])


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One frame of a stream as heads see it."""

    detector: Detector
    features: Features  # of one image
    frame: Tensor  # uint8 [3, H, W], at its own size
    scale: Tensor  # [4]: input = frame * scale

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frame."""
        return self.frame.shape[-2], self.frame.shape[-1]

    def cells(self, boxes: Tensor, resolution: int) -> Tensor:
        """What heads see of boxes [N, 4] in input pixels, [N, C, resolution, resolution]."""
        return self.detector.cells(self.features, [boxes], resolution)


class MaskConfig(PlugConfig):
    """What fits the socket `mask`."""

    default_kind = "cells"  # files of the first version name none

    @abstractmethod
    def build(self, channels: int, num_classes: int) -> MaskPlug:
        """For a pyramid of so many channels."""


class MaskPlug(nn.Module, ABC):
    """A mask head: learns on regions, and gives the masks of detected boxes."""

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """Named losses; without any region they are zero and still reach every parameter."""

    @abstractmethod
    def inside(self, view: View, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Regions [N, 4] around the boxes and the mask probabilities in them, [N, h, w], by fixed shapes."""

    def masks(self, view: View, boxes: Tensor, labels: Tensor) -> Tensor:
        """Mask probabilities in the whole frame, [N, H, W]."""
        if len(boxes) == 0:
            return boxes.new_zeros(0, *view.size)
        regions, masks = self.inside(view, boxes, labels)
        return paste(masks, regions / view.scale, view.size)

    def reach(self, boxes: Tensor) -> Tensor:
        """The regions [N, 4] within which masks of the boxes are drawn sharply; by default the boxes."""
        return boxes

    def rescored(self, found: Detections, masks: Tensor) -> Detections:
        """The detections with the scores that their masks [N, H, W] deserve; by default their own."""
        return found


class MatchConfig(PlugConfig):
    """What fits the socket `match`."""

    @abstractmethod
    def build(self, channels: int, strides: list[int]) -> MatchPlug:
        """For a pyramid of maps of that many channels at these strides."""


class MatchPlug(nn.Module, ABC):
    """A match head: describes regions, and compares descriptors of this frame with those of known objects."""

    resolution: int  # cells of a region's side
    has_glances: bool = False  # whether `glances` returns anything

    @abstractmethod
    def describe(self, regions: Tensor) -> Tensor:
        """[N, C, r, r] -> what the memory keeps of each region, [N, ...]."""

    @abstractmethod
    def compare(self, features: Features, boxes: Tensor, current: Tensor, known: Tensor) -> Tensor:
        """Match logits [N, M + 1] of boxes [N, 4] of one image, given descriptors; column 0 is a new object."""

    def compare_training(
        self, features: Features, boxes: Tensor, current: Tensor, known: Tensor, past: Targets, now: Targets
    ) -> tuple[Tensor, Losses]:
        """`compare` with further losses of that image; `past` is the truth of the known, `now` that of the image."""
        return self.compare(features, boxes, current, known), {}

    def losses(self, batch: Batch, average: Literal["positives", "all"] = "positives") -> Losses:
        """Cross-entropy over the M + 1 columns of the match matrix: mean over regions, then over images.

        `average` says which regions the sum is divided by: those with an object, or all that were drawn.
        """
        samples, targets = batch.samples, batch.targets
        boxes = [s.boxes for s in samples.values()]
        current = self.describe(batch.cells(list(samples), boxes, self.resolution))
        frames = sorted({batch.reference[i] for i in samples})
        known = self.describe(batch.cells(frames, [targets[i].boxes for i in frames], self.resolution))
        per_key = dict(zip(samples, current.split([len(b) for b in boxes]), strict=True))
        per_frame = dict(zip(frames, known.split([len(targets[i].boxes) for i in frames]), strict=True))
        losses: list[Tensor] = []
        further: dict[str, list[Tensor]] = {}
        nothing = current.sum() * 0 + known.sum() * 0
        for i, sample in samples.items():
            reference = batch.reference[i]
            past, now = targets[reference], targets[i]
            logits, more = self.compare_training(
                batch.features.at(i), sample.boxes, per_key[i], per_frame[reference], past, now
            )
            for name, loss in more.items():
                further.setdefault(name, []).append(loss)
            logits = logits.float()
            column = columns_of(now, sample.matched, past)
            divisor = sample.drawn if average == "all" else len(column)
            if len(column):
                losses.append(F.cross_entropy(logits, column, reduction="sum") / divisor)
            nothing = nothing + logits.sum() * 0
        match = torch.stack(losses).mean() if losses else nothing
        return {"match": match} | {name: torch.stack(values).mean() for name, values in further.items()}

    def glances(
        self, features: Features, box: Tensor, current: Tensor, known: Tensor, ids: Tensor, frame: FrameFeatures
    ) -> list[Glance]:
        """Where the head looks in the frame for a box [1, 4] with its descriptor; none by default."""
        return []
