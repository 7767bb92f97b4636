"""SSDLite on MobileNetV2: a one-stage detector made for CPUs, with a pyramid of its trunk for masks and identities.

Layout as in the public COCO-trained detector that it can start from: 300 x 300 input, six maps (the expansion at
stride 16, the head convolution, four extra layers), 3 anchors on the first map and 6 on the others, class scores by
sigmoid without a background class, box codes (ty, tx, th, tw) divided by 10, 10, 5, 5.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, sigmoid_focal_loss

from tubelet.core import boxes as box_ops
from tubelet.core.types import Losses
from tubelet.models.backbones import hold_norms
from tubelet.models.inputs import Images, InputConfig, Stretch
from tubelet.models.rcnn.detectors.detector import Detections, Detector, Features, Samples, Targets
from tubelet.models.rcnn.detectors.one_stage import OneStageConfig, regions_to_learn, select, select_fixed

TAPS = (576, 1280, 512, 256, 256, 128)  # channels of the six maps that predict boxes
ANCHORS = (3, 6, 6, 6, 6, 6)
EXTRAS = ((1280, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 128))
PYRAMID = {4: 144, 8: 192, 16: 576, 32: 1280}  # stride -> channels of the trunk's wide maps
CODE_SCALE = (10.0, 10.0, 5.0, 5.0)


class SSDLiteConfig(OneStageConfig):
    """The pyramid, thresholds, and the regions for the heads.

    Example:
        >>> from tubelet.models.rcnn.detectors.ssdlite import SSDLiteConfig
        >>> SSDLiteConfig(frozen=True).input.resize.target(480, 640)
        (300, 300)
    """

    kind: Literal["ssdlite"] = "ssdlite"
    input: InputConfig = InputConfig(resize=Stretch(), mean=(127.5,) * 3, std=(127.5,) * 3)
    channels: int = Field(default=128, ge=1)  # of the pyramid
    # of the pyramid; the last only feeds the finer ones
    strides: tuple[Literal[4, 8, 16, 32], ...] = Field(default=(8, 16, 32), min_length=2)
    frozen_pyramid: bool = False  # the pyramid too stays as an earlier training left it, so that only the heads learn

    @model_validator(mode="after")
    def _rising(self) -> SSDLiteConfig:
        if list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides must rise, got {self.strides}")
        return self

    def build(self, num_classes: int) -> SSDLite:
        return SSDLite(self, num_classes)


class SSDLite(Detector):
    """The detector; names of its parameters follow the weights it starts from."""

    config: SSDLiteConfig

    def __init__(self, config: SSDLiteConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.channels, self.strides = config.channels, list(config.strides[:-1])
        self.all_strides, self.proposes_from_maps = self.strides, False
        body = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same", num_classes=0)
        body.global_pool = nn.Identity()
        self.body = body
        self.extra = nn.ModuleList(_Extra(*widths) for widths in EXTRAS)
        self.box = nn.ModuleList(_Predictor(c, 4 * a) for c, a in zip(TAPS, ANCHORS, strict=True))
        self.cls = nn.ModuleList(
            _Predictor(c, num_classes * a, -math.log(99)) for c, a in zip(TAPS, ANCHORS, strict=True)
        )
        wide = [PYRAMID[s] for s in config.strides]
        self.standardise = nn.ModuleList(nn.BatchNorm2d(c, affine=False) for c in wide)
        self.fpn = FeaturePyramidNetwork(wide, config.channels)
        self.fpn.layer_blocks[-1] = nn.Identity()  # no box of a 300 x 300 image is large enough to be cut from it
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

    def extract(self, images: Images) -> Features:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen):
            wide, head = self._trunk(images.pixels)
            taps = [wide[16], head]
            for layer in self.extra:
                taps.append(layer(taps[-1]))
        wide[32] = head
        levels = {str(s): norm(wide[s]) for s, norm in zip(self.config.strides, self.standardise, strict=True)}
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen_pyramid):
            return Features(maps=list(self.fpn(levels).values())[:-1], taps=taps)

    def _trunk(self, pixels: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """The wide maps at strides 4, 8 and 16 (each the expansion that opens the next stage) and the head's."""
        body: Any = self.body
        x, wide = body.bn1(body.conv_stem(pixels)), {}
        for position, stage in enumerate(body.blocks):
            for number, block in enumerate(stage):
                if number == 0 and position in (2, 3, 5):
                    expanded = block.bn1(block.conv_pw(x))
                    wide[{2: 4, 3: 8, 5: 16}[position]] = expanded
                    x = block.bn3(block.conv_pwl(block.bn2(block.conv_dw(expanded))))
                else:
                    x = block(x)
        return wide, body.bn2(body.conv_head(x))

    def predict(self, features: Features) -> tuple[Tensor, Tensor]:
        """Class logits [B, A, K] and box codes [B, A, 4] of all A anchors."""
        logits = [_per_anchor(head(tap), self.num_classes) for head, tap in zip(self.cls, features.taps, strict=True)]
        codes = [_per_anchor(head(tap), 4) for head, tap in zip(self.box, features.taps, strict=True)]
        return torch.cat(logits, 1), torch.cat(codes, 1)

    def detect(self, features: Features, images: Images) -> list[Detections]:
        logits, codes = self.predict(features)
        slope, shift = self.config.calibration
        anchors = anchor_boxes([t.shape[-2:] for t in features.taps], images.pixels.device)
        size = codes.new_tensor([images.pixels.shape[-1], images.pixels.shape[-2]] * 2)
        scores = (logits.float() * slope + shift).sigmoid()
        boxes = [decode(c.float(), anchors).clamp(0, 1) * size for c in codes]
        return [select(p, b, self.config) for p, b in zip(scores, boxes, strict=True)]

    def detect_fixed(self, features: Features, images: Images) -> tuple[Detections, Tensor]:
        (logits,), (codes,) = self.predict(features)
        slope, shift = self.config.calibration
        scores = (logits * slope + shift).sigmoid()

        anchors = anchor_boxes([tap.shape[-2:] for tap in features.taps], codes.device)
        size = codes.new_tensor([images.pixels.shape[-1], images.pixels.shape[-2]] * 2)
        boxes = decode(codes, anchors).clamp(0, 1) * size
        return select_fixed(scores, boxes, self.config)

    def losses(self, features: Features, images: Images, targets: list[Targets]) -> tuple[Losses, list[Samples]]:
        with torch.no_grad():
            detections = self.detect(features, images)
        samples = [
            regions_to_learn(d, t, size, self.config)
            for d, t, size in zip(detections, targets, images.sizes, strict=True)
        ]
        if self.config.frozen:
            return {}, samples
        logits, codes = self.predict(features)
        size = codes.new_tensor([images.pixels.shape[-1], images.pixels.shape[-2]] * 2)
        anchors = anchor_boxes([t.shape[-2:] for t in features.taps], codes.device)
        per_image = [
            detection_losses(p, c, anchors, t, size)
            for p, c, t in zip(logits.float(), codes.float(), targets, strict=True)
        ]
        positives = max(sum(count for _, _, count in per_image), 1)
        return {
            "cls": torch.stack([c for c, _, _ in per_image]).sum() / positives,
            "box": torch.stack([b for _, b, _ in per_image]).sum() / positives,
        }, samples


class _Separable(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels)
        self.stride = stride

    def depthwise(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return F.relu6(self.dw(x))
        return F.relu6(F.conv2d(_pad_same(x), self.dw.weight, self.dw.bias, 2, groups=x.shape[1]))


class _Extra(_Separable):
    """1x1, depthwise 3x3 of stride 2, 1x1, each with ReLU6."""

    def __init__(self, channels: int, middle: int, out: int) -> None:
        super().__init__(middle, stride=2)
        self.pw = nn.Conv2d(channels, middle, 1)
        self.pw2 = nn.Conv2d(middle, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.pw2(self.depthwise(F.relu6(self.pw(x)))))


class _Predictor(_Separable):
    """Depthwise 3x3, ReLU6, 1x1; class scores start at a prior of 1 in 100, as focal losses do."""

    def __init__(self, channels: int, out: int, bias: float = 0.0) -> None:
        super().__init__(channels, stride=1)
        self.pw = nn.Conv2d(channels, out, 1)
        if self.pw.bias is not None:
            nn.init.constant_(self.pw.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.pw(self.depthwise(x))


def _pad_same(x: Tensor) -> Tensor:
    """TensorFlow's SAME padding for a 3x3 of stride 2: the odd pixel goes right and below."""
    pads = []
    for length in (x.shape[-1], x.shape[-2]):
        total = max((math.ceil(length / 2) - 1) * 2 + 3 - length, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def _per_anchor(x: Tensor, width: int) -> Tensor:
    """[B, A * width, H, W] -> [B, H * W * A, width]."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)


def anchor_boxes(shapes: list[torch.Size], device: torch.device) -> Tensor:
    """Anchors of maps of the given shapes: centre x, centre y, width, height as shares of the image, [A, 4]."""
    scales = [0.2 + 0.15 * i for i in range(6)] + [1.0]
    rows = []
    for i, (height, width) in enumerate(shapes):
        if i == 0:
            kinds = [(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)]
        else:
            kinds = [(scales[i], r) for r in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
            kinds.append((math.sqrt(scales[i] * scales[i + 1]), 1.0))
        sizes = torch.tensor([(s * math.sqrt(r), s / math.sqrt(r)) for s, r in kinds], device=device)
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 1, 2)
        rows.append(torch.cat([centres.expand(-1, len(kinds), 2), sizes.expand(len(centres), -1, 2)], -1).view(-1, 4))
    return torch.cat(rows)


def decode(codes: Tensor, anchors: Tensor) -> Tensor:
    """Codes (ty, tx, th, tw) [A, 4] at anchors -> corner boxes as shares of the image."""
    ty, tx, th, tw = (codes / codes.new_tensor(CODE_SCALE)).unbind(-1)
    centre = anchors[:, :2] + torch.stack([tx, ty], -1) * anchors[:, 2:]
    half = anchors[:, 2:] * torch.stack([tw, th], -1).clamp(max=4).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of decode."""
    centre, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-4)
    shift, stretch = (centre - anchors[:, :2]) / anchors[:, 2:], (extent / anchors[:, 2:]).log()
    codes = torch.stack([shift[:, 1], shift[:, 0], stretch[:, 1], stretch[:, 0]], -1)
    return codes * codes.new_tensor(CODE_SCALE)


def detection_losses(
    logits: Tensor, codes: Tensor, anchors: Tensor, targets: Targets, size: Tensor
) -> tuple[Tensor, Tensor, int]:
    """Focal loss over anchors and smooth-L1 over positives of one image, both summed, and the number of positives.

    An anchor is positive with an overlap of a half or more, or as the best of some object; anchors between 0.4 and
    0.5, and those that lie mostly on an ignored box, count neither way.
    """
    truth = targets.boxes / size
    corners = torch.cat([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], 1)
    goal = torch.zeros_like(logits)
    counted = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
    positive = ~counted
    owner = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    if len(truth):
        overlap = box_ops.iou(corners, truth)
        best, owner = overlap.max(1)
        forced = overlap.argmax(0)
        owner[forced] = torch.arange(len(truth), device=owner.device)
        positive = best >= 0.5
        positive[forced] = True
        counted = positive | (best < 0.4)
        goal[positive, targets.labels[owner[positive]]] = 1
    if len(targets.ignored):
        covered = box_ops.coverage(corners, targets.ignored / size).amax(1) > 0.5
        counted &= positive | ~covered
    focal = sigmoid_focal_loss(logits[counted], goal[counted], reduction="sum")
    if not positive.any():
        return focal, codes.sum() * 0, 0
    wanted = encode(truth[owner[positive]], anchors[positive])
    return focal, F.smooth_l1_loss(codes[positive], wanted, reduction="sum"), int(positive.sum())
