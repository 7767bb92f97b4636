"""The sockets of mask and match heads: their interface to the detector and the model.

A head computes its own losses and its own inference; the model (`model.py`) calls only the methods
below. The other sockets are in `detector.py`, `neck.py` and `regions.py`. To add the head of a
paper, subclass a plug and its config; tests/models/rcnn/test_plugs.py does so for each.

Letters: B images, N regions, M known objects, C channels, K classes, r cells of a region's side,
H and W the frame's size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.core.plugs import PlugConfig
from tubelet.core.protocol import Glance
from tubelet.core.types import Losses
from tubelet.engines.graph import Graph
from tubelet.models.rcnn.context import FrameFeatures
from tubelet.models.rcnn.detectors.detector import Detections, Detector, Features, Samples, Targets
from tubelet.models.rcnn.heads.paste import FrameMasks, paste
from tubelet.models.rcnn.targets import columns_of, crop_masks


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B training images, as heads read them.

    Heads learn on the regions of key frames, and match them with the objects of reference frames.
    """

    detector: Detector
    features: Features
    frames: list[Tensor]  # uint8 [3, H, W] each, at its own size
    targets: list[Targets]  # of each image
    samples: dict[int, Samples]  # of key frames, by position in the batch, ascending
    reference: dict[int, int]  # of every frame: the position of its reference frame

    def cells(self, images: list[int], boxes: list[Tensor], resolution: int) -> Tensor:
        """Cut regions from the pyramid: [sum N_i, C, resolution, resolution].

        `boxes` [N_i, 4], in input pixels, belong to these `images`, whose positions must ascend.
        """
        assert images == sorted(images), "images must come in ascending order"
        no_boxes = torch.zeros(0, 4, device=self.features.maps[0].device)
        num_images = len(self.features.maps[0])

        boxes_by_image = dict(zip(images, boxes, strict=True))
        boxes_of_all = [boxes_by_image.get(i, no_boxes) for i in range(num_images)]
        return self.detector.cells(self.features, boxes_of_all, resolution)

    def labels(self, samples: dict[int, Samples]) -> Tensor:
        """Look up the class of each region's object, [N]."""
        labels = [self.targets[i].labels[s.matched] for i, s in samples.items()]
        return torch.cat(labels)

    def masks(self, samples: dict[int, Samples], boxes: list[Tensor], resolution: int) -> Tensor:
        """Crop the true mask of each region's object to its box, 0/1 [N, resolution, resolution].

        `boxes` [N_i, 4] are in input pixels, one tensor per image of `samples`.
        """
        masks = []
        for (i, sample), image_boxes in zip(samples.items(), boxes, strict=True):
            crops = crop_masks(self.targets[i], sample.matched, image_boxes, resolution)
            masks.append(crops)
        return torch.cat(masks)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One frame of a stream, as heads read it: its pixels and maps on their device, boxes on the CPU."""

    detector: Detector
    features: Features  # of one image
    frame: Tensor  # uint8 [3, H, W], at its own size
    scale: Tensor  # [4]: input = frame * scale

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frame."""
        return self.frame.shape[-2], self.frame.shape[-1]

    def cells(self, boxes: Tensor, resolution: int) -> Tensor:
        """Cut regions under boxes [N, 4], in input pixels: [N, C, resolution, resolution]."""
        return self.detector.cells(self.features, [boxes], resolution)


class MaskConfig(PlugConfig):
    """The socket `mask`: base of the configs of mask heads.

    Example:
        >>> from tubelet.models.rcnn.heads.sockets import MaskConfig
        >>> from tubelet.models.rcnn.heads.standard import MaskHeadConfig  # importing adds the plug
        >>> MaskConfig.kinds()["cells"] is MaskHeadConfig
        True
    """

    default_kind = "cells"  # files of the first version have no `kind`

    @abstractmethod
    def build(self, channels: int, num_classes: int) -> MaskPlug:
        """Build the head for a pyramid of `channels` channels."""


class MaskPlug(nn.Module, ABC):
    """Base of mask heads: they learn on regions, and predict the masks of detected boxes.

    Example:
        >>> from types import SimpleNamespace
        >>> from tubelet.models.rcnn.heads.sockets import MaskPlug
        >>> class FullBox(MaskPlug):
        ...     def losses(self, batch):
        ...         return {}
        ...     def inside(self, view, boxes, labels):
        ...         return boxes, torch.ones(len(boxes), 4, 4)
        >>> view = SimpleNamespace(size=(40, 60), scale=torch.ones(4))  # `masks` reads no more
        >>> boxes = torch.tensor([[10.0, 10.0, 30.0, 20.0]])
        >>> FullBox().masks(view, boxes, torch.tensor([0])).probabilities.shape
        torch.Size([1, 40, 60])
    """

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """Compute named losses.

        Without any region they must be zero, and still depend on every parameter.
        """

    @abstractmethod
    def inside(self, view: View, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute regions [N, 4] around the boxes and the mask probabilities in them, [N, h, w].

        Exported networks use this: all shapes follow from N alone.
        """

    def masks(self, view: View, boxes: Tensor, labels: Tensor, groups: Sequence[int] = ()) -> FrameMasks:
        """Compute mask probabilities in the whole frame, of boxes [N, 4] in input pixels.

        Masks leave the device as they are predicted, a few thousand cells an object whatever the
        size of the frame, all at once, and are pasted on the CPU.

        Args:
            view: The frame.
            boxes: Boxes on the CPU, in groups each of which has its best first.
            labels: Their classes [N].
            groups: Number of boxes in each group; without, all are one.
        """
        if len(boxes) == 0:
            return FrameMasks.none(view.size)

        regions, masks = self.inside(view, boxes, labels)
        return paste(masks.cpu(), regions / view.scale, view.size)

    def reach(self, boxes: Tensor) -> Tensor:
        """Return the regions [N, 4] that the masks of the boxes cover; by default the boxes."""
        return boxes

    def rescored(self, found: Detections, masks: FrameMasks) -> Detections:
        """Return the detections with scores adapted to their masks; by default unchanged."""
        return found

    def graphs(self) -> list[Graph]:
        """Return the parts that an engine can compute; none by default."""
        return []


class MatchConfig(PlugConfig):
    """The socket `match`: base of the configs of match heads.

    Example:
        >>> from tubelet.models.rcnn.heads.sockets import MatchConfig
        >>> from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig
        >>> MatchConfig.kinds()["fully_connected"] is FullyConnectedMatchConfig
        True
    """

    @abstractmethod
    def build(self, channels: int, strides: list[int]) -> MatchPlug:
        """Build the head for a pyramid of maps with `channels` channels at these strides."""


class MatchPlug(nn.Module, ABC):
    """Base of match heads: they describe regions, and compare detections with known objects.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Features
        >>> from tubelet.models.rcnn.heads.sockets import MatchPlug
        >>> class MeanMatch(MatchPlug):
        ...     resolution = 7
        ...     def describe(self, regions):
        ...         return regions.mean((2, 3))
        ...     def compare(self, features, boxes, current, known):
        ...         return torch.cat([torch.zeros(len(current), 1), current @ known.T], 1)
        >>> head = MeanMatch()
        >>> current = head.describe(torch.ones(2, 4, 7, 7))
        >>> head.compare(Features(maps=[], taps=[]), torch.zeros(2, 4), current, current[:1])
        tensor([[0., 4.],
                [0., 4.]])
    """

    resolution: int  # cells of a region's side
    has_glances: bool = False  # whether `glances` returns anything

    def graphs(self) -> list[Graph]:
        """Return the parts that an engine can compute; none by default."""
        return []

    @abstractmethod
    def describe(self, regions: Tensor) -> Tensor:
        """Compute the descriptors [N, ...] that memory stores, of regions [N, C, r, r]."""

    @abstractmethod
    def compare(self, features: Features, boxes: Tensor, current: Tensor, known: Tensor) -> Tensor:
        """Compute match logits [N, M + 1] of boxes [N, 4] of one image; column 0 is a new object.

        `current` are the descriptors of the boxes, `known` those of the M known objects. Boxes are
        in input pixels, in inference on the CPU. The column of an object must not depend on the
        other objects.
        """

    def compare_training(
        self, features: Features, boxes: Tensor, current: Tensor, known: Tensor, past: Targets, now: Targets
    ) -> tuple[Tensor, Losses]:
        """Compute match logits like `compare`, and further losses of that image; by default none.

        `past` are the targets of the known objects' frame, `now` those of the image.
        """
        return self.compare(features, boxes, current, known), {}

    def losses(self, batch: Batch, average: Literal["positives", "all"] = "positives") -> Losses:
        """Compute the cross-entropy over the M + 1 columns, and the losses of `compare_training`.

        The cross-entropy of an image is the sum over its regions divided by their number: of those
        with an object ("positives"), or of all that were drawn ("all"). Losses of images are
        averaged.
        """
        samples = batch.samples
        targets = batch.targets

        key_boxes = [s.boxes for s in samples.values()]
        current = self.describe(batch.cells(list(samples), key_boxes, self.resolution))

        reference_frames = sorted({batch.reference[i] for i in samples})
        known_boxes = [targets[i].boxes for i in reference_frames]
        known = self.describe(batch.cells(reference_frames, known_boxes, self.resolution))

        current_parts = current.split([len(b) for b in key_boxes])
        known_parts = known.split([len(b) for b in known_boxes])
        current_by_frame = dict(zip(samples, current_parts, strict=True))
        known_by_frame = dict(zip(reference_frames, known_parts, strict=True))

        match_losses: list[Tensor] = []
        further_losses: dict[str, list[Tensor]] = {}
        zero = current.sum() * 0 + known.sum() * 0  # depends on every parameter

        for i, sample in samples.items():
            reference = batch.reference[i]
            past = targets[reference]
            now = targets[i]

            logits, image_losses = self.compare_training(
                batch.features.at(i), sample.boxes, current_by_frame[i], known_by_frame[reference], past, now
            )
            for name, loss in image_losses.items():
                further_losses.setdefault(name, []).append(loss)

            logits = logits.float()
            columns = columns_of(now, sample.matched, past)
            divisor = sample.drawn if average == "all" else len(columns)
            if len(columns):
                cross_entropy = F.cross_entropy(logits, columns, reduction="sum")
                match_losses.append(cross_entropy / divisor)
            zero = zero + logits.sum() * 0

        match = torch.stack(match_losses).mean() if match_losses else zero
        further = {name: torch.stack(values).mean() for name, values in further_losses.items()}
        return {"match": match} | further

    def glances(
        self, features: Features, box: Tensor, current: Tensor, known: Tensor, ids: Tensor, frame: FrameFeatures
    ) -> list[Glance]:
        """Return maps of where the head looks in the frame for a box [1, 4]; by default none.

        `current` is the box's descriptor; `known` and `ids` are those of the M known objects.
        """
        return []
