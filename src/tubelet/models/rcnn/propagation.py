"""ObjProp: carry known objects into the frames in which the detector misses them.

Source: docs/papers/objprop.md. The pyramid is fused into one map at stride 8. The affinity between
a past frame and the current one carries a past box over, and a mask head segments the object that
the carried box points at. In training the past frame is the reference frame, with its true boxes.
At inference the masks from each of the last 24 frames are averaged.
Letters: D channels of the fused map, h w its cells, R = h w, L lost objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tubelet.attention.affinity import AffinityConfig, Prior, box_attention, box_cells, spatial_prior
from tubelet.core import boxes as box_ops
from tubelet.core.config import Config
from tubelet.core.devices import upload
from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Glance
from tubelet.core.types import Losses
from tubelet.models.inputs import Images
from tubelet.models.rcnn.context import FrameFeatures
from tubelet.models.rcnn.detectors.detector import Detections, Targets
from tubelet.models.rcnn.glances import Point, cell_at, glances_over
from tubelet.models.rcnn.heads.standard import MaskHeadConfig

LEVELS = 4  # P2..P5
STRIDES = (4, 8, 16, 32)
STRIDE = 8  # of the fused map
OBJECTS = 8  # decoded at a time at inference: each takes 50 MiB for 640x384 pixels


class PropagationConfig(Config):
    """Settings of the propagation head and of its use at inference.

    Example:
        >>> from tubelet.models.rcnn.propagation import PropagationConfig
        >>> head = PropagationConfig(channels=8, convs=1).build(channels=4, num_classes=3)
        >>> maps = [torch.zeros(1, 4, 16 // 2**i, 24 // 2**i) for i in range(4)]
        >>> head.fuse(maps).shape
        torch.Size([1, 8, 8, 12])
    """

    channels: int = Field(default=256, ge=1)
    convs: int = Field(default=4, ge=1)  # of the mask
    affinity: AffinityConfig = AffinityConfig()
    attn_temp: float = Field(default=1.0, gt=0)  # of the box attention
    norm_bias: float = 0.0  # start of the fusion's batch norms (the released code: 1)
    at_test: bool = True  # off: an auxiliary loss only, as the released code in effect runs
    frames: int = Field(default=24, ge=1)  # past frames that are stored
    objects: int = Field(default=10, ge=1)  # lost objects per frame, best scores first (the released code: all)
    sigma: float = Field(default=8.0, gt=0)  # of the spatial prior, in cells of the fused map
    renorm: bool = True  # columns of affinity and prior sum to 1 (the released code: off)
    threshold: float = Field(default=0.3, ge=0, lt=1)  # of the averaged mask
    # what is averaged over past frames; "attention" decodes each object once, not 24 times
    average: Literal["masks", "attention"] = "masks"

    def build(self, channels: int, num_classes: int, strides: Sequence[int] = STRIDES) -> Propagation:
        """Build the head for a pyramid of `channels` channels at `strides`.

        Raises:
            ConfigError: The pyramid does not start with strides 4, 8, 16, 32.
        """
        if tuple(strides[:LEVELS]) != STRIDES:
            raise ConfigError(f"propagation fuses maps of strides 4, 8, 16, 32, not {list(strides)}")
        return Propagation(self, channels, num_classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastFrame:
    """One past frame: its fused map, which also serves as the keys, and its N objects.

    Example:
        >>> from tubelet.models.rcnn.propagation import PastFrame
        >>> frame = PastFrame(
        ...     features=torch.zeros(96, 8), boxes=torch.zeros(2, 4), labels=torch.tensor([0, 1]),
        ...     ids=torch.tensor([1, 2]), scores=torch.tensor([0.9, 0.6]),
        ... )
        >>> frame.ids
        tensor([1, 2])
    """

    features: Tensor  # [R, D], on the model's device; all else is on the CPU
    boxes: Tensor  # [N, 4] in input pixels
    labels: Tensor  # [N]
    ids: Tensor  # [N], no two equal
    scores: Tensor  # [N] of the label


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The last frames of one video, oldest first; all of one size.

    Example:
        >>> from tubelet.models.rcnn.propagation import History, PastFrame
        >>> frame = PastFrame(
        ...     features=torch.zeros(96, 8), boxes=torch.zeros(2, 4), labels=torch.tensor([0, 1]),
        ...     ids=torch.tensor([1, 2]), scores=torch.tensor([0.9, 0.6]),
        ... )
        >>> history = History(frames=(frame,), size=(8, 12, 64, 96))
        >>> history.lost(ids=torch.tensor([1]), most=10).ids
        tensor([2])
    """

    frames: tuple[PastFrame, ...] = ()
    size: tuple[int, ...] = ()  # cells of the fused map, pixels of the unpadded input

    def fitting(self, size: tuple[int, ...]) -> History:
        """Return this history, or an empty one if the input's size has changed."""
        return self if size == self.size else History(size=size)

    def lost(self, ids: Tensor, most: int) -> LostObjects:
        """Return the objects of past frames whose ids are not among `ids`.

        At most `most` of them, by falling mean score, each with its last label.
        """
        current = set(ids.tolist())
        labels: dict[int, int] = {}
        scores: dict[int, list[float]] = {}
        for frame in self.frames:
            rows = zip(frame.ids.tolist(), frame.labels.tolist(), frame.scores.tolist(), strict=True)
            for track_id, label, score in rows:
                if track_id not in current:
                    labels[track_id] = label
                    scores.setdefault(track_id, []).append(score)

        means = {track_id: sum(values) / len(values) for track_id, values in scores.items()}
        best = sorted(means, key=lambda track_id: (-means[track_id], track_id))[:most]
        return LostObjects(
            ids=torch.tensor(best, dtype=torch.int64),
            labels=torch.tensor([labels[i] for i in best], dtype=torch.int64),
            scores=torch.tensor([means[i] for i in best]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LostObjects:
    """L objects of past frames that were not detected in the current one.

    Example:
        >>> from tubelet.models.rcnn.propagation import History
        >>> len(History().lost(ids=torch.tensor([1]), most=10).ids)
        0
    """

    ids: Tensor  # [L]
    labels: Tensor  # [L]
    scores: Tensor  # [L]


class Propagation(nn.Module):
    """Fusion, affinity, and a mask head on the current frame weighted by each object's attention.

    Example:
        >>> from tubelet.models.rcnn.propagation import PropagationConfig
        >>> head = PropagationConfig(channels=8, convs=1).build(channels=4, num_classes=3)
        >>> past, current = torch.rand(96, 8), torch.rand(8, 8, 12)  # maps of 8 x 12 cells
        >>> boxes, labels = torch.tensor([[0.0, 0.0, 32.0, 32.0]]), torch.tensor([2])
        >>> attention = head.attend(past, current, boxes, labels)
        >>> head.decode(current, attention, labels).shape
        torch.Size([1, 64, 96])
    """

    def __init__(self, config: PropagationConfig, channels: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.has_glances = config.at_test  # whether `glances` returns anything
        inner = config.channels
        self.fusion = nn.Sequential(
            nn.Conv2d(LEVELS * channels, inner, 1),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, padding=1),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 1),
        )
        for module in self.fusion:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.bias, config.norm_bias)

        self.affinity = config.affinity.build(inner, num_classes)
        self.mask = MaskHeadConfig(convs=config.convs, channels=inner).build(inner, num_classes)

    def fuse(self, maps: list[Tensor]) -> Tensor:
        """Fuse P2 to P5 into one map [B, D, h, w] of P3's size; further levels are ignored."""
        size = maps[1].shape[-2:]
        levels = [_resize(level, size) for level in maps[:LEVELS]]
        return self.fusion(torch.cat(levels, 1))

    def attend(
        self,
        reference: Tensor,
        current: Tensor,
        boxes: Tensor,
        labels: Tensor,
        slot: int = 0,
        prior: Prior | None = None,
    ) -> Tensor:
        """Carry boxes of a reference frame into the current one: foreground minus background.

        Args:
            reference: Fused map of the reference frame, [R, D].
            current: Fused map of the current frame, [D, h, w].
            boxes: Boxes in the reference frame in input pixels, [K, 4].
            labels: Their classes, [K].
            slot: Position of the frame in the batch, for an affinity weight per slot.
            prior: Spatial prior, if any.

        Returns:
            [K, H, W] in input pixels.
        """
        height, width = current.shape[-2:]
        inside = box_cells(boxes.float(), (height, width), STRIDE).flatten(1)
        foreground, background = self.affinity(
            reference, _cells(current), inside, labels, slot, prior, self.config.renorm
        )
        contrast = (foreground - background).view(-1, height, width)
        return _resize(contrast[None], (height * STRIDE, width * STRIDE))[0]

    def decode(self, current: Tensor, attention: Tensor, labels: Tensor) -> Tensor:
        """Segment each object where its attention lies.

        Args:
            current: Fused map of the current frame, [D, h, w].
            attention: Of K objects in input pixels, [K, H, W].
            labels: Their classes, [K].

        Returns:
            Mask logits [K, H, W].
        """
        weights = _resize(attention[None], current.shape[-2:])[0, :, None]
        weighted = current * weights  # [K, D, h, w]
        logits = self.mask.of_class(self.mask(weighted), labels).float()  # [K, 2h, 2w]
        return _resize(logits[None], attention.shape[-2:])[0]

    # training

    def losses(
        self,
        maps: list[Tensor],
        images: Images,
        targets: list[Targets],
        reference: dict[int, int],
    ) -> Losses:
        """Compute the losses of carrying true boxes of reference frames into key frames.

        Both are means over objects and pixels. Without any object both are zero, and every
        parameter still gets a gradient.

        Args:
            maps: The pyramid of all images of the batch.
            images: All images of the batch.
            targets: Truth of all images.
            reference: Position of each key frame in the batch -> that of its reference frame.
        """
        used = sorted({*reference, *reference.values()})
        fused = dict(zip(used, self.fuse([level[used] for level in maps[:LEVELS]]), strict=True))
        attention_terms = []
        mask_terms = []
        for slot, (key, past) in enumerate(sorted(reference.items())):
            before = targets[past]
            now = targets[key]
            contrast = self.attend(_cells(fused[past]), fused[key], before.boxes, before.labels, slot)
            attention_terms.append(_attention_terms(contrast * self.config.attn_temp, before, now))

            row = _rows_of(before.ids, now.ids)
            present = (row >= 0).nonzero()[:, 0]
            attention = self._attention(contrast[present])
            logits = self.decode(fused[key], attention, before.labels[present])
            truth = _truth(now, row[present], images.sizes[key], logits.shape[-2:])
            mask_terms.append(F.binary_cross_entropy_with_logits(logits, truth, reduction="none"))
        return {"prop_attention": _mean(attention_terms), "prop_mask": _mean(mask_terms)}

    def _attention(self, contrast: Tensor) -> Tensor:
        return box_attention(contrast, torch.zeros_like(contrast), self.config.attn_temp)

    # inference

    def start(self) -> History:
        """Return the history before the first frame."""
        return History()

    def step(
        self,
        history: History,
        maps: list[Tensor],
        size: tuple[int, int],
        scale: Tensor,
        frame: tuple[int, int],
        ids: Tensor,
        found: Detections,
    ) -> tuple[History, Tensor, Detections, Tensor]:
        """Find past objects that were not detected in this frame, and store the frame.

        If the size of the input changes, the history is cleared first.

        Args:
            history: The frames before this one.
            maps: The pyramid of this frame.
            size: Height and width of the input in pixels, without padding.
            scale: input = frame * scale, [4].
            frame: Height and width of the frame.
            ids: Ids of the N detections, [N].
            found: The detections.

        Returns:
            The history with this frame, and of the M objects found again the ids [M], detections,
            and masks [M, H, W] in the frame, 0 or 1.
        """
        if not self.config.at_test:
            return history, ids[:0], found[:0], found.boxes.new_zeros(0, *frame)

        current = self.fuse(maps)[0]
        history = history.fitting((*current.shape[-2:], *size))
        lost = history.lost(ids, self.config.objects)
        masks = found.boxes.new_zeros(0, *frame)
        if len(lost.ids):
            padded = self._probabilities(history, current, lost)
            probabilities = padded[:, : size[0], : size[1]]
            masks = (_resize(probabilities[None], frame)[0] > self.config.threshold).cpu().float()

        visible = masks.flatten(1).any(1)
        masks = masks[visible]
        again_ids = lost.ids[visible]
        labels = lost.labels[visible]
        scores = found.scores.new_zeros(len(again_ids), self.num_classes)
        scores[torch.arange(len(scores)), labels] = lost.scores[visible].to(scores.dtype)
        again = Detections(boxes=box_ops.from_masks(masks > 0) * scale, scores=scores)

        history = self._record(history, current, (ids, found), (again_ids, again))
        return history, again_ids, again, masks

    def glances(self, history: History, maps: list[Tensor], frame: FrameFeatures, time: int, at: Point) -> list[Glance]:
        """Return the affinity of one point of this frame with each cell of the last frame, `time`."""
        current = self.fuse(maps)[0]
        history = history.fitting((*current.shape[-2:], *frame.size))
        if not history.frames:
            return []

        query = current.flatten(1).T[cell_at(at, current, STRIDE)]
        weights = self.affinity.look(history.frames[-1].features, query)
        weights = weights.view(1, *current.shape[-2:])
        return glances_over("inter-frame affinity", weights, [replace(frame, index=time)], STRIDE)

    def _probabilities(self, history: History, current: Tensor, lost: LostObjects) -> Tensor:
        """Average mask probabilities of lost objects in the padded input, [L, H, W]."""
        height, width = current.shape[-2:]
        prior = spatial_prior(height, width, self.config.sigma, current.device)
        total = torch.zeros(len(lost.ids), height * STRIDE, width * STRIDE, device=current.device)
        count = torch.zeros(len(lost.ids), 1, 1)
        averages_masks = self.config.average == "masks"

        # one past frame at a time, so that memory does not grow with their number
        for frame in history.frames:
            row = _rows_of(lost.ids, frame.ids)
            present = (row >= 0).nonzero()[:, 0]
            if len(present) == 0:
                continue

            labels = upload(lost.labels[present], current.device)
            boxes = upload(frame.boxes[row[present]], current.device)
            contrast = self.attend(frame.features, current, boxes, labels, prior=prior)
            attention = self._attention(contrast)
            if averages_masks:
                total[present] += self._decode_in_parts(current, attention, labels)
            else:
                total[present] += attention
            count[present] += 1

        mean = total / upload(count, current.device)
        return mean if averages_masks else self._decode_in_parts(current, mean, upload(lost.labels, current.device))

    def _decode_in_parts(self, current: Tensor, attention: Tensor, labels: Tensor) -> Tensor:
        """Mask probabilities of K objects, a few at a time."""
        parts = zip(attention.split(OBJECTS), labels.split(OBJECTS), strict=True)
        return torch.cat([self.decode(current, maps, part).sigmoid() for maps, part in parts])

    def _record(
        self,
        history: History,
        current: Tensor,
        detected: tuple[Tensor, Detections],
        again: tuple[Tensor, Detections],
    ) -> History:
        ids = torch.cat([detected[0], again[0]])
        both = [detected[1], again[1]]
        # if two detections share an id (unique_ids off), the later one counts
        rows = list({track_id: row for row, track_id in enumerate(ids.tolist())}.values())
        frame = PastFrame(
            features=_cells(current).float().contiguous(),
            boxes=torch.cat([part.boxes for part in both])[rows],
            labels=torch.cat([part.labels for part in both])[rows],
            ids=ids[rows],
            scores=torch.cat([part.confidence for part in both])[rows],
        )
        frames = (*history.frames, frame)
        return replace(history, frames=frames[-self.config.frames :])


def _cells(fused: Tensor) -> Tensor:
    """[D, h, w] -> [R, D]."""
    return fused.flatten(1).T


def _resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if maps.shape[1] == 0:  # torch does not interpolate maps without channels
        return maps.sum() + maps.new_zeros(len(maps), 0, *size)
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def _rows_of(ids: Tensor, others: Tensor) -> Tensor:
    """Position of each id [K] among other ids [M], -1 if it is not among them."""
    if len(others) == 0:
        return torch.full_like(ids, -1)
    same = ids[:, None] == others[None]
    return torch.where(same.any(1), same.int().argmax(1), -1)


def _attention_terms(logits: Tensor, before: Targets, now: Targets) -> Tensor:
    """Cross-entropy of attention and current box of each past object, [K, H, W].

    An object that has left the frame has background everywhere.
    """
    row = _rows_of(before.ids, now.ids)
    present = row >= 0
    inside = torch.zeros_like(logits)
    boxes = now.boxes[row[present]].float()
    inside[present] = box_cells(boxes, (logits.shape[-2], logits.shape[-1]))
    return F.binary_cross_entropy_with_logits(logits, inside, reduction="none")


def _truth(target: Targets, rows: Tensor, size: tuple[int, int], padded: torch.Size) -> Tensor:
    """True masks in the padded input, 0/1 [K, H, W]."""
    resized = _resize(target.masks[rows].float()[None], size)[0]
    return F.pad((resized >= 0.5).float(), (0, padded[1] - size[1], 0, padded[0] - size[0]))


def _mean(terms: list[Tensor]) -> Tensor:
    """Mean over all elements; a zero with a gradient where there are none."""
    total = sum((term.sum() for term in terms), terms[0].new_zeros(()))
    return total / max(sum(term.numel() for term in terms), 1)
