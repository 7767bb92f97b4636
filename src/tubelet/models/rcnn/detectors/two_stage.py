"""The two-stage detector of the papers: backbone, feature pyramid, region proposals and box head.

It is built from parts of torchvision. Module names follow torchvision's Mask R-CNN, so its COCO weights load.
Source: docs/papers/masktrack_rcnn.md.

Letters: B images, P proposals, S sampled regions of an image, A anchors, M objects of an image, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
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
from torchvision.ops import FeaturePyramidNetwork, batched_nms, clip_boxes_to_image, remove_small_boxes
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from tubelet.core import boxes as box_ops
from tubelet.core.types import Losses
from tubelet.engines.graph import Graph
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import Images, InputConfig
from tubelet.models.rcnn.detectors.detector import Detections, Detector, DetectorConfig, Features, Samples, Targets
from tubelet.models.rcnn.detectors.fixed_shapes import CANDIDATES, NOTHING, suppress


class TwoStageConfig(DetectorConfig):
    """Settings of Faster R-CNN; the defaults are those of MaskTrack R-CNN.

    Example:
        >>> from tubelet.models.rcnn.detectors.two_stage import TwoStageConfig
        >>> config = TwoStageConfig(proposals=100)
        >>> config.proposals, config.max_detections
        (100, 10)
    """

    kind: Literal["two_stage"] = "two_stage"
    input: InputConfig = InputConfig()
    backbone: BackboneConfig = BackboneConfig()
    channels: int = Field(default=256, ge=1)
    proposals_per_level: int = Field(default=200, ge=1)  # before suppression
    proposals: int = Field(default=200, ge=1)  # after it, over all levels, in training and at test
    proposal_nms: float = Field(default=0.7, ge=0, le=1)
    anchors_sampled: int = Field(default=64, ge=1)
    anchors_inside: bool = True  # train only anchors that lie wholly in the image
    regions_sampled: int = Field(default=128, ge=1)
    regions_positive: float = Field(default=0.25, ge=0, le=1)
    positive_overlap: float = Field(default=0.5, gt=0, le=1)  # least IoU of a region with its object
    anchor_least_overlap: float = Field(
        default=0.3, ge=0, le=1
    )  # IoU that an object's best anchor needs to be positive
    box_channels: int = Field(default=1024, ge=1)
    box_layers: int = Field(default=2, ge=2)  # fully connected layers of the box head
    class_weight: float = Field(default=1.0, ge=0)  # of the box head's classification loss
    score_threshold: float = Field(default=0.05, ge=0, le=1)
    nms: float = Field(default=0.5, ge=0, le=1)
    max_detections: int = Field(default=10, ge=1)
    aligned: bool = True  # off for torchvision's weights, which were trained without it
    box_beta: float = Field(default=1.0, ge=0)  # of the box head's smooth-L1

    def build(self, num_classes: int) -> TwoStage:
        return TwoStage(self, num_classes)


class TwoStage(Detector):
    """The two-stage detector: backbone, FPN (P2 to P6), RPN and box head, whose class 0 is the background."""

    config: TwoStageConfig

    def __init__(self, config: TwoStageConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.channels = config.channels
        self.aligned = config.aligned

        self.backbone = config.backbone.build()
        self.strides = self.backbone.strides
        self.all_strides = [*self.strides, self.strides[-1] * 2]
        self.proposes_from_maps = True

        self.fpn = FeaturePyramidNetwork(self.backbone.channels, config.channels, extra_blocks=LastLevelMaxPool())
        self.rpn = _proposal_network(config, self.all_strides)
        self.box_head = _BoxHead(config.channels * 7**2, config.box_channels, config.box_layers)
        self.box_predictor = FastRCNNPredictor(config.box_channels, num_classes + 1)
        nn.init.normal_(self.box_predictor.cls_score.weight, std=0.01)
        nn.init.zeros_(self.box_predictor.cls_score.bias)
        nn.init.normal_(self.box_predictor.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.box_predictor.bbox_pred.bias)

        self.pyramid = Graph("pyramid", self, self._levels)
        self.box_codes = Graph("boxes", self, self._logits_and_codes, rows=True)

        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))  # 1 / the stds (0.1, 0.1, 0.2, 0.2)
        self.matcher = Matcher(config.positive_overlap, config.positive_overlap, allow_low_quality_matches=False)
        self.sampler = BalancedPositiveNegativeSampler(config.regions_sampled, config.regions_positive)

    def graphs(self) -> list[Graph]:
        return [self.pyramid, self.rpn.head.graph, self.box_codes]

    def extract(self, images: Images) -> Features:
        """Compute the pyramid P2 to P6; `taps` are the same maps."""
        maps = list(self.pyramid(images.pixels))
        return Features(maps=maps, taps=maps)

    def _levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        levels = {str(i): level for i, level in enumerate(self.backbone(pixels))}
        return tuple(self.fpn(levels).values())

    def propose(self, features: Features, images: Images) -> list[Tensor]:
        """Propose regions of each image as at test, best first: corners in input pixels, [P, 4] per image, on the CPU.

        It is torchvision's selection; but the best anchors of each level are chosen on the device, and
        all that follows, whose shapes depend on values, is done on the CPU, after one wait.
        """
        leaving = []
        levels = []
        start = 0
        for number, (scores, codes) in enumerate(zip(*self.rpn.head(features.taps), strict=True)):
            logits, codes = _per_anchor(scores, codes)
            best, rows = logits.topk(min(self.config.proposals_per_level, logits.shape[1]), 1)
            row_codes = codes.take_along_dim(rows[..., None], 1)
            leaving.append(torch.cat([(rows + start)[..., None].float(), best[..., None], row_codes], 2))
            levels += [number] * rows.shape[1]
            start += logits.shape[1]

        shapes = tuple(level.shape[-2:] for level in features.taps)
        anchors = _known_anchors(tuple(self.all_strides), shapes, images.pixels.shape[-2:])
        per_image = zip(torch.cat(leaving, 1).cpu(), images.sizes, strict=True)
        return [self._suppressed(rows, anchors, torch.tensor(levels), size) for rows, size in per_image]

    def _suppressed(self, rows: Tensor, anchors: Tensor, levels: Tensor, size: tuple[int, int]) -> Tensor:
        """Decode rows (anchor, logit, four codes) of one image and suppress duplicates within each level."""
        anchors = anchors[rows[:, 0].long()]
        boxes = clip_boxes_to_image(self.rpn.box_coder.decode(rows[:, 2:], [anchors])[:, 0], size)
        scores = rows[:, 1].sigmoid()
        large_enough = remove_small_boxes(boxes, self.rpn.min_size)
        boxes = boxes[large_enough]
        keep = batched_nms(boxes, scores[large_enough], levels[large_enough], self.config.proposal_nms)
        return boxes[keep[: self.config.proposals]]

    def classify(self, features: Features, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict class logits [P, K + 1] and box codes [P, 4 (K + 1)] for the boxes of all images, in order."""
        cells = self.cells(features, boxes, 7)
        logits, codes = self.box_codes(cells)
        return logits.float(), codes.float()

    def _logits_and_codes(self, cells: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.box_predictor(self.box_head(cells)))

    def detect(self, features: Features, images: Images) -> list[Detections]:
        """Detect the boxes of each image, best first; a row of scores has one class above 0, its label."""
        proposals = self.propose(features, images)
        logits, codes = self.classify(features, proposals)
        logits, codes = torch.cat([logits, codes], 1).cpu().split([logits.shape[1], codes.shape[1]], 1)

        counts = [len(image_proposals) for image_proposals in proposals]
        scores = logits.softmax(1).split(counts)
        boxes = self.coder.decode(codes, proposals).split(counts)
        per_image = zip(scores, boxes, images.sizes, strict=True)
        return [self._select(image_scores, image_boxes, size) for image_scores, image_boxes, size in per_image]

    def _select(self, scores: Tensor, boxes: Tensor, size: tuple[int, int]) -> Detections:
        """Keep the best boxes of one image: probabilities [P, K + 1], boxes [P, K + 1, 4], (height, width)."""
        config = self.config
        boxes = clip_boxes_to_image(boxes, size)
        region, labels = (scores[:, 1:] > config.score_threshold).nonzero(as_tuple=True)
        boxes = boxes[region, labels + 1]
        scores = scores[region, labels + 1]

        nonempty = ((boxes[:, 2:] - boxes[:, :2]) >= 1e-2).all(1)
        boxes = boxes[nonempty]
        scores = scores[nonempty]
        labels = labels[nonempty]

        keep = batched_nms(boxes, scores, labels, config.nms)[: config.max_detections]
        rows = scores.new_zeros(len(keep), self.num_classes)
        rows[torch.arange(len(keep)), labels[keep]] = scores[keep]
        return Detections(boxes=boxes[keep], scores=rows)

    def detect_fixed(self, features: Features, images: Images) -> tuple[Detections, Tensor]:
        """Do `detect` for one image with fixed shapes: `max_detections` boxes, and which of them exist, bool [D]."""
        config = self.config
        proposals, proposal_exists = self._propose_fixed(features, images)
        logits, codes = self.classify(features, [proposals])
        scores = logits.softmax(1)[:, 1:] * proposal_exists[:, None]  # [P, K]
        boxes = clip_boxes_to_image(self.coder.decode(codes, [proposals]), images.sizes[0])[:, 1:]  # [P, K, 4]

        nonempty = ((boxes[..., 2:] - boxes[..., :2]) >= 1e-2).all(-1)
        is_candidate = (scores > config.score_threshold) & nonempty
        candidate_scores = torch.where(is_candidate, scores, NOTHING).flatten()
        best, order = candidate_scores.topk(min(CANDIDATES, len(candidate_scores)))
        boxes = boxes.flatten(0, 1)[order]
        labels = order % self.num_classes

        keep, exists = suppress(boxes, best, labels, config.nms, config.max_detections)
        rows = F.one_hot(labels[keep], self.num_classes) * best[keep][:, None]
        return Detections(boxes=boxes[keep], scores=rows), exists

    def _propose_fixed(self, features: Features, images: Images) -> tuple[Tensor, Tensor]:
        """Do `propose` for one image with fixed shapes: boxes [P, 4], and which of them exist, bool [P]."""
        config = self.config
        rpn = self.rpn
        objectness, codes = rpn.head(features.taps)
        anchors = rpn.anchor_generator(ImageList(images.pixels, images.sizes), features.taps)
        counts = [level_scores[0].numel() for level_scores in objectness]
        objectness, codes = concat_box_prediction_layers(objectness, codes)
        boxes = rpn.box_coder.decode(codes, anchors)[:, 0]

        rows_per_level = []
        levels = []
        start = 0
        for level, count in enumerate(counts):
            level_scores = objectness[start : start + count, 0]
            best = level_scores.topk(min(config.proposals_per_level, count)).indices + start
            rows_per_level.append(best)
            levels.append(torch.full_like(best, level))
            start += count

        rows = torch.cat(rows_per_level)
        boxes = clip_boxes_to_image(boxes[rows], images.sizes[0])
        large_enough = ((boxes[:, 2:] - boxes[:, :2]) >= rpn.min_size).all(1)
        scores = torch.where(large_enough, objectness[rows, 0].sigmoid(), NOTHING)
        keep, exists = suppress(boxes, scores, torch.cat(levels), config.proposal_nms, config.proposals)
        return boxes[keep], exists

    def losses(self, features: Features, images: Images, targets: list[Targets]) -> tuple[Losses, list[Samples]]:
        """Compute the losses `rpn_cls`, `rpn_box`, `cls` and `box`, and per image the positive regions."""
        image_list = ImageList(images.pixels, images.sizes)
        losses = self._proposal_losses(features, image_list, images, targets)

        boxes = []
        owners = []
        with torch.no_grad():
            proposals = self.propose(features, images)
            for image_proposals, target in zip(proposals, targets, strict=True):
                image_boxes, owner = self._sample(image_proposals.to(target.boxes.device), target)
                boxes.append(image_boxes)
                owners.append(owner)

        logits, codes = self.classify(features, boxes)
        labels = torch.cat([_labels_of(owner, target) for owner, target in zip(owners, targets, strict=True)])
        losses["cls"] = self.config.class_weight * F.cross_entropy(logits, labels)

        positive = (labels > 0).nonzero()[:, 0]
        truth_per_image = []
        for image_boxes, owner, target in zip(boxes, owners, targets, strict=True):
            if len(target.boxes):
                truth_per_image.append(target.boxes[owner.clamp(min=0)])
            else:
                truth_per_image.append(torch.zeros_like(image_boxes))
        truth = torch.cat(truth_per_image)

        target_codes = self.coder.encode_single(truth[positive], torch.cat(boxes)[positive])
        predicted_codes = codes.view(len(codes), -1, 4)[positive, labels[positive]]
        box_loss = F.smooth_l1_loss(predicted_codes, target_codes, beta=self.config.box_beta, reduction="sum")
        losses["box"] = box_loss / max(len(labels), 1)

        samples = []
        for image_boxes, owner in zip(boxes, owners, strict=True):
            has_object = owner >= 0
            samples.append(Samples(boxes=image_boxes[has_object], matched=owner[has_object], drawn=len(image_boxes)))
        return losses, samples

    def _proposal_losses(
        self, features: Features, image_list: ImageList, images: Images, targets: list[Targets]
    ) -> Losses:
        config = self.config
        rpn = self.rpn
        scores, codes = rpn.head(features.taps)
        anchors = rpn.anchor_generator(image_list, features.taps)
        per_level = [_per_anchor(s, c) for s, c in zip(scores, codes, strict=True)]
        logits, codes = (torch.cat(parts, 1).float() for parts in zip(*per_level, strict=True))

        labels = []
        target_codes = []
        for image, target in enumerate(targets):
            inside = images.sizes[image] if config.anchors_inside else None
            label, truth = _anchor_labels(anchors[image], target, inside, config.anchor_least_overlap)
            labels.append(label)
            target_codes.append(rpn.box_coder.encode_single(truth, anchors[image]))

        positive_masks, negative_masks = rpn.fg_bg_sampler(labels)
        positive = torch.cat(positive_masks).nonzero()[:, 0]
        negative = torch.cat(negative_masks).nonzero()[:, 0]
        sampled = torch.cat([positive, negative])
        count = max(len(sampled), 1)

        score_loss = F.binary_cross_entropy_with_logits(
            logits.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        box_loss = F.smooth_l1_loss(
            codes.reshape(-1, 4)[positive], torch.cat(target_codes)[positive], beta=1 / 9, reduction="sum"
        )
        return {"rpn_cls": score_loss / count, "rpn_box": box_loss / count}

    def _sample(self, proposals: Tensor, target: Targets) -> tuple[Tensor, Tensor]:
        """Sample boxes [S, 4] to train on, with the index of each one's object, -1 for background, [S]."""
        boxes = torch.cat([proposals, target.boxes])  # truth boxes count as proposals
        if len(target.boxes):
            owner = self.matcher(box_ops.iou(target.boxes, boxes))
        else:
            owner = torch.full((len(boxes),), -1, device=boxes.device)

        positive, negative = self.sampler([_sampler_labels(owner, boxes, target)])
        chosen = (positive[0] | negative[0]).nonzero()[:, 0]
        return boxes[chosen], owner[chosen].clamp(min=-1)


class _BoxHead(TwoMLPHead):
    """torchvision's box head of two layers, with more layers on request (ObjProp's first baseline tuning has four)."""

    def __init__(self, inputs: int, channels: int, layers: int) -> None:
        super().__init__(inputs, channels)
        self.more = nn.ModuleList(nn.Linear(channels, channels) for _ in range(layers - 2))

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        for layer in self.more:
            x = F.relu(layer(x))
        return x


class _Head(RPNHead):
    """torchvision's head with float32 outputs: in bfloat16 a coordinate of 600 is off by up to two pixels."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__(channels, anchors)
        self.graph = Graph("proposals", self, self._levels)

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        levels = [level.float() for level in self.graph(*x)]
        return levels[: len(x)], levels[len(x) :]

    def _levels(self, *maps: Tensor) -> tuple[Tensor, ...]:
        scores, codes = super().forward(list(maps))
        return (*scores, *codes)


class _Anchors(AnchorGenerator):
    """torchvision's anchors in float32 whatever the maps' precision, for the same reason; only map shapes are read."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        shapes = [level.new_empty((), dtype=torch.float32).expand(level.shape) for level in feature_maps]
        return super().forward(image_list, shapes)


def _proposal_network(config: TwoStageConfig, strides: list[int]) -> RegionProposalNetwork:
    """Build the proposal network, with anchors of three ratios at one scale of 8 strides on every level."""
    return RegionProposalNetwork(
        _anchors(strides),
        _Head(config.channels, 3),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=config.anchors_sampled,
        positive_fraction=0.5,
        pre_nms_top_n={"training": config.proposals_per_level, "testing": config.proposals_per_level},
        post_nms_top_n={"training": config.proposals, "testing": config.proposals},
        nms_thresh=config.proposal_nms,
    )


def _anchors(strides: Sequence[int]) -> _Anchors:
    sizes = tuple((8 * stride,) for stride in strides)
    ratios = ((0.5, 1.0, 2.0),) * len(strides)
    return _Anchors(sizes, ratios)


@lru_cache(maxsize=16)
def _known_anchors(strides: tuple[int, ...], shapes: tuple[torch.Size, ...], image: torch.Size) -> Tensor:
    """The anchors [A, 4] of all levels, on the CPU, for maps and an image of these heights and widths."""
    maps = [torch.empty(()).expand(1, 1, *shape) for shape in shapes]
    pixels = torch.empty(()).expand(1, 1, *image)
    (anchors,) = _anchors(strides)(ImageList(pixels, [(image[0], image[1])]), maps)
    return anchors


def _per_anchor(scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Reorder one level by anchor, as torchvision does: [B, A, H, W], [B, 4 A, H, W] -> [B, H W A], [B, H W A, 4]."""
    batch, anchors, height, width = scores.shape
    codes = codes.view(batch, anchors, 4, height, width).permute(0, 3, 4, 1, 2)
    return scores.permute(0, 2, 3, 1).reshape(batch, -1), codes.reshape(batch, -1, 4)


def _anchor_labels(
    anchors: Tensor, target: Targets, inside: tuple[int, int] | None, least: float
) -> tuple[Tensor, Tensor]:
    """Label the anchors of one image for training.

    Args:
        anchors: corners in input pixels [A, 4].
        target: the truth of the image.
        inside: height and width of the image if only anchors wholly in it are used, else None.
        least: IoU that the best anchor of an object needs to be positive.

    Returns labels, float [A]: 1 object, 0 background, -1 unused; and the truth box of each anchor [A, 4].
    """
    # the best anchor of an object is chosen among the usable ones only
    usable = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
    if inside is not None:
        height, width = inside
        usable = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)

    labels = torch.full((len(anchors),), -1.0, device=anchors.device)
    truth = torch.zeros_like(anchors)
    rows = usable.nonzero()[:, 0]
    if len(target.boxes) == 0:
        labels[rows] = 0
    elif len(rows):
        overlap = box_ops.iou(target.boxes, anchors[rows])  # [M, usable anchors]
        best, owner = overlap.max(0)

        # the best anchor of each object is positive too; with a tie, all of them
        object_best = overlap.amax(1, keepdim=True)
        forced = (overlap == object_best) & (object_best >= least)
        is_forced = forced.any(0)
        owner = torch.where(is_forced & (best < 0.7), forced.int().argmax(0), owner)

        labels[rows] = torch.where(best < 0.3, 0.0, -1.0)
        labels[rows] = torch.where((best >= 0.7) | is_forced, 1.0, labels[rows])
        truth[rows] = target.boxes[owner]

    if len(target.ignored):
        on_ignored = box_ops.iou(anchors, target.ignored).amax(1) >= 0.3
        labels[(labels == 0) & on_ignored] = -1
    return labels, truth


def _sampler_labels(owner: Tensor, boxes: Tensor, target: Targets) -> Tensor:
    """Label boxes for torchvision's sampler: 1 positive, 0 negative, -1 unused."""
    labels = (owner >= 0).float()
    if len(target.ignored):
        on_ignored = box_ops.iou(boxes, target.ignored).amax(1) >= 0.5
        labels[(labels == 0) & on_ignored] = -1
    return labels


def _labels_of(owner: Tensor, target: Targets) -> Tensor:
    """Look up the class of each region's object, 0 for background, int64 [S]."""
    if len(target.boxes) == 0:
        return torch.zeros_like(owner)
    return torch.where(owner >= 0, target.labels[owner.clamp(min=0)] + 1, 0)
