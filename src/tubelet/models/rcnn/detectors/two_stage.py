"""The papers' detector: backbone, feature pyramid, region proposals, box head. Built from torchvision's parts.

Source: docs/papers/masktrack_rcnn.md. Module names follow torchvision's Mask R-CNN, so its COCO weights load.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork, batched_nms, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from tubelet.core import boxes as box_ops
from tubelet.core.types import Losses
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import Images, InputConfig
from tubelet.models.rcnn.detectors.detector import Detections, Detector, DetectorConfig, Features, Samples, Targets
from tubelet.models.rcnn.detectors.fixed_shapes import CANDIDATES, NOTHING, suppress


class TwoStageConfig(DetectorConfig):
    """Faster R-CNN as MaskTrack R-CNN runs it; defaults are its values."""

    kind: Literal["two_stage"] = "two_stage"
    input: InputConfig = InputConfig()
    backbone: BackboneConfig = BackboneConfig()
    channels: int = Field(default=256, ge=1)
    proposals_per_level: int = Field(default=200, ge=1)  # before suppression
    proposals: int = Field(default=200, ge=1)  # after it, over all levels, in training and at test
    proposal_nms: float = Field(default=0.7, ge=0, le=1)
    anchors_sampled: int = Field(default=64, ge=1)
    anchors_inside: bool = True  # only anchors that lie wholly in the image learn
    regions_sampled: int = Field(default=128, ge=1)
    regions_positive: float = Field(default=0.25, ge=0, le=1)
    positive_overlap: float = Field(default=0.5, gt=0, le=1)  # IoU from which on a region is its object's
    anchor_least_overlap: float = Field(default=0.3, ge=0, le=1)  # IoU that an object's best anchor needs to learn it
    box_channels: int = Field(default=1024, ge=1)
    box_layers: int = Field(default=2, ge=2)  # fully connected layers of the box head
    class_weight: float = Field(default=1.0, ge=0)  # of the box head's classification loss
    score_threshold: float = Field(default=0.05, ge=0, le=1)
    nms: float = Field(default=0.5, ge=0, le=1)
    max_detections: int = Field(default=10, ge=1)
    aligned: bool = True  # off for weights of torchvision, which were trained without
    box_beta: float = Field(default=1.0, ge=0)  # of the box head's smooth-L1

    def build(self, num_classes: int) -> TwoStage:
        return TwoStage(self, num_classes)


class TwoStage(Detector):
    """Backbone, FPN (P2..P6), RPN and box head; class 0 of the box head is the background."""

    config: TwoStageConfig

    def __init__(self, config: TwoStageConfig, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.channels, self.aligned = config.channels, config.aligned
        self.backbone = config.backbone.build()
        self.strides = self.backbone.strides
        self.all_strides, self.proposes_from_maps = [*self.strides, self.strides[-1] * 2], True
        self.fpn = FeaturePyramidNetwork(self.backbone.channels, config.channels, extra_blocks=LastLevelMaxPool())
        self.rpn = _proposals(config, self.all_strides)
        self.box_head = _BoxHead(config.channels * 7**2, config.box_channels, config.box_layers)
        self.box_predictor = FastRCNNPredictor(config.box_channels, num_classes + 1)
        nn.init.normal_(self.box_predictor.cls_score.weight, std=0.01)
        nn.init.zeros_(self.box_predictor.cls_score.bias)
        nn.init.normal_(self.box_predictor.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.box_predictor.bbox_pred.bias)
        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))  # 1 / the stds (0.1, 0.1, 0.2, 0.2)
        self.matcher = Matcher(config.positive_overlap, config.positive_overlap, allow_low_quality_matches=False)
        self.sampler = BalancedPositiveNegativeSampler(config.regions_sampled, config.regions_positive)

    def extract(self, images: Images) -> Features:
        levels = {str(i): m for i, m in enumerate(self.backbone(images.pixels))}
        maps = list(self.fpn(levels).values())
        return Features(maps=maps, taps=maps)

    def propose(self, features: Features, images: Images) -> list[Tensor]:
        """Proposals of each image at test, best first, [P, 4]."""
        was, self.rpn.training = self.rpn.training, False
        proposals, _ = self.rpn(ImageList(images.pixels, images.sizes), dict(enumerate(features.taps)))
        self.rpn.training = was
        return list(proposals)

    def classify(self, features: Features, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits [P, K + 1] and box codes [P, 4 (K + 1)] of the boxes of all images."""
        cells = self.cells(features, boxes, 7)
        logits, codes = self.box_predictor(self.box_head(cells))
        return logits.float(), codes.float()

    def detect(self, features: Features, images: Images) -> list[Detections]:
        proposals = self.propose(features, images)
        logits, codes = self.classify(features, proposals)
        counts = [len(p) for p in proposals]
        scores = logits.softmax(1).split(counts)
        boxes = self.coder.decode(codes, proposals).split(counts)
        return [self._select(s, b, size) for s, b, size in zip(scores, boxes, images.sizes, strict=True)]

    def _select(self, scores: Tensor, boxes: Tensor, size: tuple[int, int]) -> Detections:
        config = self.config
        boxes = clip_boxes_to_image(boxes, size)
        region, label = (scores[:, 1:] > config.score_threshold).nonzero(as_tuple=True)
        boxes, scores = boxes[region, label + 1], scores[region, label + 1]
        whole = ((boxes[:, 2:] - boxes[:, :2]) >= 1e-2).all(1)
        boxes, scores, label = boxes[whole], scores[whole], label[whole]
        keep = batched_nms(boxes, scores, label, config.nms)[: config.max_detections]
        rows = scores.new_zeros(len(keep), self.num_classes)
        rows[torch.arange(len(keep)), label[keep]] = scores[keep]
        return Detections(boxes=boxes[keep], scores=rows)

    def detect_fixed(self, features: Features, images: Images) -> tuple[Detections, Tensor]:
        config = self.config
        proposals, proposed = self._propose_fixed(features, images)
        logits, codes = self.classify(features, [proposals])
        scores = logits.softmax(1)[:, 1:] * proposed[:, None]  # [P, K]
        boxes = clip_boxes_to_image(self.coder.decode(codes, [proposals]), images.sizes[0])[:, 1:]  # [P, K, 4]
        whole = ((boxes[..., 2:] - boxes[..., :2]) >= 1e-2).all(-1)
        wanted = torch.where((scores > config.score_threshold) & whole, scores, NOTHING).flatten()
        best, order = wanted.topk(min(CANDIDATES, len(wanted)))
        boxes, labels = boxes.flatten(0, 1)[order], order % self.num_classes
        keep, there = suppress(boxes, best, labels, config.nms, config.max_detections)
        rows = F.one_hot(labels[keep], self.num_classes) * best[keep][:, None]
        return Detections(boxes=boxes[keep], scores=rows), there

    def _propose_fixed(self, features: Features, images: Images) -> tuple[Tensor, Tensor]:
        """`propose` for one image by fixed shapes: boxes [P, 4], and which of them there are, bool [P]."""
        config, rpn = self.config, self.rpn
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

    def losses(self, features: Features, images: Images, targets: list[Targets]) -> tuple[Losses, list[Samples]]:
        listed = ImageList(images.pixels, images.sizes)
        losses = self._proposal_losses(features, listed, images, targets)
        with torch.no_grad():
            proposals = self.propose(features, images)
            chosen = [self._sample(p, t) for p, t in zip(proposals, targets, strict=True)]
        boxes, owners = [b for b, _ in chosen], [o for _, o in chosen]
        logits, codes = self.classify(features, boxes)
        labels = torch.cat([_labels_of(o, t) for o, t in zip(owners, targets, strict=True)])
        losses["cls"] = self.config.class_weight * F.cross_entropy(logits, labels)
        positive = (labels > 0).nonzero()[:, 0]
        truth = torch.cat(
            [
                t.boxes[o.clamp(min=0)] if len(t.boxes) else torch.zeros_like(b)
                for b, o, t in zip(boxes, owners, targets, strict=True)
            ]
        )
        wanted = self.coder.encode_single(truth[positive], torch.cat(boxes)[positive])
        own = codes.view(len(codes), -1, 4)[positive, labels[positive]]
        losses["box"] = F.smooth_l1_loss(own, wanted, beta=self.config.box_beta, reduction="sum") / max(len(labels), 1)
        samples = [
            Samples(boxes=b[o >= 0], matched=o[o >= 0], drawn=len(b)) for b, o in zip(boxes, owners, strict=True)
        ]
        return losses, samples

    def _proposal_losses(self, features: Features, listed: ImageList, images: Images, targets: list[Targets]) -> Losses:
        rpn, config = self.rpn, self.config
        scores, codes = rpn.head(features.taps)
        anchors = rpn.anchor_generator(listed, features.taps)
        flat = [_per_anchor(s, c) for s, c in zip(scores, codes, strict=True)]
        logits, codes = (torch.cat(parts, 1).float() for parts in zip(*flat, strict=True))
        labels, wanted = [], []
        for i, target in enumerate(targets):
            label, truth = _anchor_labels(
                anchors[i], target, images.sizes[i] if config.anchors_inside else None, config.anchor_least_overlap
            )
            labels.append(label)
            wanted.append(rpn.box_coder.encode_single(truth, anchors[i]))
        positive, negative = rpn.fg_bg_sampler(labels)
        positive, negative = torch.cat(positive).nonzero()[:, 0], torch.cat(negative).nonzero()[:, 0]
        sampled = torch.cat([positive, negative])
        count = max(len(sampled), 1)
        score = F.binary_cross_entropy_with_logits(
            logits.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        box = F.smooth_l1_loss(codes.reshape(-1, 4)[positive], torch.cat(wanted)[positive], beta=1 / 9, reduction="sum")
        return {"rpn_cls": score / count, "rpn_box": box / count}

    def _sample(self, proposals: Tensor, target: Targets) -> tuple[Tensor, Tensor]:
        """Boxes [S, 4] to learn on and the object that each belongs to, -1 for background, [S]."""
        boxes = torch.cat([proposals, target.boxes])  # the truth itself is proposed too
        if len(target.boxes):
            owner = self.matcher(box_ops.iou(target.boxes, boxes))
        else:
            owner = torch.full((len(boxes),), -1, device=boxes.device)
        positive, negative = self.sampler([_sampler_labels(owner, boxes, target)])
        chosen = (positive[0] | negative[0]).nonzero()[:, 0]
        return boxes[chosen], owner[chosen].clamp(min=-1)


class _BoxHead(TwoMLPHead):
    """torchvision's two layers, and more of the same where asked for (ObjProp's first baseline tuning has four)."""

    def __init__(self, inputs: int, channels: int, layers: int) -> None:
        super().__init__(inputs, channels)
        self.more = nn.ModuleList(nn.Linear(channels, channels) for _ in range(layers - 2))

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        for layer in self.more:
            x = F.relu(layer(x))
        return x


class _Head(RPNHead):
    """Boxes are decoded in full precision: in bfloat16 a coordinate of 600 is off by up to two pixels."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        scores, codes = super().forward(x)
        return [s.float() for s in scores], [c.float() for c in codes]


class _Anchors(AnchorGenerator):
    """In full precision whatever that of the maps, for the same reason; of the maps only their shapes are looked at."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        shapes = [m.new_empty((), dtype=torch.float32).expand(m.shape) for m in feature_maps]
        return super().forward(image_list, shapes)


def _proposals(config: TwoStageConfig, strides: list[int]) -> RegionProposalNetwork:
    """Three ratios at one scale of 8 strides on every level."""
    anchors = _Anchors(tuple((8 * s,) for s in strides), ((0.5, 1.0, 2.0),) * len(strides))
    return RegionProposalNetwork(
        anchors,
        _Head(config.channels, 3),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=config.anchors_sampled,
        positive_fraction=0.5,
        pre_nms_top_n={"training": config.proposals_per_level, "testing": config.proposals_per_level},
        post_nms_top_n={"training": config.proposals, "testing": config.proposals},
        nms_thresh=config.proposal_nms,
    )


def _per_anchor(scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """[B, A, H, W], [B, 4 A, H, W] -> [B, H W A], [B, H W A, 4], torchvision's order of anchors."""
    batch, anchors, height, width = scores.shape
    codes = codes.view(batch, anchors, 4, height, width).permute(0, 3, 4, 1, 2)
    return scores.permute(0, 2, 3, 1).reshape(batch, -1), codes.reshape(batch, -1, 4)


def _anchor_labels(
    anchors: Tensor, target: Targets, inside: tuple[int, int] | None, least: float
) -> tuple[Tensor, Tensor]:
    """1 object, 0 background, -1 neither, float [A]; and the truth box of each anchor [A, 4]."""
    # the best anchor of an object is chosen among those that may learn
    allowed = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
    if inside is not None:
        height, width = inside
        allowed = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)
    labels = torch.full((len(anchors),), -1.0, device=anchors.device)
    truth = torch.zeros_like(anchors)
    some = allowed.nonzero()[:, 0]
    if len(target.boxes) == 0:
        labels[some] = 0
    elif len(some):
        overlap = box_ops.iou(target.boxes, anchors[some])  # [M, some]
        best, owner = overlap.max(0)
        # the best anchors of an object learn it too, all of a tie
        top = overlap.amax(1, keepdim=True)
        forced = (overlap == top) & (top >= least)
        owner = torch.where(forced.any(0) & (best < 0.7), forced.int().argmax(0), owner)
        labels[some] = torch.where(best < 0.3, 0.0, -1.0)
        labels[some] = torch.where((best >= 0.7) | forced.any(0), 1.0, labels[some])
        truth[some] = target.boxes[owner]
    if len(target.ignored):
        crowded = box_ops.iou(anchors, target.ignored).amax(1) >= 0.3
        labels[(labels == 0) & crowded] = -1
    return labels, truth


def _sampler_labels(owner: Tensor, boxes: Tensor, target: Targets) -> Tensor:
    """What torchvision's sampler reads: > 0 positive, 0 negative, -1 not to be used."""
    labels = (owner >= 0).float()
    if len(target.ignored):
        crowded = box_ops.iou(boxes, target.ignored).amax(1) >= 0.5
        labels[(labels == 0) & crowded] = -1
    return labels


def _labels_of(owner: Tensor, target: Targets) -> Tensor:
    """Class index with 0 as background, int64 [S]."""
    if len(target.boxes) == 0:
        return torch.zeros_like(owner)
    return torch.where(owner >= 0, target.labels[owner.clamp(min=0)] + 1, 0)
