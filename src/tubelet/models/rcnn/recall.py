"""Find objects that the detector misses for a few frames, near their last boxes.

Ours, in no paper. A one-stage detector loses an object in single frames (blur, an odd pose), and
each gap may cost its identity. The mask head, run on the last box, moves the box with the object;
the match head says whether it is still that object.
Letters: M objects in memory, L lost ones among them, N detections, K classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from tubelet.core import boxes as box_ops
from tubelet.core.config import Config
from tubelet.models.rcnn.detectors.detector import Detections
from tubelet.models.rcnn.memory import Memory


class PresenceConfig(Config):
    """Weights of a logistic regression: is an undetected object visible where it was?

    Example:
        >>> from tubelet.models.rcnn.recall import PresenceConfig, presence, signs
        >>> config = PresenceConfig(bias=1.0, agreement=0.5)
        >>> one = torch.tensor([0.5])
        >>> presence(config, signs(agreement=one, gap=one, sureness=one, near=one, overlap=one))
        tensor([0.7311])
    """

    bias: float = 0.0
    agreement: float = 0.0  # of the log odds of the match probability
    gap: float = 0.0  # of the logarithm of the frames since its last detection
    sureness: float = 0.0  # of the mean probability inside its mask
    near: float = 0.0  # of the logarithm of the best detection's score in its class, times its IoU with the last box
    overlap: float = 0.0  # of the best IoU of any detection with its last box
    least: float = Field(default=0.5, ge=0, le=1)  # probability from which an object counts as visible


class RecallConfig(Config):
    """When an undetected object counts as still present.

    Example:
        >>> from tubelet.models.rcnn.model import MaskTrackConfig
        >>> from tubelet.models.rcnn.recall import RecallConfig
        >>> MaskTrackConfig(recall=RecallConfig(frames=4)).recall.frames
        4
    """

    frames: int = Field(default=8, ge=1)  # after its last detection
    agreement: float = Field(default=0.5, ge=0, le=1)  # match probability of the region with the object itself
    overlap: float = Field(default=0.5, ge=0, le=1)  # IoU of a detected box with the object's above which it is skipped
    decay: float = Field(default=0.9, gt=0, le=1)  # of its score with every frame
    change: float = Field(default=2.0, ge=1)  # largest factor by which its box's area may change between frames
    presence: PresenceConfig | None = None  # decides in the place of `agreement`


NO_DETECTIONS = Detections(boxes=torch.zeros(0, 4), scores=torch.zeros(0, 1))


class Search(NamedTuple):
    """C objects that may be lost, and what is seen at their last boxes.

    Example:
        >>> from tubelet.models.rcnn.recall import Search
        >>> search = Search(objects=torch.tensor([1, 4]), logits=torch.tensor([[0.0, 1.0], [0.0, 2.0]]))
        >>> search.of(torch.tensor([4]))
        tensor([[0., 2.]])
    """

    objects: Tensor  # their positions in memory, ascending [C]
    logits: Tensor  # of the match with the M objects in memory after the frame's detections, [C, M + 1]
    detections: Detections = NO_DETECTIONS  # of the frame, also those that the association drops

    def of(self, lost: Tensor) -> Tensor:
        """Return the logits of some of them, by their positions in memory."""
        return self.logits[torch.searchsorted(self.objects, lost)]


NO_SEARCH = Search(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1))


def missing(memory: Memory, detected: Tensor, config: RecallConfig) -> Tensor:
    """Return the positions in memory of lost objects to search for, [L].

    Args:
        memory: The memory after the detections of this frame.
        detected: Boxes of this frame's detections, [N, 4].
        config: Which objects are skipped.
    """
    lost = recent(memory, config) & (memory.seen < memory.time)
    if len(detected) and lost.any():
        lost &= box_ops.iou(memory.boxes, detected).amax(1) <= config.overlap
    return lost.nonzero()[:, 0]


def recent(memory: Memory, config: RecallConfig) -> Tensor:
    """Return which objects were detected in this shot, and not too long ago: those that may be lost now, bool [M]."""
    return (memory.seen >= memory.time - config.frames) & ~memory.elsewhere


def faded(memory: Memory, lost: Tensor, decay: float) -> Tensor:
    """Return class scores [L, K] of lost objects, times `decay` per frame without a detection."""
    gap = (memory.time - memory.seen[lost])[:, None]
    return memory.scores[lost] * decay ** gap.to(memory.scores.dtype)


def follow(
    memory: Memory, lost: Tensor, masks: Tensor, regions: Tensor, scale: Tensor, change: float
) -> tuple[Memory, Tensor]:
    """Move the boxes of lost objects to their masks in this frame.

    Args:
        memory: The memory.
        lost: Positions of the lost objects in memory, [L].
        masks: Their mask probabilities in this frame, [L, H, W].
        regions: Boxes for which the masks were predicted, [L, 4]. Boxes are clipped to them,
            because pasting blurs a mask beyond its region.
        scale: input = frame * scale, [4].
        change: Largest plausible factor between the areas of old and new box.

    Returns:
        The memory with the plausible boxes, and which of them are plausible, bool [L].
    """
    boxes = box_ops.from_masks(masks > 0.5) * scale
    corner = torch.maximum(boxes[:, :2], regions[:, :2])
    opposite = torch.minimum(boxes[:, 2:], regions[:, 2:])
    boxes = torch.cat([corner, opposite], 1)

    ratio = box_ops.area(boxes) / box_ops.area(memory.boxes[lost]).clamp(min=1)
    plausible = (ratio <= change) & (ratio >= 1 / change)
    moved = memory.boxes.clone()
    moved[lost[plausible]] = boxes[plausible]
    return replace(memory, boxes=moved), plausible


def same_probability(logits: Tensor, lost: Tensor) -> Tensor:
    """Return the probability that each region shows the object whose box it was cut at, [L].

    Args:
        logits: Match logits of the L regions, [L, M + 1]; column 0 is a new object.
        lost: Positions of the objects in memory, [L].

    Example:
        >>> from tubelet.models.rcnn.recall import same_probability
        >>> same_probability(torch.tensor([[0.0, 0.0, 100.0]]), lost=torch.tensor([1]))
        tensor([1.])
    """
    rows = torch.arange(len(lost))
    return logits.float().softmax(1)[rows, lost + 1]


def presence(config: PresenceConfig, known: Tensor) -> Tensor:
    """Return the probability that undetected objects of these `signs` [L, 5] are visible, [L]."""
    weights = known.new_tensor([config.agreement, config.gap, config.sureness, config.near, config.overlap])
    return (config.bias + (known * weights).sum(1)).sigmoid()  # a matrix product would be bfloat16 under autocast


def are_present(config: PresenceConfig, memory: Memory, lost: Tensor, search: Search, sureness: Tensor) -> Tensor:
    """Return which undetected objects, with masks as sure as `sureness` [L], count as visible, bool [L]."""
    return presence(config, signs_of(memory, lost, search, sureness)) >= config.least


def recognised_at_last(config: RecallConfig, memory: Memory, detected: Tensor, search: Search) -> Tensor:
    """Return the positions in memory of lost objects that are recognised at their last boxes, [L].

    Args:
        config: By which probability.
        memory: The memory after the detections of this frame.
        detected: Boxes of this frame's detections, [N, 4].
        search: What is seen at the last boxes.
    """
    lost = missing(memory, detected, config)
    if len(lost) == 0:
        return lost
    if config.presence is None:
        return lost[same_probability(search.of(lost), lost) >= config.agreement]
    surest = torch.full((len(lost),), 1.0 if config.presence.sureness > 0 else 0.0)
    return lost[are_present(config.presence, memory, lost, search, surest)]


def signs_of(memory: Memory, lost: Tensor, search: Search, sureness: Tensor) -> Tensor:
    """Return the signs of undetected objects, [L, 5]; see `signs`.

    Args:
        memory: The memory after the detections of this frame.
        lost: Positions of the objects in memory, [L].
        search: What is seen at their last boxes.
        sureness: Mean probability inside their masks, [L].
    """
    near, overlap = detected_near(memory, lost, search.detections)
    return signs(
        agreement=same_probability(search.of(lost), lost),
        gap=(memory.time - memory.seen[lost]).float(),
        sureness=sureness.float(),
        near=near,
        overlap=overlap,
    )


def signs(*, agreement: Tensor, gap: Tensor, sureness: Tensor, near: Tensor, overlap: Tensor) -> Tensor:
    """Return what the weights of `presence` are multiplied by, [L, 5]: probabilities as log odds, gaps as logarithms.

    Args:
        agreement: Match probability of the region with the object itself, [L].
        gap: Frames since its last detection, [L].
        sureness: Mean probability inside its mask, [L].
        near: Score of a detection in the object's class times its IoU with the last box, of the best, [L].
        overlap: IoU of the nearest detection with the last box, [L].

    Example:
        >>> from tubelet.models.rcnn.recall import signs
        >>> one = torch.ones(1)
        >>> signs(agreement=0.5 * one, gap=one, sureness=0.9 * one, near=0.99 * one, overlap=0.8 * one)
        tensor([[0.0000, 0.0000, 0.9000, 0.0000, 0.8000]])
    """
    odds = agreement.clamp(1e-3, 1 - 1e-3).logit()
    return torch.stack([odds, gap.log(), sureness, (near + 0.01).log(), overlap], 1)


def detected_near(memory: Memory, lost: Tensor, detections: Detections) -> tuple[Tensor, Tensor]:
    """Return `near` and `overlap` of `signs` for the objects at these positions in memory, [L] each.

    Example:
        >>> from types import SimpleNamespace
        >>> from tubelet.models.rcnn.detectors.detector import Detections
        >>> from tubelet.models.rcnn.recall import detected_near
        >>> box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
        >>> memory = SimpleNamespace(boxes=box, labels=torch.tensor([1]))  # only these are read
        >>> detections = Detections(boxes=box / 2, scores=torch.tensor([[0.0, 0.8]]))
        >>> detected_near(memory, torch.tensor([0]), detections)
        (tensor([0.2000]), tensor([0.2500]))
    """
    if len(detections) == 0:
        none = torch.zeros(len(lost))
        return none, none
    overlaps = box_ops.iou(memory.boxes[lost], detections.boxes)
    scores = detections.scores[:, memory.labels[lost]].T
    return (overlaps * scores).amax(1), overlaps.amax(1)
