"""A mask head with its own look at the pixels: every region is cut from the frame and read by a small network.

Ours, in no paper. A one-stage detector for CPUs reads a frame squeezed to 300 x 300, whose finest map has 37 x 37
cells: enough to find an object, too coarse for its outline. Here each region is cut from the frame at the frame's own
resolution, read by the trunk of a MobileNetV2 and decoded as by a U-Net; the detector's pyramid tells, at a quarter of
the mask's resolution, which object is meant. The cost follows the number of objects, not the size of the frame.

Letters: N regions, C channels of the pyramid, s pixels of a crop's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import timm
import torch
import torch.nn.functional as F
from pydantic import Field
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn
from torchvision.ops import roi_align

from tubelet.core import boxes as box_ops
from tubelet.core.boxes import grow
from tubelet.core.types import Losses
from tubelet.models.backbones import hold_norms
from tubelet.models.rcnn.detectors.detector import Detections, Samples
from tubelet.models.rcnn.heads.paste import paste
from tubelet.models.rcnn.heads.sockets import Batch, MaskConfig, MaskPlug, View

TRUNK = (16, 24, 32, 96, 320)  # channels of the trunk's stages at strides 2, 4, 8, 16, 32


class CropMaskConfig(MaskConfig):
    """How regions are cut, and the widths of the decoder at strides 2, 4, 8 and coarser. Masks know no class."""

    kind: Literal["crops"] = "crops"
    size: int = Field(default=96, ge=32, le=512, multiple_of=16)  # pixels of a crop's side; the mask has half as many
    margin: float = Field(
        default=0.2, ge=0, le=1
    )  # the region is the box grown by this share of its size on every side
    channels: tuple[int, int, int] = (32, 64, 96)
    frozen_stages: int = Field(default=2, ge=0, le=7)  # of the trunk, after its stem, that stay as pretrained
    sampled: int = Field(default=8, ge=1)  # regions of an image that learn, drawn from those that the detector offers
    second_look: float = Field(
        default=0.0, ge=0, le=1
    )  # a mask whose own box overlaps the detected one by less (IoU) is asked for again, at its own box
    margins: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()  # at test a region is cut once with each of these
    # instead of `margin`, and its masks are averaged; empty: once, with `margin`
    several: int = Field(default=5, ge=1)  # only so many of a frame's objects, the best first: each cut costs time

    trust: float = Field(default=0.0, ge=0, le=8)  # at test a score is multiplied by the mask's sureness to this power
    typical: float = Field(default=0.9, gt=0, le=1)  # mean probability inside a mask that leaves the score as it is

    @property
    def resolution(self) -> int:
        """Cells of the region that is cut from the pyramid."""
        return self.size // 8

    def build(self, channels: int, num_classes: int) -> CropMaskHead:
        return CropMaskHead(self, channels)


class CropMaskHead(MaskPlug):
    """Cells [N, C, s/8, s/8] and crops [N, 3, s, s] -> mask logits [N, 1, s/2, s/2]."""

    def __init__(self, config: CropMaskConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        fine, middle, coarse = config.channels
        self.encoder = Trunk(config.frozen_stages)
        self.context = nn.Conv2d(channels, coarse, 1)
        # regions are all cut alike, so where in the crop the box lies is learned once
        self.position = nn.Parameter(torch.zeros(1, coarse, config.resolution, config.resolution))
        self.top = nn.Conv2d(TRUNK[4], coarse, 1)
        self.up16 = _Up(coarse, TRUNK[3], coarse)
        self.up8 = _Up(coarse, TRUNK[2], coarse)
        self.up4 = _Up(coarse, TRUNK[1], middle)
        self.up2 = _Up(middle, TRUNK[0], fine)
        self.logits = nn.Conv2d(fine, 1, 1)

    def forward(self, cells: Tensor, crops: Tensor) -> Tensor:
        half, quarter, eighth, sixteenth, last = self.encoder(crops)
        x = self.up16(self.top(last), sixteenth)
        x = self.up8(x, eighth, self.position + self.context(cells))
        return self.logits(self.up2(self.up4(x, quarter), half))

    def losses(self, batch: Batch) -> Losses:
        """Cross-entropy and Dice of a few regions of each image."""
        samples = {i: drawn(s, self.config.sampled) for i, s in batch.samples.items()}
        boxes = [self.reach(s.boxes) for s in samples.values()]
        cells = batch.cells(list(samples), boxes, self.config.resolution)
        in_frames = [b / batch.targets[i].scale for i, b in zip(samples, boxes, strict=True)]
        logits = self(cells, cut([batch.frames[i] for i in samples], in_frames, self.config.size))
        if sum(len(s.matched) for s in samples.values()) == 0:
            return {"mask": logits.sum() * 0}
        goal = batch.masks(samples, boxes, logits.shape[-1])
        return {"mask": outline_loss(logits[:, 0].float(), goal)}

    def masks(self, view: View, boxes: Tensor, labels: Tensor) -> Tensor:
        """Several cuts of the best objects are averaged; only masks that are due get a second look."""
        if len(boxes) == 0:
            return boxes.new_zeros(0, *view.size)
        regions, rows = views(boxes, self.config)
        inside = self.probabilities(view, regions)
        if self.config.second_look:
            own = tight(inside, regions)
            again = self._astray(own, boxes[rows]).nonzero()[:, 0]
            if len(again):
                regions = regions.index_copy(0, again, self.reach(own[again]))
                inside[again] = self.probabilities(view, regions[again])
        return averaged(paste(inside, regions / view.scale, view.size), rows, len(boxes))

    def inside(self, view: View, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One cut; every second look is taken, and used where it is due."""
        regions = self.reach(boxes)
        first = self.probabilities(view, regions)
        if not self.config.second_look:
            return regions, first
        own = tight(first, regions)
        again = self._astray(own, boxes)[:, None]
        regions = torch.where(again, self.reach(own), regions)
        return regions, torch.where(again[..., None], self.probabilities(view, regions), first)

    def _astray(self, own: Tensor, boxes: Tensor) -> Tensor:
        """Which masks, by their own boxes [N, 4], overlap the detected ones so little that they are asked for again."""
        overlaps: Tensor = box_ops.iou(own, boxes).diagonal() < self.config.second_look
        return overlaps

    def probabilities(self, view: View, regions: Tensor) -> Tensor:
        """Of the object in each region [N, 4], [N, s/2, s/2]."""
        cells = view.cells(regions, self.config.resolution)
        logits = self(cells, cut([view.frame], [regions / view.scale], self.config.size))
        return logits[:, 0].float().sigmoid()

    def reach(self, boxes: Tensor) -> Tensor:
        return grow(boxes, self.config.margin)

    def rescored(self, found: Detections, masks: Tensor) -> Detections:
        """Scores times the sureness of the masks, where that is on."""
        if not self.config.trust:
            return found
        factors = sureness(masks, self.config.typical).pow(self.config.trust)
        return replace(found, scores=(found.scores * factors[:, None].to(found.scores)).clamp(max=1))


class Trunk(nn.Module):
    """MobileNetV2 without its head: [N, 3, s, s] -> maps at strides 2, 4, 8, 16, 32."""

    def __init__(self, frozen_stages: int) -> None:
        super().__init__()
        whole: Any = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same", num_classes=0)
        self.conv_stem, self.bn1, self.blocks = whole.conv_stem, whole.bn1, whole.blocks
        for block in [block for stage in self.blocks for block in stage]:
            if block.conv_dw.stride == (2, 2):
                width = block.conv_dw.in_channels
                block.conv_dw = _Halving(width, width, 3, stride=2, groups=width, bias=False)
        self.frozen_stages = frozen_stages
        for part in (self.conv_stem, self.bn1, *self.blocks[:frozen_stages]):
            if frozen_stages:
                part.requires_grad_(False)

    def train(self, mode: bool = True) -> Trunk:
        super().train(mode)
        hold_norms(self)
        return self

    def forward(self, crops: Tensor) -> list[Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_stages):
            x = self.bn1(self.conv_stem(crops.contiguous(memory_format=torch.channels_last)))
        maps = []
        for number, stage in enumerate(self.blocks):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen_stages):
                x = stage(x)
            if number in (0, 1, 2, 4, 6):
                maps.append(x)
        return maps


class _Halving(Conv2dSame):
    """Timm's depthwise convolution of stride 2, in training with stride 1 and every second cell.

    The same numbers; but on CPUs the gradient of a strided depthwise convolution takes ten times as long.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        padded = pad_same(x, list(self.kernel_size), list(self.stride))
        return F.conv2d(padded, self.weight, self.bias, groups=self.groups)[..., ::2, ::2]


class _Up(nn.Module):
    """A coarser map, brought to the size of a finer one of the trunk, added to it and mixed."""

    def __init__(self, channels: int, finer: int, out: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        self.lateral = nn.Conv2d(finer, out, 1)
        self.mix = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, out)

    def forward(self, x: Tensor, finer: Tensor, told: Tensor | None = None) -> Tensor:
        x = F.interpolate(self.reduce(x), size=finer.shape[-2:], mode="nearest") + self.lateral(finer)
        return F.relu(self.norm(self.mix(x if told is None else x + told)))


def cut(frames: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
    """Regions of frames (uint8 [3, H, W] each) under boxes [N_i, 4] in their pixels -> [sum N_i, 3, size, size], -1..1.

    What lies outside a frame is 0, a mid grey.
    """
    crops = [
        roi_align((frame[None].float() - 127.5) / 127.5, [own.float()], size, 1.0, 2, aligned=True)
        for frame, own in zip(frames, boxes, strict=True)
    ]
    return torch.cat(crops)


def views(boxes: Tensor, config: CropMaskConfig) -> tuple[Tensor, Tensor]:
    """Regions [R, 4] to cut for boxes [N, 4] at test, and the number of the box that each shows, [R]."""
    margins, few = config.margins or (config.margin,), config.several
    regions = [grow(boxes[:few], margin) for margin in margins] + [grow(boxes[few:], config.margin)]
    rows = torch.arange(len(boxes), device=boxes.device)
    return torch.cat(regions), torch.cat([rows[:few]] * len(margins) + [rows[few:]])


def averaged(masks: Tensor, rows: Tensor, count: int) -> Tensor:
    """Masks [R, H, W] that show the objects `rows` [R] -> the mean of each of `count` objects, [count, H, W]."""
    if len(masks) == count:
        return masks
    total = masks.new_zeros(count, *masks.shape[1:]).index_add_(0, rows, masks)
    return total / torch.bincount(rows, minlength=count)[:, None, None]


def sureness(masks: Tensor, typical: float) -> Tensor:
    """How sure masks [N, H, W] are of what they cover, [N]: the mean probability there over the `typical` one.

    1 where a mask covers nothing.
    """
    covered = masks > 0.5
    count = covered.flatten(1).sum(1)
    mean = (masks * covered).flatten(1).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean / typical, 1.0)


def tight(inside: Tensor, regions: Tensor) -> Tensor:
    """Boxes [N, 4] around the cells of masks [N, h, w] that are above one half; the region itself where none is."""
    cells = box_ops.from_masks(inside > 0.5) / inside.shape[-1]
    extent = (regions[:, 2:] - regions[:, :2]).repeat(1, 2)
    return torch.where(cells.any(1, keepdim=True), regions[:, :2].repeat(1, 2) + cells * extent, regions)


def drawn(samples: Samples, most: int) -> Samples:
    """At most so many of an image's regions, drawn at random, large ones rather than small: they show more outline."""
    if len(samples.boxes) <= most:
        return samples
    chosen = torch.multinomial(box_ops.area(samples.boxes).clamp(min=1).sqrt(), most)
    return replace(samples, boxes=samples.boxes[chosen], matched=samples.matched[chosen])


def outline_loss(logits: Tensor, goal: Tensor) -> Tensor:
    """Binary cross-entropy, mean over cells, plus the Dice loss, mean over regions; [N, h, w] both."""
    inside = logits.sigmoid()
    shared, total = (inside * goal).flatten(1).sum(1), (inside + goal).flatten(1).sum(1)
    dice = 1 - (2 * shared + 1) / (total + 1)
    return F.binary_cross_entropy_with_logits(logits, goal) + dice.mean()
