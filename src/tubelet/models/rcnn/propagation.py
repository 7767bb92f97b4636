"""ObjProp: objects that were seen are carried over into the frame in which the detector misses them.

Source: docs/papers/objprop.md. The pyramid is fused into one map at stride 8; the affinity between a past frame and the
present one carries a past box over; what it lights up is cut out as a mask. In training the past frame is the reference
and its true boxes are carried; at inference all of the last 24 frames speak, and their masks are averaged.
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
from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Glance
from tubelet.core.types import Losses
from tubelet.models.inputs import Images
from tubelet.models.rcnn.context import Kept
from tubelet.models.rcnn.detectors.detector import Detections, Targets
from tubelet.models.rcnn.glances import Point, cell_at, glances_over
from tubelet.models.rcnn.heads.standard import MaskHeadConfig

LEVELS = 4  # P2..P5
STRIDES = (4, 8, 16, 32)
STRIDE = 8  # of the fused map
OBJECTS = 8  # decoded at a time at inference: each takes 50 MiB for 640x384 pixels


class PropagationConfig(Config):
    """The propagation head, and how it is used at inference."""

    channels: int = Field(default=256, ge=1)
    convs: int = Field(default=4, ge=1)  # of the mask
    affinity: AffinityConfig = AffinityConfig()
    attn_temp: float = Field(default=1.0, gt=0)  # of the box attention
    norm_bias: float = 0.0  # start of the fusion's batch norms (the released code: 1)
    at_test: bool = True  # off: an auxiliary loss only, as the released code in effect runs
    frames: int = Field(default=24, ge=1)  # the past that is kept
    objects: int = Field(default=10, ge=1)  # looked for in a frame, best scores first (the released code: all)
    sigma: float = Field(default=8.0, gt=0)  # of the spatial prior, in cells of the fused map
    renorm: bool = True  # columns of affinity and prior sum to 1 (the released code: off)
    threshold: float = Field(default=0.3, ge=0, lt=1)  # of the averaged mask
    average: Literal["masks", "attention"] = (
        "masks"  # over the past; "attention" decodes each object once, not 24 times
    )

    def build(self, channels: int, num_classes: int, strides: Sequence[int] = STRIDES) -> Propagation:
        """For a pyramid of so many channels at these strides; raises ConfigError where it is not from stride 4 on."""
        if tuple(strides[:LEVELS]) != STRIDES:
            raise ConfigError(f"propagation fuses maps of strides 4, 8, 16, 32, not {list(strides)}")
        return Propagation(self, channels, num_classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One past frame: its fused map, which also serves as the keys, and the N objects that were in it."""

    features: Tensor  # [R, D]
    boxes: Tensor  # [N, 4] in input pixels
    labels: Tensor  # [N]
    ids: Tensor  # [N], each once
    scores: Tensor  # [N] of the label


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The last frames of one video, oldest first; all of one size."""

    sights: tuple[Sight, ...] = ()
    size: tuple[int, ...] = ()  # cells of the fused map, pixels of the unpadded input

    def fitting(self, size: tuple[int, ...]) -> History:
        """The same, or an empty one where the input's size has changed: its cells mean other places then."""
        return self if size == self.size else History(size=size)

    def lost(self, ids: Tensor, most: int) -> _Lost:
        """The `most` objects of best mean score that were seen but are not among `ids`, each with its last label."""
        here = set(ids.tolist())
        labels: dict[int, int] = {}
        scores: dict[int, list[float]] = {}
        for sight in self.sights:
            for one, label, score in zip(sight.ids.tolist(), sight.labels.tolist(), sight.scores.tolist(), strict=True):
                if one not in here:
                    labels[one] = label
                    scores.setdefault(one, []).append(score)
        means = {one: sum(own) / len(own) for one, own in scores.items()}
        best = sorted(means, key=lambda one: (-means[one], one))[:most]
        return _Lost(
            ids=torch.tensor(best, dtype=torch.int64, device=ids.device),
            labels=torch.tensor([labels[one] for one in best], dtype=torch.int64, device=ids.device),
            scores=torch.tensor([means[one] for one in best], device=ids.device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lost:
    ids: Tensor  # [L]
    labels: Tensor  # [L]
    scores: Tensor  # [L]


class Propagation(nn.Module):
    """Fusion, affinity, and a mask head that sees the whole present frame through each object's attention."""

    def __init__(self, config: PropagationConfig, channels: int, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.looks = config.at_test  # has `glances` to give
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
        """P2..P5 (what comes after is not looked at) -> [B, D, h, w] at the size of P3."""
        size = maps[1].shape[-2:]
        return self.fusion(torch.cat([_resize(m, size) for m in maps[:LEVELS]], 1))

    def attend(
        self,
        reference: Tensor,
        current: Tensor,
        boxes: Tensor,
        labels: Tensor,
        slot: int = 0,
        prior: Prior | None = None,
    ) -> Tensor:
        """fg - bg of boxes [K, 4] of the reference [R, D] in the current frame [D, h, w], in input pixels [K, H, W]."""
        height, width = current.shape[-2:]
        inside = box_cells(boxes.float(), (height, width), STRIDE).flatten(1)
        foreground, background = self.affinity(
            reference, _rows(current), inside, labels, slot, prior, self.config.renorm
        )
        contrast = (foreground - background).view(-1, height, width)
        return _resize(contrast[None], (height * STRIDE, width * STRIDE))[0]

    def decode(self, current: Tensor, attention: Tensor, labels: Tensor) -> Tensor:
        """Mask logits [K, H, W] of what the attention [K, H, W] leaves of the current frame [D, h, w]."""
        seen = current * _resize(attention[None], current.shape[-2:])[0, :, None]  # [K, D, h, w]
        logits = self.mask.of_class(self.mask(seen), labels).float()  # [K, 2h, 2w]
        return _resize(logits[None], attention.shape[-2:])[0]

    # training

    def losses(self, maps: list[Tensor], images: Images, targets: list[Targets], reference: dict[int, int]) -> Losses:
        """Losses of the frames that are keys of `reference`, from the true boxes of the frames that are its values.

        `maps` and `targets` are of all images. Means over objects and pixels; without any object both are zero, and
        still reach every parameter.
        """
        used = sorted({*reference, *reference.values()})
        fused = dict(zip(used, self.fuse([m[used] for m in maps[:LEVELS]]), strict=True))
        attention, mask = [], []
        for slot, (key, past) in enumerate(sorted(reference.items())):
            before, now = targets[past], targets[key]
            contrast = self.attend(_rows(fused[past]), fused[key], before.boxes, before.labels, slot)
            attention.append(_attention_terms(contrast * self.config.attn_temp, before, now))
            partner = _partners(before.ids, now.ids)
            there = (partner >= 0).nonzero()[:, 0]
            logits = self.decode(fused[key], self._attention(contrast[there]), before.labels[there])
            truth = _truth(now, partner[there], images.sizes[key], logits.shape[-2:])
            mask.append(F.binary_cross_entropy_with_logits(logits, truth, reduction="none"))
        return {"prop_attention": _mean(attention), "prop_mask": _mean(mask)}

    def _attention(self, contrast: Tensor) -> Tensor:
        return box_attention(contrast, torch.zeros_like(contrast), self.config.attn_temp)

    # inference

    def start(self) -> History:
        """Nothing has been seen before the first frame."""
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
        """Look for objects of the history that are not among the detected `ids` [N], and remember all of this frame.

        `maps` are of one image of `size` pixels without padding; `scale` [4] leads from the `frame` to it. Returns the
        history, and of the M objects found again ids [M], detections, and masks [M, H, W] of the frame, 0 or 1.
        Where the size of the input changes, the history is cleared.
        """
        if not self.config.at_test:
            return history, ids[:0], found[:0], found.boxes.new_zeros(0, *frame)
        current = self.fuse(maps)[0]
        history = history.fitting((*current.shape[-2:], *size))
        lost = history.lost(ids, self.config.objects)
        masks = found.boxes.new_zeros(0, *frame)
        if len(lost.ids):
            everywhere = self._probabilities(history, current, lost)[:, : size[0], : size[1]]
            masks = (_resize(everywhere[None], frame)[0] > self.config.threshold).float()
        seen = masks.flatten(1).any(1)
        masks, again_ids = masks[seen], lost.ids[seen]
        scores = found.scores.new_zeros(len(again_ids), self.num_classes)
        scores[torch.arange(len(scores)), lost.labels[seen]] = lost.scores[seen].to(scores.dtype)
        again = Detections(boxes=box_ops.from_masks(masks > 0) * scale, scores=scores)
        return self._record(history, current, (ids, found), (again_ids, again)), again_ids, again, masks

    def glances(self, history: History, maps: list[Tensor], frame: Kept, time: int, at: Point) -> list[Glance]:
        """The affinity's column: which places of the last frame, `time`, the present place looks like."""
        current = self.fuse(maps)[0]
        history = history.fitting((*current.shape[-2:], *frame.size))
        if not history.sights:
            return []
        place = current.flatten(1).T[cell_at(at, current, STRIDE)]
        weights = self.affinity.look(history.sights[-1].features, place).view(1, *current.shape[-2:])
        return glances_over("inter-frame affinity", weights, [replace(frame, index=time)], STRIDE)

    def _probabilities(self, history: History, current: Tensor, lost: _Lost) -> Tensor:
        """Averaged masks of the lost in the padded input, [L, H, W]: one frame of the past at a time."""
        height, width = current.shape[-2:]
        prior = spatial_prior(height, width, self.config.sigma, current.device)
        total = torch.zeros(len(lost.ids), height * STRIDE, width * STRIDE, device=current.device)
        count = torch.zeros(len(lost.ids), 1, 1, device=current.device)
        each = self.config.average == "masks"
        for sight in history.sights:
            row = _partners(lost.ids, sight.ids)
            here = (row >= 0).nonzero()[:, 0]
            if len(here) == 0:
                continue
            labels = lost.labels[here]
            attention = self._attention(
                self.attend(sight.features, current, sight.boxes[row[here]], labels, prior=prior)
            )
            total[here] += self._decoded(current, attention, labels) if each else attention
            count[here] += 1
        mean = total / count
        return mean if each else self._decoded(current, mean, lost.labels)

    def _decoded(self, current: Tensor, attention: Tensor, labels: Tensor) -> Tensor:
        parts = zip(attention.split(OBJECTS), labels.split(OBJECTS), strict=True)
        return torch.cat([self.decode(current, a, label).sigmoid() for a, label in parts])

    def _record(
        self, history: History, current: Tensor, detected: tuple[Tensor, Detections], again: tuple[Tensor, Detections]
    ) -> History:
        ids = torch.cat([detected[0], again[0]])
        both = [detected[1], again[1]]
        # where two detections share an id (unique_ids off) the later one stands
        rows = list({one: row for row, one in enumerate(ids.tolist())}.values())
        sight = Sight(
            features=_rows(current).float().contiguous(),
            boxes=torch.cat([d.boxes for d in both])[rows],
            labels=torch.cat([d.labels for d in both])[rows],
            ids=ids[rows],
            scores=torch.cat([d.confidence for d in both])[rows],
        )
        return replace(history, sights=(*history.sights, sight)[-self.config.frames :])


def _rows(one: Tensor) -> Tensor:
    """[D, h, w] -> [R, D]."""
    return one.flatten(1).T


def _resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if maps.shape[1] == 0:  # of no object: not defined in torch
        return maps.sum() + maps.new_zeros(len(maps), 0, *size)
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def _partners(ids: Tensor, others: Tensor) -> Tensor:
    """The position of each id [K] among the others [M], -1 where it is not there."""
    if len(others) == 0:
        return torch.full_like(ids, -1)
    same = ids[:, None] == others[None]
    return torch.where(same.any(1), same.int().argmax(1), -1)


def _attention_terms(logits: Tensor, before: Targets, now: Targets) -> Tensor:
    """Cross-entropy against the present box of each object of the past, [K, H, W]; all of it background if gone."""
    partner = _partners(before.ids, now.ids)
    inside = torch.zeros_like(logits)
    there = partner >= 0
    inside[there] = box_cells(now.boxes[partner[there]].float(), (logits.shape[-2], logits.shape[-1]))
    return F.binary_cross_entropy_with_logits(logits, inside, reduction="none")


def _truth(target: Targets, rows: Tensor, size: tuple[int, int], padded: torch.Size) -> Tensor:
    """True masks in the padded input, 0/1 [K, H, W]."""
    resized = _resize(target.masks[rows].float()[None], size)[0]
    return F.pad((resized >= 0.5).float(), (0, padded[1] - size[1], 0, padded[0] - size[0]))


def _mean(terms: list[Tensor]) -> Tensor:
    """Mean over all elements; zero, and part of the graph, where there are none."""
    return sum((t.sum() for t in terms), terms[0].new_zeros(())) / max(sum(t.numel() for t in terms), 1)
