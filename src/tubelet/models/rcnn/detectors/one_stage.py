"""What one-stage detectors share: their thresholds, how boxes are chosen, and the regions that heads learn on.

A one-stage detector scores a fixed set of boxes. The best of them are kept by greedy suppression. There is no
second stage that draws regions for training, so mask and match heads learn on truth boxes whose corners are moved
a little, and on detections that fit an object: the boxes that they will be given at test.

Letters: A boxes that the network scores, N detections, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The N cells of one image that enter suppression, best first, on the CPU.

    Example:
        >>> from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
        >>> from tubelet.models.rcnn.detectors.one_stage import candidates
        >>> logits = torch.tensor([[[-2.0], [-9.0], [3.0]]])  # of one image, three cells, one class
        >>> codes = torch.tensor([[[5.0], [6.0], [7.0]]])
        >>> (best,) = candidates(logits, codes, NanoDetConfig())
        >>> best.cells.tolist(), best.codes.tolist()
        ([2, 0], [[7.0], [5.0]])
    """

    cells: Tensor  # [N], their positions among the cells (or anchors) of the image
    scores: Tensor  # [N, K]
    codes: Tensor  # [N, D], what their boxes are decoded from


def candidates(logits: Tensor, codes: Tensor, config: OneStageConfig) -> list[Candidates]:
    """Choose the cells of each image whose best score is above the threshold, at most MOST.

    They are sorted where the network ran and leave its device together, the only wait; which of them
    are above the threshold, and all that follows, is decided on the CPU.

    Args:
        logits: of classes, before calibration, [B, A, K].
        codes: what boxes are decoded from, [B, A, D].
        config: calibration and threshold.
    """
    best = calibrated(logits.amax(2).float(), config)  # calibration leaves the order of classes as it is
    order = best.sort(stable=True, dim=1, descending=True).indices[:, :MOST, None]
    leaving = torch.cat([order.float(), logits.take_along_dim(order, 1), codes.take_along_dim(order, 1)], 2)
    return [_above(image, logits.shape[2], config) for image in leaving.cpu()]


def _above(leaving: Tensor, num_classes: int, config: OneStageConfig) -> Candidates:
    """Those of the sorted rows (cell, logits, codes) of one image whose best score is above the threshold."""
    cells, logits, codes = leaving.split([1, num_classes, leaving.shape[1] - 1 - num_classes], 1)
    scores = calibrated(logits, config)
    above = scores.amax(1) > config.score_threshold
    return Candidates(cells=cells[above, 0].long(), scores=scores[above], codes=codes[above])


def calibrated(logits: Tensor, config: OneStageConfig) -> Tensor:
    """Convert logits to scores, the share that is right."""
    slope, shift = config.calibration
    return (logits * slope + shift).sigmoid()


def suppressed(scores: Tensor, boxes: Tensor, config: OneStageConfig) -> Detections:
    """Keep the best of candidates by greedy suppression.

    Args:
        scores: probabilities of candidates, best first [A, K].
        boxes: corners in input pixels [A, 4].
        config: thresholds.

    Example:
        >>> from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
        >>> from tubelet.models.rcnn.detectors.one_stage import suppressed
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10], [50, 50, 60, 60]])
        >>> scores = torch.tensor([[0.9], [0.8], [0.7]])
        >>> suppressed(scores, boxes, NanoDetConfig()).boxes.tolist()
        [[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]]
    """
    best = scores.amax(1)
    if config.suppress == "across_classes":
        keep = nms(boxes, best, config.nms)
    else:
        keep = batched_nms(boxes, best, scores.argmax(1), config.nms)

    keep = keep[: config.max_detections]
    return Detections(boxes=boxes[keep], scores=scores[keep])


def select_fixed(scores: Tensor, boxes: Tensor, config: OneStageConfig) -> tuple[Detections, Tensor]:
    """Choose and suppress by fixed shapes, for files: always `max_detections` boxes, and which of them exist, bool [D].

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
        found = detections.boxes.to(truth.device)
        overlap, owner = box_ops.iou(found, truth).max(1)
        near = (overlap > 0.5).nonzero()[: config.found, 0]
        regions = torch.cat([regions, found[near]])
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
