"""NanoDet-Plus: an anchor-free detector made for CPUs, whose own pyramid feeds the mask and match heads.

The layout is that of the public NanoDet-Plus (RangiLyu, Apache-2.0), with its batch norms folded into the
convolutions, so that weights of COCO can be loaded:

- Trunk: ShuffleNetV2. A 3x3 convolution and a max pooling, both of stride 2, then three stages of 4, 8 and 4 blocks
  at strides 8, 16 and 32.
- Pyramid: a path aggregation network of ghost blocks, 96 or 128 channels at strides 8, 16, 32 and 64.
- Heads, one per level: two separable 5x5 convolutions, then 1x1 to K class logits and 4 x 8 distance logits.

The point of cell (i, j) at stride s is (j s, i s), without half a pixel. The distances from it to the box's four
sides are s times the mean of 0..7 under the softmax of 8 logits each. Scores are sigmoids; there is no background.

Training follows the same source: quality focal loss, distribution focal loss (Li et al., Generalized Focal Loss,
NeurIPS 2020) and GIoU, with boxes assigned to objects by a cost that the predictions themselves decide. Its auxiliary
head, which is thrown away after training, is left out: we start from trained weights.

Letters: B images, A cells of all levels, K classes, M objects of an image.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from tubelet.core import boxes as box_ops
from tubelet.core.types import Losses
from tubelet.engines.graph import Graph
from tubelet.models.backbones import hold_norms
from tubelet.models.inputs import Images, InputConfig, KeepArea
from tubelet.models.rcnn.detectors.detector import Detections, Detector, Features, Samples, Targets
from tubelet.models.rcnn.detectors.one_stage import (
    OneStageConfig,
    calibrated,
    candidates,
    clip,
    regions_to_learn,
    select_fixed,
    suppressed,
)

STRIDES = (8, 16, 32, 64)
BINS = 8  # of the distribution of a distance
TRUNK = {"m": (116, 232, 464), "m-1.5x": (176, 352, 704)}
PYRAMID = {"m": 96, "m-1.5x": 128}
STAGES = (4, 8, 4)  # blocks
CANDIDATES = 13  # cells per object whose overlaps say how many cells it gets
CENTRE_RADIUS = 3.0  # cells around an object's centre that cost little


class NanoDetConfig(OneStageConfig):
    """Size of the network, thresholds, and the regions for the heads.

    Example:
        >>> from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
        >>> NanoDetConfig(size="m").build(80).channels
        96
    """

    kind: Literal["nanodet"] = "nanodet"
    input: InputConfig = InputConfig(resize=KeepArea())
    size: Literal["m", "m-1.5x"] = "m-1.5x"
    frozen_trunk: bool = False  # keep stem and stages as loaded: without norms, a step that is too long ruins them
    quality_weight: float = Field(default=1.0, ge=0)  # of the quality focal loss
    box_weight: float = Field(default=2.0, ge=0)  # of the GIoU loss
    distance_weight: float = Field(default=0.25, ge=0)  # of the distribution focal loss

    def build(self, num_classes: int) -> NanoDet:
        return NanoDet(self, num_classes)


class NanoDet(Detector):
    """The detector; names of its parameters follow the weights that it starts from."""

    config: NanoDetConfig

    def __init__(self, config: NanoDetConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.channels = PYRAMID[config.size]
        self.strides = list(STRIDES[:3])
        self.all_strides = list(STRIDES)
        self.proposes_from_maps = False

        widths = TRUNK[config.size]
        channels = self.channels
        self.stem = _Conv(3, 24, 3, stride=2)
        self.stages = nn.ModuleList(
            _stage(before, after, blocks) for before, after, blocks in zip((24, *widths), widths, STAGES, strict=False)
        )
        self.reduce = nn.ModuleList(_Conv(width, channels) for width in widths)
        self.top_down = nn.ModuleList(_GhostBlock(2 * channels, channels) for _ in range(2))
        self.down = nn.ModuleList(_separable(channels, stride=2) for _ in range(2))
        self.bottom_up = nn.ModuleList(_GhostBlock(2 * channels, channels) for _ in range(2))
        self.extra_in = _separable(channels, stride=2)
        self.extra_out = _separable(channels, stride=2)
        self.heads = nn.ModuleList(nn.Sequential(_separable(channels), _separable(channels)) for _ in STRIDES)
        self.classes = nn.ModuleList(nn.Conv2d(channels, num_classes, 1) for _ in STRIDES)
        self.distances = nn.ModuleList(nn.Conv2d(channels, 4 * BINS, 1) for _ in STRIDES)
        for name, bias in self.classes.named_parameters():
            if name.endswith("bias"):
                nn.init.constant_(bias, -math.log(99))  # a prior of 1 in 100
        # the heads see maps of unit variance, whatever the detector's scale
        self.standardise = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for _ in STRIDES)

        self.pyramid = Graph("pyramid", self, self._levels)
        self.raw_boxes = Graph("boxes", self, self._logits)
        if config.frozen:
            self.requires_grad_(False)
        elif config.frozen_trunk:
            self.stem.requires_grad_(False)
            self.stages.requires_grad_(False)

    def train(self, mode: bool = True) -> NanoDet:
        super().train(mode)
        if not self.config.frozen:
            hold_norms(self.standardise)  # maps that change must not move under the heads as well
        return self

    def graphs(self) -> list[Graph]:
        return [self.pyramid, self.raw_boxes]

    def extract(self, images: Images) -> Features:
        """Compute the pyramid: `taps` are the levels as the detector reads them, `maps` the same at unit variance."""
        levels = self.pyramid(images.pixels)
        count = len(STRIDES)
        return Features(maps=list(levels[count:]), taps=list(levels[:count]))

    def _levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The levels as the detector reads them, then the same at unit variance."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen):
            levels = self._fused(self._trunk(pixels.flip(1)))  # the network reads blue, green, red
            standardised = [norm(level) for norm, level in zip(self.standardise, levels, strict=True)]
        return (*levels, *standardised)

    def _trunk(self, pixels: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.stem(pixels), 3, 2, 1)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def _fused(self, maps: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = (reduce(m) for reduce, m in zip(self.reduce, maps, strict=True))

        middle = self.top_down[0](torch.cat([_resized(coarse, middle), middle], 1))
        fine = self.top_down[1](torch.cat([_resized(middle, fine), fine], 1))

        middle = self.bottom_up[0](torch.cat([self.down[0](fine), middle], 1))
        last = self.bottom_up[1](torch.cat([self.down[1](middle), coarse], 1))
        return [fine, middle, last, self.extra_in(coarse) + self.extra_out(last)]

    def predict(self, features: Features) -> CellPrediction:
        """Class logits, distances and boxes of all cells."""
        logits, bins = self.raw_boxes(*features.taps)
        points, strides = _cells(tuple(tap.shape[-2:] for tap in features.taps))
        return CellPrediction(logits.float(), bins.float(), points.to(bins.device), strides.to(bins.device))

    def _logits(self, *levels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of classes [B, A, K] and of distances [B, A, 4, 8] of the cells of all levels."""
        classes = []
        distances = []
        for number, level in enumerate(levels):
            x = self.heads[number](level)
            classes.append(self.classes[number](x).flatten(2))
            distances.append(self.distances[number](x).flatten(2))

        logits = torch.cat(classes, 2).transpose(1, 2)
        bins = torch.cat(distances, 2).transpose(1, 2).unflatten(-1, (4, BINS))
        return logits, bins

    def detect(self, features: Features, images: Images) -> list[Detections]:
        logits, bins = self.raw_boxes(*features.taps)
        points, strides = _known_cells(tuple(tap.shape[-2:] for tap in features.taps))
        detections = []
        for size, best in zip(images.sizes, candidates(logits, bins.flatten(2), self.config), strict=True):
            boxes = boxes_of(best.codes.unflatten(1, (4, BINS)), points[best.cells], strides[best.cells])
            detections.append(suppressed(best.scores, clip(boxes, size), self.config))
        return detections

    def detect_fixed(self, features: Features, images: Images) -> tuple[Detections, Tensor]:
        prediction = self.predict(features)
        (scores,) = calibrated(prediction.logits, self.config)
        (boxes,) = prediction.boxes()
        return select_fixed(scores, clip(boxes, images.sizes[0]), self.config)

    def losses(self, features: Features, images: Images, targets: list[Targets]) -> tuple[Losses, list[Samples]]:
        prediction = self.predict(features)
        with torch.no_grad():
            detections = self.detect(features, images)
        samples = [
            regions_to_learn(d, t, size, self.config)
            for d, t, size in zip(detections, targets, images.sizes, strict=True)
        ]
        if self.config.frozen:
            return {}, samples

        parts = [detection_losses(prediction.at(i), t) for i, t in enumerate(targets)]
        positives = max(sum(part.weight for part in parts), 1.0)
        config = self.config
        return {
            "cls": config.quality_weight * torch.stack([part.quality for part in parts]).sum() / positives,
            "box": config.box_weight * torch.stack([part.box for part in parts]).sum() / positives,
            "distance": config.distance_weight * torch.stack([part.distance for part in parts]).sum() / positives,
        }, samples


class CellPrediction(NamedTuple):
    """What the heads say of all cells of B images, or of one.

    Example:
        >>> from tubelet.models.rcnn.detectors.nanodet import CellPrediction
        >>> bins = torch.full((1, 4, 8), -100.0)
        >>> bins[:, :, 2] = 100  # all four sides are 2 strides away
        >>> cell = CellPrediction(torch.zeros(1, 3), bins, torch.tensor([[32.0, 16.0]]), torch.tensor([[8.0]]))
        >>> cell.boxes().tolist()
        [[16.0, 0.0, 48.0, 32.0]]
    """

    logits: Tensor  # of classes [(B), A, K]
    bins: Tensor  # logits of the distances to the left, upper, right and lower side [(B), A, 4, 8]
    points: Tensor  # (x, y) of the cells in input pixels [A, 2]
    strides: Tensor  # [A, 1]

    def at(self, image: int) -> CellPrediction:
        """That of one image."""
        return self._replace(logits=self.logits[image], bins=self.bins[image])

    def boxes(self) -> Tensor:
        """Corners in input pixels [(B), A, 4]."""
        return boxes_of(self.bins, self.points, self.strides)


def boxes_of(bins: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Decode the boxes of cells: corners in input pixels [(B), A, 4]. The arguments are those of `CellPrediction`."""
    steps = torch.arange(BINS, device=bins.device, dtype=bins.dtype)
    distances = (bins.softmax(-1) * steps).sum(-1) * strides
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)


class DetectionLoss(NamedTuple):
    """Losses of one image, summed over cells, and what to divide them by."""

    quality: Tensor
    box: Tensor
    distance: Tensor
    weight: float  # number of cells that stand for an object


def detection_losses(prediction: CellPrediction, targets: Targets) -> DetectionLoss:
    """Quality focal loss over all cells; GIoU and distribution focal loss over cells that stand for an object.

    A cell's class target is its box's overlap with the object that it stands for, 0 without one. Cells inside an
    ignored box that stand for no object do not count.
    """
    boxes = prediction.boxes()
    owner = assign(prediction, boxes.detach(), targets)
    positive = (owner >= 0).nonzero()[:, 0]
    truth = targets.boxes[owner[positive]]

    goal = torch.zeros_like(prediction.logits)
    overlap = box_ops.iou(boxes.detach()[positive], truth).diagonal()
    goal[positive, targets.labels[owner[positive]]] = overlap.to(goal)
    scores = prediction.logits.sigmoid()
    quality = F.binary_cross_entropy_with_logits(prediction.logits, goal, reduction="none")
    quality = quality * (goal - scores).abs().pow(2)

    counted = owner >= 0
    if len(targets.ignored):
        inside = contains(targets.ignored, prediction.points).any(1)
        counted = counted | ~inside
    else:
        counted = torch.ones_like(counted)

    nothing = prediction.bins.sum() * 0
    if len(positive) == 0:
        return DetectionLoss(quality[counted].sum(), nothing, nothing, 0.0)
    return DetectionLoss(
        quality=quality[counted].sum(),
        box=generalized_box_iou_loss(boxes[positive], truth, reduction="sum"),
        distance=_distribution_loss(prediction, positive, truth),
        weight=float(len(positive)),
    )


@torch.no_grad()
def assign(prediction: CellPrediction, boxes: Tensor, targets: Targets) -> Tensor:
    """Which object each cell stands for, int64 [A], -1 for none.

    A cell whose point is inside an object's box costs little if its box fits the object, its score for the class is
    as high as that overlap, and it is near the object's centre. An object gets as many of the cheapest cells as the
    sum of its 13 best overlaps, at least one; a cell that several objects want goes to the cheapest.
    """
    truth = targets.boxes
    owner = torch.full((len(boxes),), -1, dtype=torch.int64, device=boxes.device)
    if len(truth) == 0:
        return owner

    inside = contains(truth, prediction.points)  # [A, M]
    overlap = box_ops.iou(boxes, truth)
    centres = (truth[:, :2] + truth[:, 2:]) / 2
    distance = (prediction.points[:, None] - centres).norm(dim=-1) / prediction.strides

    logits = prediction.logits[:, targets.labels]  # [A, M], of each object's class
    quality = F.binary_cross_entropy_with_logits(logits, overlap.to(logits), reduction="none")
    cost = quality * (overlap - logits.sigmoid()).abs().pow(2)
    cost = cost + 3 * -(overlap + 1e-7).log() + 10 ** (distance - CENTRE_RADIUS)
    cost = cost.nan_to_num(posinf=1e8).masked_fill(~inside, 1e9)

    best = (overlap * inside).topk(min(CANDIDATES, len(boxes)), 0).values
    counts = best.sum(0).int().clamp(min=1)
    chosen = torch.zeros_like(inside)
    for m, count in enumerate(counts.tolist()):
        chosen[cost[:, m].topk(count, largest=False).indices, m] = True
    chosen &= inside

    cost = cost.masked_fill(~chosen, math.inf)
    wanted = chosen.any(1)
    owner[wanted] = cost[wanted].argmin(1)
    return owner


def contains(boxes: Tensor, points: Tensor) -> Tensor:
    """Whether each point (x, y) [A, 2] is inside each box [M, 4], bool [A, M].

    Example:
        >>> from tubelet.models.rcnn.detectors.nanodet import contains
        >>> contains(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 5], [20, 5]])).tolist()
        [[True], [False]]
    """
    after = (points[:, None] > boxes[:, :2]).all(-1)
    before = (points[:, None] < boxes[:, 2:]).all(-1)
    return after & before


def _distribution_loss(prediction: CellPrediction, cells: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy with the two steps around each true distance, by nearness; mean over sides, sum over cells."""
    points = prediction.points[cells]
    distances = torch.cat([points - truth[:, :2], truth[:, 2:] - points], 1) / prediction.strides[cells]
    distances = distances.clamp(0, BINS - 1 - 0.1)
    lower = distances.floor().long()
    share = distances - lower

    log_probabilities = prediction.bins[cells].log_softmax(-1)
    below = log_probabilities.gather(-1, lower[..., None])[..., 0]
    above = log_probabilities.gather(-1, lower[..., None] + 1)[..., 0]
    return -((1 - share) * below + share * above).mean(1).sum()


class _Conv(nn.Conv2d):
    """A convolution with bias that keeps the size at stride 1, with a leaky ReLU where `act`."""

    def __init__(
        self, channels: int, out: int, kernel: int = 1, *, stride: int = 1, depthwise: bool = False, act: bool = True
    ) -> None:
        groups = channels if depthwise else 1
        super().__init__(channels, out, kernel, stride, padding=kernel // 2, groups=groups)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return F.leaky_relu(x, 0.1) if self.act else x


class _Block(nn.Module):
    """ShuffleNetV2's unit; with stride 2 both branches read all channels."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        half = out // 2
        self.halves = stride == 1
        self.short: nn.Module = nn.Identity()
        if not self.halves:
            self.short = nn.Sequential(
                _Conv(channels, channels, 3, stride=2, depthwise=True, act=False), _Conv(channels, half)
            )
        inner = half if self.halves else channels
        self.long = nn.Sequential(
            _Conv(inner, half), _Conv(half, half, 3, stride=stride, depthwise=True, act=False), _Conv(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.halves else (x, x)
        # channels of the two branches alternate
        return torch.stack([self.short(left), self.long(right)], 2).flatten(1, 2)


def _stage(channels: int, out: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(_Block(channels, out, 2), *(_Block(out, out, 1) for _ in range(blocks - 1)))


class _Ghost(nn.Module):
    """Half of the channels by 1x1, the other half from them by depthwise 3x3."""

    def __init__(self, channels: int, out: int, *, act: bool) -> None:
        super().__init__()
        self.primary = _Conv(channels, out // 2, act=act)
        self.cheap = _Conv(out // 2, out // 2, 3, depthwise=True, act=act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)


class _GhostBlock(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_Ghost(channels, out, act=True), _Ghost(out, out, act=False))
        self.shortcut = nn.Sequential(
            _Conv(channels, channels, 5, depthwise=True, act=False), _Conv(channels, out, act=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


def _separable(channels: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_Conv(channels, channels, 5, stride=stride, depthwise=True), _Conv(channels, channels))


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _cells(shapes: tuple[torch.Size, ...]) -> tuple[Tensor, Tensor]:
    """Points (x, y) in input pixels [A, 2] and strides [A, 1] of the cells of all levels, of (height, width) each."""
    points = []
    strides = []
    for (height, width), stride in zip(shapes, STRIDES, strict=True):
        y = torch.arange(height, dtype=torch.float32) * stride
        x = torch.arange(width, dtype=torch.float32) * stride
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
        points.append(grid)
        strides.append(grid.new_full((len(grid), 1), stride))
    return torch.cat(points), torch.cat(strides)


_known_cells = lru_cache(maxsize=16)(_cells)
