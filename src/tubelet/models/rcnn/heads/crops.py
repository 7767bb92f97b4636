"""A mask head that reads the pixels of each region, cut from the frame at the frame's own resolution.

Our own design, from no paper. A one-stage detector for CPUs reads a frame resized to 300 x 300,
whose finest map has 37 x 37 cells: enough to find an object, too coarse for its outline. Here each
region is cut from the frame itself, encoded by a MobileNetV2 and decoded as in a U-Net. The
detector's pyramid, at a quarter of the mask's resolution, says which object of the region is meant.
The cost grows with the number of objects, not with the size of the frame.

Letters: N regions, C channels of the pyramid, s pixels of a crop's side, H and W the frame's size.
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
from tubelet.core.devices import upload
from tubelet.core.types import Losses
from tubelet.engines.graph import Graph
from tubelet.models.backbones import hold_norms
from tubelet.models.rcnn.detectors.detector import Detections, Samples
from tubelet.models.rcnn.heads.paste import FrameMasks, paste
from tubelet.models.rcnn.heads.sockets import Batch, MaskConfig, MaskPlug, View

TRUNK = (16, 24, 32, 96, 320)  # channels of the trunk's stages at strides 2, 4, 8, 16, 32


class CropMaskConfig(MaskConfig):
    """Configure how regions are cut, how their masks are decoded, and how scores follow from them.

    Masks do not depend on the class.

    Example:
        >>> from tubelet.models.rcnn.heads.crops import CropMaskConfig
        >>> config = CropMaskConfig(size=64, channels=(8, 8, 16))
        >>> config.resolution  # cells of a region's side, cut from the pyramid
        8
    """

    kind: Literal["crops"] = "crops"
    size: int = Field(default=96, ge=32, le=512, multiple_of=16)  # pixels of a crop's side; the mask has half as many

    # the region is the box enlarged on every side by this share of its width or height
    margin: float = Field(default=0.2, ge=0, le=1)

    channels: tuple[int, int, int] = (32, 64, 96)  # of the decoder at strides 2, 4, and 8 and coarser
    frozen_stages: int = Field(default=2, ge=0, le=7)  # stages of the trunk, after its stem, that are not trained
    sampled: int = Field(default=8, ge=1)  # most regions of an image to train on, of those that the detector samples

    # a mask whose tight box has a lower IoU with the detected box is predicted again, at its tight box
    second_look: float = Field(default=0.0, ge=0, le=1)

    # in inference a region is cut once with each of these instead of `margin`, and its masks are
    # averaged; empty: once, with `margin`
    margins: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    several: int = Field(default=5, ge=1)  # objects of a frame, best first, that `margins` holds for: cuts cost time

    # in inference a score is multiplied by the mask's `sureness` to this power; 0: scores stay
    trust: float = Field(default=0.0, ge=0, le=8)
    typical: float = Field(default=0.9, gt=0, le=1)  # mean probability inside a mask that leaves the score unchanged

    @property
    def resolution(self) -> int:
        """Cells of the side of a region that is cut from the pyramid."""
        return self.size // 8

    def build(self, channels: int, num_classes: int) -> CropMaskHead:
        """Build the head for a pyramid of `channels` channels; `num_classes` is not used."""
        return CropMaskHead(self, channels)


class CropMaskHead(MaskPlug):
    """Compute mask logits [N, 1, s/2, s/2] of cells [N, C, s/8, s/8] and crops [N, 3, s, s].

    Example:
        >>> from tubelet.models.rcnn.heads.crops import CropMaskConfig
        >>> config = CropMaskConfig(size=32, channels=(8, 8, 16))
        >>> head = config.build(channels=4, num_classes=2).eval()
        >>> with torch.no_grad():
        ...     logits = head(torch.zeros(1, 4, 4, 4), torch.zeros(1, 3, 32, 32))
        >>> logits.shape
        torch.Size([1, 1, 16, 16])
    """

    def __init__(self, config: CropMaskConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        fine, middle, coarse = config.channels

        self.encoder = Trunk(config.frozen_stages)
        self.context = nn.Conv2d(channels, coarse, 1)

        # the box is at the same position in every crop, so one learned map describes it
        self.position = nn.Parameter(torch.zeros(1, coarse, config.resolution, config.resolution))

        self.top = nn.Conv2d(TRUNK[4], coarse, 1)
        self.up16 = _Up(coarse, TRUNK[3], coarse)
        self.up8 = _Up(coarse, TRUNK[2], coarse)
        self.up4 = _Up(coarse, TRUNK[1], middle)
        self.up2 = _Up(middle, TRUNK[0], fine)
        self.logits = nn.Conv2d(fine, 1, 1)
        self.network = Graph("masks", self, self._logits, rows=True)

    def forward(self, cells: Tensor, crops: Tensor) -> Tensor:
        stride2, stride4, stride8, stride16, stride32 = self.encoder(crops)

        x = self.up16(self.top(stride32), stride16)
        x = self.up8(x, stride8, self.position + self.context(cells))
        x = self.up4(x, stride4)
        x = self.up2(x, stride2)
        return self.logits(x)

    def _logits(self, cells: Tensor, crops: Tensor) -> tuple[Tensor]:
        logits: Tensor = self(cells, crops)
        return (logits,)

    def graphs(self) -> list[Graph]:
        return [self.network]

    def losses(self, batch: Batch) -> Losses:
        """Compute cross-entropy plus Dice, over at most `sampled` regions of each image."""
        samples = {i: drawn(s, self.config.sampled) for i, s in batch.samples.items()}
        boxes = [self.reach(s.boxes) for s in samples.values()]
        cells = batch.cells(list(samples), boxes, self.config.resolution)

        frames = [batch.frames[i] for i in samples]
        frame_boxes = [b / batch.targets[i].scale for i, b in zip(samples, boxes, strict=True)]
        logits = self(cells, cut(frames, frame_boxes, self.config.size))

        num_regions = sum(len(s.matched) for s in samples.values())
        if num_regions == 0:
            return {"mask": logits.sum() * 0}

        target_masks = batch.masks(samples, boxes, logits.shape[-1])
        return {"mask": outline_loss(logits[:, 0].float(), target_masks)}

    def masks(self, view: View, boxes: Tensor, labels: Tensor, groups: Sequence[int] = ()) -> FrameMasks:
        """Compute mask probabilities in the whole frame.

        The masks of an object that is cut several times are averaged: of the first of each group.
        Only masks that need a second look are predicted again.
        """
        if len(boxes) == 0:
            return FrameMasks.none(view.size)

        regions, rows = views(boxes, self.config, groups)
        probabilities = self.probabilities(view, regions).cpu()

        if self.config.second_look:
            mask_boxes = tight(probabilities, regions)
            again = self._needs_second_look(mask_boxes, boxes[rows]).nonzero()[:, 0]
            if len(again):
                regions = regions.index_copy(0, again, self.reach(mask_boxes[again]))
                probabilities[again] = self.probabilities(view, regions[again]).cpu()

        return paste(probabilities, regions / view.scale, view.size, rows)

    def inside(self, view: View, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute regions [N, 4] and the mask probabilities [N, s/2, s/2] in them.

        Every region is cut once, with `margin`. With a second look, all masks are predicted twice,
        so that shapes stay fixed, and the second one is used where it is needed.
        """
        regions = self.reach(boxes)
        first = self.probabilities(view, regions)
        if not self.config.second_look:
            return regions, first

        mask_boxes = tight(first, regions)
        again = self._needs_second_look(mask_boxes, boxes)[:, None]
        regions = torch.where(again, self.reach(mask_boxes), regions)
        second = self.probabilities(view, regions)
        return regions, torch.where(again[..., None], second, first)

    def _needs_second_look(self, mask_boxes: Tensor, boxes: Tensor) -> Tensor:
        """Whether the tight box of each mask overlaps the detected box too little, bool [N]."""
        low_overlap: Tensor = box_ops.iou(mask_boxes, boxes).diagonal() < self.config.second_look
        return low_overlap

    def probabilities(self, view: View, regions: Tensor) -> Tensor:
        """Compute the mask probabilities [N, s/2, s/2] in regions [N, 4], in input pixels."""
        cells = view.cells(regions, self.config.resolution)
        crops = cut([view.frame], [regions / view.scale], self.config.size)
        (logits,) = self.network(cells, crops)
        return logits[:, 0].float().sigmoid()

    def reach(self, boxes: Tensor) -> Tensor:
        """Enlarge boxes [N, 4] by the configured margin."""
        return grow(boxes, self.config.margin)

    def rescored(self, found: Detections, masks: FrameMasks) -> Detections:
        """Multiply scores by the masks' `sureness` to the power `trust`, to at most 1.

        With `trust` 0, return the detections unchanged.
        """
        if not self.config.trust:
            return found

        factors = sureness(masks, self.config.typical).pow(self.config.trust)
        scores = found.scores * factors[:, None].to(found.scores)
        return replace(found, scores=scores.clamp(max=1))


class Trunk(nn.Module):
    """MobileNetV2 without its head: crops [N, 3, s, s] -> maps at strides 2, 4, 8, 16, 32.

    The stem and the first `frozen_stages` stages are not trained; 0 trains all, the stem included.

    Example:
        >>> from tubelet.models.rcnn.heads.crops import Trunk
        >>> trunk = Trunk(frozen_stages=2).eval()
        >>> with torch.no_grad():
        ...     maps = trunk(torch.zeros(1, 3, 32, 32))
        >>> [tuple(m.shape[1:]) for m in maps]
        [(16, 16, 16), (24, 8, 8), (32, 4, 4), (96, 2, 2), (320, 1, 1)]
    """

    def __init__(self, frozen_stages: int) -> None:
        super().__init__()
        network: Any = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same", num_classes=0)
        self.conv_stem = network.conv_stem
        self.bn1 = network.bn1
        self.blocks = network.blocks

        blocks = [block for stage in self.blocks for block in stage]
        for block in blocks:
            if block.conv_dw.stride == (2, 2):
                width = block.conv_dw.in_channels
                block.conv_dw = _StridedDepthwise(width, width, 3, stride=2, groups=width, bias=False)

        self.frozen_stages = frozen_stages
        if frozen_stages:
            for module in (self.conv_stem, self.bn1, *self.blocks[:frozen_stages]):
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> Trunk:
        """Set the mode, but keep batch norms in evaluation mode."""
        super().train(mode)
        hold_norms(self)
        return self

    def forward(self, crops: Tensor) -> list[Tensor]:
        grad = torch.is_grad_enabled()

        with torch.set_grad_enabled(grad and not self.frozen_stages):
            x = self.bn1(self.conv_stem(crops.contiguous(memory_format=torch.channels_last)))

        maps = []
        for number, stage in enumerate(self.blocks):
            with torch.set_grad_enabled(grad and number >= self.frozen_stages):
                x = stage(x)
            if number in (0, 1, 2, 4, 6):
                maps.append(x)
        return maps


class _StridedDepthwise(Conv2dSame):
    """Timm's depthwise convolution of stride 2, in training computed with stride 1 and subsampled.

    The results are the same, but on CPUs the gradient of a strided depthwise convolution takes ten
    times as long.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)

        padded = pad_same(x, list(self.kernel_size), list(self.stride))
        return F.conv2d(padded, self.weight, self.bias, groups=self.groups)[..., ::2, ::2]


class _Up(nn.Module):
    """Upsample a map to the size of a finer map of the trunk, add that map, and convolve."""

    def __init__(self, channels: int, finer: int, out: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        self.lateral = nn.Conv2d(finer, out, 1)
        self.mix = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, out)

    def forward(self, x: Tensor, finer: Tensor, context: Tensor | None = None) -> Tensor:
        upsampled = F.interpolate(self.reduce(x), size=finer.shape[-2:], mode="nearest")
        x = upsampled + self.lateral(finer)
        if context is not None:
            x = x + context
        return F.relu(self.norm(self.mix(x)))


def cut(frames: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
    """Cut regions from frames and resize them: [sum N_i, 3, size, size], -1 to 1.

    Frames are uint8 [3, H, W] each, boxes [N_i, 4] in pixels of their frame. Pixels outside a frame
    are 0, a mid grey.

    Example:
        >>> from tubelet.models.rcnn.heads.crops import cut
        >>> frame = torch.full((3, 8, 8), 255, dtype=torch.uint8)
        >>> cut([frame], [torch.tensor([[2.0, 2.0, 6.0, 6.0]])], size=2)[0, 0]
        tensor([[1., 1.],
                [1., 1.]])
    """
    crops = []
    for frame, frame_boxes in zip(frames, boxes, strict=True):
        pixels = (frame[None] - 127.5).div_(127.5)  # of floats, in two passes over the frame
        rows = upload(frame_boxes.float(), frame.device)
        crops.append(roi_align(pixels, [rows], size, 1.0, 2, aligned=True))
    return torch.cat(crops)


def views(boxes: Tensor, config: CropMaskConfig, groups: Sequence[int] = ()) -> tuple[Tensor, list[int]]:
    """Choose the regions [R, 4] to cut for boxes [N, 4] in inference, and the number of the box of each.

    The first `several` boxes of each group are cut with each of the `margins`, the others once.
    `groups` are the sizes of the groups; without, all boxes are one.

    Example:
        >>> from tubelet.models.rcnn.heads.crops import CropMaskConfig, views
        >>> boxes = torch.tensor([[4.0, 4.0, 8.0, 8.0], [0.0, 0.0, 2.0, 2.0]])
        >>> config = CropMaskConfig(margin=0.5, margins=(0.0, 0.25), several=1)
        >>> regions, rows = views(boxes, config)
        >>> regions
        tensor([[ 4.,  4.,  8.,  8.],
                [ 3.,  3.,  9.,  9.],
                [-1., -1.,  3.,  3.]])
        >>> rows
        [0, 0, 1]
    """
    margins = config.margins or (config.margin,)
    several = config.several

    regions = []
    rows: list[int] = []
    start = 0
    for group in boxes.split(list(groups or [len(boxes)])):
        regions += [grow(group[:several], margin) for margin in margins]
        regions.append(grow(group[several:], config.margin))

        numbers = range(start, start + len(group))
        rows += [*numbers[:several]] * len(margins) + [*numbers[several:]]
        start += len(group)
    return torch.cat(regions), rows


def sureness(masks: FrameMasks, typical: float) -> Tensor:
    """Compute how certain N masks are, [N]: the mean probability inside over `typical`.

    Inside is where the probability is above one half; an empty mask has 1.

    Example:
        >>> from tubelet.models.rcnn.heads.crops import sureness
        >>> from tubelet.models.rcnn.heads.paste import FrameMasks, Extent
        >>> probabilities = torch.tensor([[[1.0, 0.75, 0.25]], [[0.25, 0.0, 0.0]]])
        >>> sureness(FrameMasks(probabilities, [Extent(right=3, bottom=1)] * 2), typical=0.5)
        tensor([1.7500, 1.0000])
    """
    factors = masks.probabilities.new_ones(len(masks.extents))
    for i, (frame, extent) in enumerate(zip(masks.probabilities, masks.extents, strict=True)):
        mask = extent.of(frame)
        covered = (mask > 0.5).to(mask.dtype)
        count = covered.sum()
        mean = (mask * covered).sum() / count.clamp(min=1)
        factors[i] = torch.where(count > 0, mean / typical, 1.0)
    return factors


def tight(inside: Tensor, regions: Tensor) -> Tensor:
    """Compute the tight boxes [N, 4] of mask probabilities [N, h, w] in regions [N, 4].

    A cell belongs to the mask if it is above one half. An empty mask has its region.

    Example:
        >>> from tubelet.models.rcnn.heads.crops import tight
        >>> inside = torch.zeros(1, 4, 4)
        >>> inside[0, 1:3, 2:] = 0.9
        >>> tight(inside, torch.tensor([[10.0, 20.0, 18.0, 28.0]]))
        tensor([[14., 22., 18., 26.]])
    """
    cells = box_ops.from_masks(inside > 0.5) / inside.shape[-1]
    origin = regions[:, :2].repeat(1, 2)
    extent = (regions[:, 2:] - regions[:, :2]).repeat(1, 2)
    return torch.where(cells.any(1, keepdim=True), origin + cells * extent, regions)


def drawn(samples: Samples, most: int) -> Samples:
    """Draw at most `most` of an image's regions at random.

    Large regions are more probable than small ones, since they show more of the outline.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Samples
        >>> from tubelet.models.rcnn.heads.crops import drawn
        >>> samples = Samples(boxes=torch.rand(9, 4), matched=torch.arange(9), drawn=9)
        >>> len(drawn(samples, most=4).boxes)
        4
    """
    if len(samples.boxes) <= most:
        return samples

    sides = box_ops.area(samples.boxes).clamp(min=1).sqrt()
    chosen = torch.multinomial(sides, most)
    return replace(samples, boxes=samples.boxes[chosen], matched=samples.matched[chosen])


def outline_loss(logits: Tensor, goal: Tensor) -> Tensor:
    """Compute binary cross-entropy, mean over cells, plus the Dice loss, mean over regions.

    `logits` and the true masks `goal` are [N, h, w].

    Example:
        >>> from tubelet.models.rcnn.heads.crops import outline_loss
        >>> goal = torch.tensor([[[1.0, 0.0]]])
        >>> outline_loss(torch.tensor([[[20.0, -20.0]]]), goal) < 1e-6
        tensor(True)
    """
    probabilities = logits.sigmoid()
    shared = (probabilities * goal).flatten(1).sum(1)
    total = (probabilities + goal).flatten(1).sum(1)
    dice = 1 - (2 * shared + 1) / (total + 1)
    return F.binary_cross_entropy_with_logits(logits, goal) + dice.mean()
