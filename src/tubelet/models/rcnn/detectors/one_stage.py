"""What one-stage detectors share: their thresholds, how boxes are chosen, and the regions that heads learn on.

A one-stage detector scores a fixed set of boxes. The best of them are kept by greedy suppression. There is no
second stage that draws regions for training, so mask and match heads learn on truth boxes whose corners are moved
a little, and on detections that fit an object: the boxes that they will be given at test.

Letters: A boxes that the network scores, N detections, K classes.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torchvision.ops import batched_nms, nms

from tubelet.core import boxes as box_ops
from tubelet.models.rcnn.detectors.detector import Detections, DetectorConfig, Samples, Targets
from tubelet.models.rcnn.detectors.fixed_shapes import NOTHING, suppress

MOST = 400  # candidates of an image, before suppression


class OneStageConfig(DetectorConfig):
    """Thresholds, suppression, and the regions for the heads.

    Example:
        >>> from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
        >>> NanoDetConfig(score_threshold=0.1).nms
        0.6
    """

    frozen: bool = False  # the whole detector stays as pretrained
    calibration: tuple[float, float] = (1.0, 0.0)  # scores are sigmoid(a logit + b): the share that is right at a score
    score_threshold: float = Field(default=0.05, ge=0, le=1)
    nms: float = Field(default=0.6, ge=0, le=1)  # overlap (IoU) above which the weaker of two boxes is dropped
    suppress: Literal["per_class", "across_classes"] = "per_class"
    max_detections: int = Field(default=10, ge=1)
    jitter: float = Field(default=0.125, ge=0, le=1)  # of truth boxes that heads learn on, as a share of their size
    jittered: int = Field(default=16, ge=1)  # truth boxes per image that heads learn on, at most
    found: int = Field(default=12, ge=1)  # detections per image that heads learn on, at most


def select(scores: Tensor, boxes: Tensor, config: OneStageConfig) -> Detections:
    """Keep the best boxes of one image after suppression, best first.

    Args:
        scores: probabilities [A, K].
        boxes: corners in input pixels [A, 4].
        config: thresholds.

    Example:
        >>> from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
        >>> from tubelet.models.rcnn.detectors.one_stage import select
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10], [50, 50, 60, 60]])
        >>> scores = torch.tensor([[0.9], [0.8], [0.01]])
        >>> select(scores, boxes, NanoDetConfig()).boxes.tolist()
        [[0.0, 0.0, 10.0, 10.0]]
    """
    rows = candidates(scores, config)
    return suppressed(scores[rows], boxes[rows], config)


def candidates(scores: Tensor, config: OneStageConfig) -> Tensor:
    """Return the rows of scores [A, K] whose best is above the threshold, best first, at most MOST.

    Example:
        >>> from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
        >>> from tubelet.models.rcnn.detectors.one_stage import candidates
        >>> candidates(torch.tensor([[0.2], [0.01], [0.9]]), NanoDetConfig()).tolist()
        [2, 0]
    """
    best = scores.amax(1)
    rows = (best > config.score_threshold).nonzero()[:, 0]
    return rows[best[rows].argsort(descending=True, stable=True)[:MOST]]


def suppressed(scores: Tensor, boxes: Tensor, config: OneStageConfig) -> Detections:
    """Keep the best of candidates [A, K], [A, 4], which are sorted, by greedy suppression."""
    best = scores.amax(1)
    if config.suppress == "across_classes":
        keep = nms(boxes, best, config.nms)
    else:
        keep = batched_nms(boxes, best, scores.argmax(1), config.nms)

    keep = keep[: config.max_detections]
    return Detections(boxes=boxes[keep], scores=scores[keep])


def select_fixed(scores: Tensor, boxes: Tensor, config: OneStageConfig) -> tuple[Detections, Tensor]:
    """`select` by fixed shapes, for files: always `max_detections` boxes, and which of them exist, bool [D].

    Example:
        >>> from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
        >>> from tubelet.models.rcnn.detectors.one_stage import select_fixed
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10], [50, 50, 60, 60]])
        >>> scores = torch.tensor([[0.9], [0.8], [0.01]])
        >>> _, exists = select_fixed(scores, boxes, NanoDetConfig(max_detections=2))
        >>> exists.tolist()
        [True, False]
    """
    best = scores.amax(1)
    best, order = torch.where(best > config.score_threshold, best, NOTHING).topk(min(MOST, len(best)))
    boxes, scores = boxes[order], scores[order]

    groups = None if config.suppress == "across_classes" else scores.argmax(1)
    keep, exists = suppress(boxes, best, groups, config.nms, config.max_detections)
    return Detections(boxes=boxes[keep], scores=scores[keep]), exists


def regions_to_learn(
    detections: Detections, targets: Targets, size: tuple[int, int], config: OneStageConfig
) -> Samples:
    """Draw the regions of one image that heads learn on.

    These are truth boxes with their corners moved a little, and detections that overlap an object by more than a
    half. Draws from torch's global random numbers, which the training loop seeds.

    Args:
        detections: of the image.
        targets: its truth.
        size: height and width of the image in input pixels, without padding.
        config: how many, and how far corners move.
    """
    truth = targets.boxes
    chosen = torch.randperm(len(truth), device=truth.device)[: config.jittered]
    extent = (truth[chosen, 2:] - truth[chosen, :2]).repeat(1, 2)
    regions = truth[chosen] + (torch.rand_like(extent) * 2 - 1) * config.jitter * extent

    if len(truth) and len(detections):
        overlap, owner = box_ops.iou(detections.boxes, truth).max(1)
        near = (overlap > 0.5).nonzero()[: config.found, 0]
        regions = torch.cat([regions, detections.boxes[near]])
        chosen = torch.cat([chosen, owner[near]])

    regions = clip(regions, size)
    whole = (regions[:, 2:] - regions[:, :2]).amin(1) >= 1
    return Samples(boxes=regions[whole], matched=chosen[whole], drawn=int(whole.sum()))


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut boxes [..., 4] off at the borders of an image of the given height and width.

    Example:
        >>> from tubelet.models.rcnn.detectors.one_stage import clip
        >>> clip(torch.tensor([-5.0, 3, 20, 30]), (24, 16)).tolist()
        [0.0, 3.0, 16.0, 24.0]
    """
    limit = boxes.new_tensor([size[1], size[0]] * 2)
    return torch.minimum(boxes.clamp(min=0), limit)
