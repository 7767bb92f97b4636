"""Parts of detectors with fixed shapes, for files: the same results as the parts that they stand for.

Letters: N boxes, D detections, K classes, A anchors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image, roi_align

from tubelet.core import boxes as box_ops
from tubelet.models.inputs import Images, InputConfig
from tubelet.models.rcnn.detector import Detections, Detector, Features
from tubelet.models.rcnn.ssdlite import SSDLite, anchor_boxes, decode
from tubelet.models.rcnn.two_stage import TwoStage

CANDIDATES = 1000  # boxes that suppression looks at, those with the best scores (SSDLite: 400, as it has it)
NOTHING = -1.0  # the score of what is no candidate
HALF = 0.501  # a half, and what two programs may differ by in computing one


class Resize(nn.Module):
    """`InputConfig.prepare` for frames [B, 3, H, W] of one size: two products with matrices, which run anywhere."""

    rows: Tensor  # [h, H]
    columns: Tensor  # [w, W]
    mean: Tensor
    std: Tensor
    scale: Tensor  # [1, 4]

    def __init__(self, config: InputConfig, size: tuple[int, int]) -> None:
        super().__init__()
        self.target = config.resize.target(*size)
        multiple = config.resize.multiple
        self.padding = tuple(-side % multiple for side in reversed(self.target))  # right, below
        self.register_buffer("rows", _resizing(size[0], self.target[0]))
        self.register_buffer("columns", _resizing(size[1], self.target[1]))
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1))
        scale = torch.tensor([self.target[1] / size[1], self.target[0] / size[0]] * 2)
        self.register_buffer("scale", scale[None])

    def forward(self, frames: Tensor) -> Images:
        # in this order, and halves rounded up, as whole numbers are resized
        wide = (frames @ self.columns.T + HALF).floor()
        resized = (self.rows @ wide + HALF).floor().clamp(0, 255)
        pixels = F.pad((resized - self.mean) / self.std, (0, self.padding[0], 0, self.padding[1]))
        return Images(pixels, [self.target] * len(frames), self.scale.expand(len(frames), 4))


def _resizing(before: int, after: int) -> Tensor:
    """The matrix [after, before] of a resize with antialiasing: what becomes of each unit vector."""
    unit = torch.eye(before)[None, None]
    return F.interpolate(unit, (after, before), mode="bilinear", align_corners=False, antialias=True)[0, 0]


def found_by(detector: Detector, features: Features, images: Images) -> tuple[Detections, Tensor]:
    """Always `max_detections` of one image, and which of them there are, bool [D]."""
    if isinstance(detector, SSDLite):
        return _one_stage(detector, features, images)
    assert isinstance(detector, TwoStage)
    return _two_stages(detector, features, images)


def _one_stage(detector: SSDLite, features: Features, images: Images) -> tuple[Detections, Tensor]:
    config = detector.config
    (logits,), (codes,) = detector.predict(features)
    slope, shift = config.calibration
    scores = (logits * slope + shift).sigmoid()
    anchors = anchor_boxes([tap.shape[-2:] for tap in features.taps], codes.device)
    size = codes.new_tensor([images.pixels.shape[-1], images.pixels.shape[-2]] * 2)
    boxes = decode(codes, anchors).clamp(0, 1) * size
    best = scores.amax(1)
    best, order = torch.where(best > config.score_threshold, best, NOTHING).topk(min(400, len(best)))
    boxes, scores = boxes[order], scores[order]
    groups = None if config.suppress == "across_classes" else scores.argmax(1)
    keep, there = suppress(boxes, best, groups, config.nms, config.max_detections)
    return Detections(boxes=boxes[keep], scores=scores[keep]), there


def _two_stages(detector: TwoStage, features: Features, images: Images) -> tuple[Detections, Tensor]:
    config, size = detector.config, images.sizes[0]
    proposals, proposed = _proposals(detector, features, images)
    logits, codes = detector.classify(features, [proposals])
    scores = logits.softmax(1)[:, 1:] * proposed[:, None]  # [P, K]
    boxes = clip_boxes_to_image(detector.coder.decode(codes, [proposals]), size)[:, 1:]  # [P, K, 4]
    whole = ((boxes[..., 2:] - boxes[..., :2]) >= 1e-2).all(-1)
    wanted = torch.where((scores > config.score_threshold) & whole, scores, NOTHING).flatten()
    best, order = wanted.topk(min(CANDIDATES, len(wanted)))
    boxes, labels = boxes.flatten(0, 1)[order], order % detector.num_classes
    keep, there = suppress(boxes, best, labels, config.nms, config.max_detections)
    rows = F.one_hot(labels[keep], detector.num_classes) * best[keep][:, None]
    return Detections(boxes=boxes[keep], scores=rows), there


def _proposals(detector: TwoStage, features: Features, images: Images) -> tuple[Tensor, Tensor]:
    """Boxes [P, 4] of the first stage, and which of them there are, bool [P]."""
    config, rpn = detector.config, detector.rpn
    objectness, codes = rpn.head(features.taps)
    anchors = rpn.anchor_generator(ImageList(images.pixels, images.sizes), features.taps)
    counts = [one[0].numel() for one in objectness]
    objectness, codes = concat_box_prediction_layers(objectness, codes)
    boxes = rpn.box_coder.decode(codes, anchors)[:, 0]
    chosen, levels, start = [], [], 0
    for level, count in enumerate(counts):
        best = objectness[start : start + count, 0].topk(min(config.proposals_per_level, count)).indices + start
        chosen.append(best)
        levels.append(torch.full_like(best, level))
        start += count
    rows = torch.cat(chosen)
    boxes = clip_boxes_to_image(boxes[rows], images.sizes[0])
    whole = ((boxes[:, 2:] - boxes[:, :2]) >= rpn.min_size).all(1)
    scores = torch.where(whole, objectness[rows, 0].sigmoid(), NOTHING)
    keep, there = suppress(boxes, scores, torch.cat(levels), config.proposal_nms, config.proposals)
    return boxes[keep], there


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor | None, overlap: float, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` boxes [N, 4] that greedy suppression within groups keeps: positions, and which there are.

    Scores below 0 are no candidates. Nothing here depends on the data but values, so that it can be written to a file.
    """
    hidden = box_ops.iou(boxes, boxes) > overlap
    if groups is not None:
        hidden = hidden & (groups[:, None] == groups)
    hidden = hidden | torch.eye(len(boxes), dtype=torch.bool, device=boxes.device)
    left, kept, there = scores, [], []
    for _ in range(count):
        best = left.argmax(0, keepdim=True)
        kept.append(best)
        there.append(left[best] >= 0)
        left = left.masked_fill(hidden[best][0], NOTHING)
    return torch.cat(kept), torch.cat(there)


def cells_of_every_level(detector: Detector, maps: list[Tensor], boxes: list[Tensor], resolution: int) -> Tensor:
    """`Detector.regions` for one image: cut from all levels, then the level that suits each box is taken."""
    (own,) = boxes
    rows = torch.cat([own.new_zeros(len(own), 1), own], 1)
    size = ((own[:, 2] - own[:, 0]) * (own[:, 3] - own[:, 1])).clamp(min=1e-6).sqrt()
    level = (torch.log2(size / (14 * detector.strides[0])) + 1e-6).floor().clamp(0, len(detector.strides) - 1)
    out = own.new_zeros(len(own), detector.channels, resolution, resolution)
    for i, (one, stride) in enumerate(zip(maps, detector.strides, strict=False)):
        cells = roi_align(one, rows, resolution, 1 / stride, detector.sampling, aligned=detector.aligned)
        out = torch.where((level == i)[:, None, None, None], cells, out)
    return out
