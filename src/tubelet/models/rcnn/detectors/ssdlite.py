"""SSDLite on MobileNetV2: a one-stage detector made for CPUs, and a pyramid on its trunk for mask and match heads.

The layout is that of the public COCO-trained detector, whose weights can be loaded:

- Input: 300 x 300 pixels.
- Maps that predict boxes: six, namely the expansion at stride 16, the head convolution and four extra layers.
- Anchors: 3 per cell on the first map, 6 on the others.
- Scores: sigmoids; there is no background class.
- Box codes: (ty, tx, th, tw), divided by 10, 10, 5, 5 before decoding.

Letters: B images, A anchors of all maps, K classes, M objects of an image.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, sigmoid_focal_loss

from tubelet.core import boxes as box_ops
from tubelet.core.types import Losses
from tubelet.engines.graph import Graph
from tubelet.models.backbones import hold_norms
from tubelet.models.inputs import Images, InputConfig, Stretch
from tubelet.models.rcnn.detectors.detector import Detections, Detector, Features, Samples, Targets
from tubelet.models.rcnn.detectors.one_stage import (
    OneStageConfig,
    calibrated,
    candidates,
    regions_to_learn,
    select_fixed,
    suppressed,
)

TAPS = (576, 1280, 512, 256, 256, 128)  # channels of the six maps that predict boxes
ANCHORS = (3, 6, 6, 6, 6, 6)
EXTRAS = ((1280, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 128))
PYRAMID = {4: 144, 8: 192, 16: 576, 32: 1280}  # stride -> channels of the trunk's wide maps
CODE_SCALE = (10.0, 10.0, 5.0, 5.0)


class SSDLiteConfig(OneStageConfig):
    """Settings of the pyramid, thresholds, and the regions for the heads.

    Example:
        >>> from tubelet.models.rcnn.detectors.ssdlite import SSDLiteConfig
        >>> SSDLiteConfig(frozen=True).input.resize.target(480, 640)
        (300, 300)
    """

    kind: Literal["ssdlite"] = "ssdlite"
    input: InputConfig = InputConfig(resize=Stretch(), mean=(127.5,) * 3, std=(127.5,) * 3)
    channels: int = Field(default=128, ge=1)  # of the pyramid
    # of the pyramid, rising; the coarsest level only feeds the finer ones
    strides: tuple[Literal[4, 8, 16, 32], ...] = Field(default=(8, 16, 32), min_length=2)
    frozen_pyramid: bool = False  # keep the pyramid as loaded too, so that only the heads learn

    @model_validator(mode="after")
    def _rising(self) -> SSDLiteConfig:
        if list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides must rise, got {self.strides}")
        return self

    def build(self, num_classes: int) -> SSDLite:
        return SSDLite(self, num_classes)


class SSDLite(Detector):
    """The SSDLite detector; names of its parameters follow the weights that it starts from."""

    config: SSDLiteConfig

    def __init__(self, config: SSDLiteConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.channels = config.channels
        self.strides = list(config.strides[:-1])
        self.all_strides = self.strides
        self.proposes_from_maps = False

        body = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same", num_classes=0)
        body.global_pool = nn.Identity()
        self.body = body

        self.extra = nn.ModuleList(_Extra(*widths) for widths in EXTRAS)
        self.box = nn.ModuleList(_Predictor(c, 4 * a) for c, a in zip(TAPS, ANCHORS, strict=True))
        # class scores start at a prior of 1 in 100, as usual with the focal loss
        self.cls = nn.ModuleList(
            _Predictor(c, num_classes * a, -math.log(99)) for c, a in zip(TAPS, ANCHORS, strict=True)
        )

        widths = [PYRAMID[stride] for stride in config.strides]
        self.standardise = nn.ModuleList(nn.BatchNorm2d(width, affine=False) for width in widths)
        self.fpn = FeaturePyramidNetwork(widths, config.channels)
        self.fpn.layer_blocks[-1] = nn.Identity()  # no box of a 300 x 300 image is large enough to be cut from it

        self.pyramid = Graph("pyramid", self, self._levels)
        self.raw_boxes = Graph("boxes", self, self._predictions)
        if config.frozen:
            for part in self._detector_parts():
                part.requires_grad_(False)
        if config.frozen_pyramid:
            self.fpn.requires_grad_(False)

    def _detector_parts(self) -> tuple[nn.Module, ...]:
        return self.body, self.extra, self.box, self.cls

    def train(self, mode: bool = True) -> SSDLite:
        super().train(mode)
        hold_norms(self.body)
        if self.config.frozen_pyramid:
            hold_norms(self.standardise)
        return self

    def graphs(self) -> list[Graph]:
        return [self.pyramid, self.raw_boxes]

    def extract(self, images: Images) -> Features:
        """Compute the features: `taps` are the six maps that predict boxes, `maps` the pyramid."""
        maps = self.pyramid(images.pixels)
        count = len(self.strides)
        return Features(maps=list(maps[:count]), taps=list(maps[count:]))

    def _levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The pyramid, then the six maps that predict boxes."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen):
            trunk_maps, head_map = self._trunk(pixels)
            taps = [trunk_maps[16], head_map]
            for layer in self.extra:
                taps.append(layer(taps[-1]))

        trunk_maps[32] = head_map
        levels = {}
        for stride, norm in zip(self.config.strides, self.standardise, strict=True):
            levels[str(stride)] = norm(trunk_maps[stride])

        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen_pyramid):
            return (*list(self.fpn(levels).values())[:-1], *taps)

    def _trunk(self, pixels: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Compute the trunk's maps by stride (4, 8 and 16), and the map of the head convolution at stride 32.

        The map at a stride is the expansion in the first block of the stage that halves it.
        """
        body: Any = self.body
        stride_of_stage = {2: 4, 3: 8, 5: 16}
        x = body.bn1(body.conv_stem(pixels))
        maps = {}
        for stage_index, stage in enumerate(body.blocks):
            for block_index, block in enumerate(stage):
                if block_index == 0 and stage_index in stride_of_stage:
                    expanded = block.bn1(block.conv_pw(x))
                    maps[stride_of_stage[stage_index]] = expanded
                    x = block.bn3(block.conv_pwl(block.bn2(block.conv_dw(expanded))))
                else:
                    x = block(x)

        return maps, body.bn2(body.conv_head(x))

    def predict(self, features: Features) -> tuple[Tensor, Tensor]:
        """Predict class logits [B, A, K] and box codes [B, A, 4] for all anchors."""
        logits, codes = self.raw_boxes(*features.taps)
        return logits, codes

    def _predictions(self, *taps: Tensor) -> tuple[Tensor, Tensor]:
        logits = [_per_anchor(head(tap), self.num_classes) for head, tap in zip(self.cls, taps, strict=True)]
        codes = [_per_anchor(head(tap), 4) for head, tap in zip(self.box, taps, strict=True)]
        return torch.cat(logits, 1), torch.cat(codes, 1)

    def detect(self, features: Features, images: Images) -> list[Detections]:
        """Detect the boxes of each image, best first, after suppression."""
        logits, codes = self.predict(features)
        anchors = _known_anchors(tuple(tap.shape[-2:] for tap in features.taps))
        size = torch.tensor([images.pixels.shape[-1], images.pixels.shape[-2]] * 2)
        detections = []
        for best in candidates(logits, codes, self.config):
            boxes = decode(best.codes, anchors[best.cells]).clamp(0, 1) * size
            detections.append(suppressed(best.scores, boxes, self.config))
        return detections

    def detect_fixed(self, features: Features, images: Images) -> tuple[Detections, Tensor]:
        """Do `detect` for one image with fixed shapes: `max_detections` boxes, and which of them exist, bool [D]."""
        (logits,), (codes,) = self.predict(features)
        scores = calibrated(logits, self.config)

        anchors = anchor_boxes([tap.shape[-2:] for tap in features.taps], codes.device)
        size = codes.new_tensor([images.pixels.shape[-1], images.pixels.shape[-2]] * 2)
        boxes = decode(codes, anchors).clamp(0, 1) * size
        return select_fixed(scores, boxes, self.config)

    def losses(self, features: Features, images: Images, targets: list[Targets]) -> tuple[Losses, list[Samples]]:
        """Compute the losses `cls` and `box`, none if the detector is frozen, and the regions for the heads."""
        with torch.no_grad():
            detections = self.detect(features, images)
        samples = [
            regions_to_learn(image_detections, target, size, self.config)
            for image_detections, target, size in zip(detections, targets, images.sizes, strict=True)
        ]
        if self.config.frozen:
            return {}, samples

        logits, codes = self.predict(features)
        size = codes.new_tensor([images.pixels.shape[-1], images.pixels.shape[-2]] * 2)
        anchors = anchor_boxes([tap.shape[-2:] for tap in features.taps], codes.device)

        class_losses = []
        box_losses = []
        num_positive = 0
        for image_logits, image_codes, target in zip(logits.float(), codes.float(), targets, strict=True):
            class_loss, box_loss, count = detection_losses(image_logits, image_codes, anchors, target, size)
            class_losses.append(class_loss)
            box_losses.append(box_loss)
            num_positive += count

        num_positive = max(num_positive, 1)
        losses = {
            "cls": torch.stack(class_losses).sum() / num_positive,
            "box": torch.stack(box_losses).sum() / num_positive,
        }
        return losses, samples


class _Separable(nn.Module):
    """Base of blocks with a depthwise 3x3; at stride 2 it pads as TensorFlow does."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels)
        self.stride = stride

    def depthwise(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return F.relu6(self.dw(x))

        padded = _pad_same(x)
        return F.relu6(F.conv2d(padded, self.dw.weight, self.dw.bias, 2, groups=x.shape[1]))


class _Extra(_Separable):
    """1x1, depthwise 3x3 of stride 2, 1x1, each with ReLU6."""

    def __init__(self, channels: int, middle: int, out: int) -> None:
        super().__init__(middle, stride=2)
        self.pw = nn.Conv2d(channels, middle, 1)
        self.pw2 = nn.Conv2d(middle, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.pw(x))
        x = self.depthwise(x)
        return F.relu6(self.pw2(x))


class _Predictor(_Separable):
    """Depthwise 3x3, ReLU6, 1x1; `bias` is the initial bias of all outputs."""

    def __init__(self, channels: int, out: int, bias: float = 0.0) -> None:
        super().__init__(channels, stride=1)
        self.pw = nn.Conv2d(channels, out, 1)
        if self.pw.bias is not None:
            nn.init.constant_(self.pw.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.pw(self.depthwise(x))


def _pad_same(x: Tensor) -> Tensor:
    """Pad as TensorFlow's SAME does for a 3x3 of stride 2: the odd pixel goes right and below."""
    pads = []
    for length in (x.shape[-1], x.shape[-2]):
        total = max((math.ceil(length / 2) - 1) * 2 + 3 - length, 0)
        before = total // 2
        pads += [before, total - before]
    return F.pad(x, pads)


def _per_anchor(x: Tensor, width: int) -> Tensor:
    """Reorder one map by anchor: [B, a * width, H, W] -> [B, H * W * a, width], with a anchors per cell."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)


def anchor_boxes(shapes: list[torch.Size], device: torch.device) -> Tensor:
    """Compute the anchors of maps of the given shapes (height, width).

    Returns centre x, centre y, width and height as shares of the image, [A, 4].

    Example:
        >>> from tubelet.models.rcnn.detectors.ssdlite import anchor_boxes
        >>> anchors = anchor_boxes([torch.Size([2, 2]), torch.Size([1, 1])], torch.device("cpu"))
        >>> anchors.shape  # 4 cells of 3 anchors, and 1 cell of 6
        torch.Size([18, 4])
        >>> anchors[0, :2].tolist()
        [0.25, 0.25]
    """
    scales = [0.2 + 0.15 * i for i in range(6)] + [1.0]
    anchors = []
    for level, (height, width) in enumerate(shapes):
        if level == 0:
            kinds = [(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)]  # scale, aspect ratio
        else:
            kinds = [(scales[level], ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
            kinds.append((math.sqrt(scales[level] * scales[level + 1]), 1.0))
        sizes = torch.tensor(
            [(scale * math.sqrt(ratio), scale / math.sqrt(ratio)) for scale, ratio in kinds], device=device
        )

        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 1, 2)
        level_centres = centres.expand(-1, len(kinds), 2)
        level_sizes = sizes.expand(len(centres), -1, 2)
        anchors.append(torch.cat([level_centres, level_sizes], -1).view(-1, 4))
    return torch.cat(anchors)


@lru_cache(maxsize=16)
def _known_anchors(shapes: tuple[torch.Size, ...]) -> Tensor:
    return anchor_boxes(list(shapes), torch.device("cpu"))


def decode(codes: Tensor, anchors: Tensor) -> Tensor:
    """Decode box codes at anchors into boxes.

    Args:
        codes: (ty, tx, th, tw), [A, 4].
        anchors: as of `anchor_boxes`, [A, 4].

    Returns corners as shares of the image, [A, 4]; they may exceed it.

    Example:
        >>> from tubelet.models.rcnn.detectors.ssdlite import decode
        >>> decode(torch.zeros(1, 4), torch.tensor([[0.5, 0.5, 0.5, 0.25]])).tolist()
        [[0.25, 0.375, 0.75, 0.625]]
    """
    ty, tx, th, tw = (codes / codes.new_tensor(CODE_SCALE)).unbind(-1)
    centre = anchors[:, :2] + torch.stack([tx, ty], -1) * anchors[:, 2:]
    half = anchors[:, 2:] * torch.stack([tw, th], -1).clamp(max=4).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Encode boxes at anchors, the inverse of `decode`: corners [A, 4], anchors [A, 4] -> codes [A, 4].

    Example:
        >>> from tubelet.models.rcnn.detectors.ssdlite import encode
        >>> anchors = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
        >>> encode(torch.tensor([[0.25, 0.5, 0.75, 1.0]]), anchors).tolist()  # half an anchor lower
        [[5.0, 0.0, 0.0, 0.0]]
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    extent = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-4)
    shift = (centre - anchors[:, :2]) / anchors[:, 2:]
    stretch = (extent / anchors[:, 2:]).log()
    codes = torch.stack([shift[:, 1], shift[:, 0], stretch[:, 1], stretch[:, 0]], -1)
    return codes * codes.new_tensor(CODE_SCALE)


def detection_losses(
    logits: Tensor, codes: Tensor, anchors: Tensor, targets: Targets, size: Tensor
) -> tuple[Tensor, Tensor, int]:
    """Compute the focal loss over anchors and the smooth-L1 loss over positive anchors of one image.

    An anchor is positive if it overlaps an object by 0.5 or more, or is the best anchor of an object. Other anchors
    with an overlap of 0.4 or more, and those mostly covered by an ignored box, are left out.

    Args:
        logits: [A, K].
        codes: [A, 4].
        anchors: as of `anchor_boxes`, [A, 4].
        targets: the truth of the image.
        size: width, height, width, height of the input in pixels, [4].

    Returns both losses, each a sum, and the number of positive anchors.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Targets
        >>> from tubelet.models.rcnn.detectors.ssdlite import detection_losses
        >>> truth = Targets(boxes=torch.tensor([[75.0, 75, 225, 225]]), labels=torch.tensor([0]),
        ...     ids=torch.tensor([1]), masks=torch.zeros(1, 300, 300), scale=torch.ones(4), ignored=torch.zeros(0, 4))
        >>> anchors = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1]])
        >>> logits = torch.tensor([[20.0], [-20.0]])
        >>> focal, box, count = detection_losses(logits, torch.zeros(2, 4), anchors, truth, torch.full((4,), 300.0))
        >>> round(focal.item(), 3), round(box.item(), 3), count
        (0.0, 0.0, 1)
    """
    truth = targets.boxes / size
    corners = torch.cat([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], 1)

    target_scores = torch.zeros_like(logits)
    used = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
    positive = ~used
    owner = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    if len(truth):
        overlap = box_ops.iou(corners, truth)
        best, owner = overlap.max(1)
        forced = overlap.argmax(0)
        owner[forced] = torch.arange(len(truth), device=owner.device)
        positive = best >= 0.5
        positive[forced] = True
        used = positive | (best < 0.4)
        target_scores[positive, targets.labels[owner[positive]]] = 1

    if len(targets.ignored):
        covered = box_ops.coverage(corners, targets.ignored / size).amax(1) > 0.5
        used &= positive | ~covered

    class_loss = sigmoid_focal_loss(logits[used], target_scores[used], reduction="sum")
    if not positive.any():
        return class_loss, codes.sum() * 0, 0

    target_codes = encode(truth[owner[positive]], anchors[positive])
    box_loss = F.smooth_l1_loss(codes[positive], target_codes, reduction="sum")
    return class_loss, box_loss, int(positive.sum())
