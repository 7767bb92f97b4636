"""Name an object by all its frames, and say so in its score when they disagree.

Ours, in no paper. A detector takes a dog for a sheep in some frames, and is sure of it in each. So
frames vote: each adds its class probabilities, a large view more than a small one. An object's class
probabilities are the shares of the votes so far times the confidence that it is an object at all: of
a dog that got 55 % of the votes, the score is at most 0.55. An object that is surely there is not lost
for want of a name: its score is not lowered below a floor.

Letters: N objects, K classes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from tubelet.core import boxes as box_ops
from tubelet.core.config import Config
from tubelet.models.rcnn.detectors.detector import Detections


class NamingConfig(Config):
    """How much a frame's vote counts.

    Example:
        >>> from tubelet.models.rcnn.model import MaskTrackConfig
        >>> from tubelet.models.rcnn.naming import NamingConfig
        >>> MaskTrackConfig(naming=NamingConfig(size=0)).naming.size  # every frame counts the same
        0.0
    """

    size: float = Field(default=0.5, ge=0, le=2)  # a vote's weight is the box's share of the frame to this power
    floor: float = Field(default=0.5, ge=0, le=1)  # disagreement does not bring a score below this


def votes_of(detections: Detections, frame: tuple[int, int], size: float) -> Tensor:
    """Weigh the class probabilities of N detections as votes, [N, K].

    Args:
        detections: The detections of one frame.
        frame: Height and width of the frame in input pixels.
        size: Power of a box's share of the frame, the weight of its vote.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Detections
        >>> from tubelet.models.rcnn.naming import votes_of
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 5.0, 5.0]])
        >>> detections = Detections(boxes=boxes, scores=torch.tensor([[0.8, 0.0], [0.0, 0.8]]))
        >>> votes_of(detections, frame=(10, 10), size=0.5)
        tensor([[0.8000, 0.0000],
                [0.0000, 0.4000]])
    """
    height, width = frame
    share = box_ops.area(detections.boxes) / (height * width)
    return detections.scores * share.clamp(min=1e-6).pow(size)[:, None].to(detections.scores)


def named(detections: Detections, votes: Tensor, floor: float = 0.0) -> Detections:
    """Replace class probabilities by shares of the votes [N, K] times the detections' confidence.

    The best class has at least `floor`, or the confidence where that is lower.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Detections
        >>> from tubelet.models.rcnn.naming import named
        >>> detections = Detections(boxes=torch.zeros(1, 4), scores=torch.tensor([[1.0, 0.9]]))
        >>> named(detections, torch.tensor([[4.5, 5.5]])).scores
        tensor([[0.4500, 0.5500]])
    """
    shares = votes / votes.sum(1, keepdim=True).clamp(min=1e-12)
    confidence = detections.confidence[:, None]
    scores = confidence * shares.to(confidence)

    best = votes.argmax(1, keepdim=True)
    lowest = confidence.clamp(max=floor)
    scores = scores.scatter(1, best, torch.maximum(scores.gather(1, best), lowest))
    return replace(detections, scores=scores)
