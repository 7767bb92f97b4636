"""What predictions cost: queries are matched with objects, then classes and sampled points of masks are compared.

Sources: Mask2Former-VIS, and the IFR paper, Sec. 3.2, Eq. 4-7 (docs/papers/ifr.md):

    match   -lambda_c p(c) + lambda_m BCE + lambda_d Dice, over all frames of a clip, on masks of the frame's own kernel
    masks   sum_t1 [ l(m^t1, mask^{t1->t1}) + lambda_e sum_{t2 != t1} l(m^t2, mask^{t1->t2}) ]

mask^{t1->t2} is the kernel of frame t1 on the features of frame t2; an object that is absent has an empty mask, which
counts. Letters: B clips, Q queries, M objects, T frames, P points, D channels, A kernels compared in every frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from tubelet.core.config import Config
from tubelet.core.matching import assign, bce_cost, class_cost, dice_cost
from tubelet.core.types import Losses
from tubelet.models import losses
from tubelet.models.mask2former.decoder import Classification, QueryPrediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The M objects of one clip."""

    labels: Tensor  # int64 [M]; K stands for an object that is to be classified as none
    masks: Tensor  # float [M, T, H, W], 0 or 1: of the frame
    padding: Tensor  # [2]: width and height of the padded network input over those of the frame within it

    def sampled(self, points: Tensor) -> Tensor:
        """Truth at points of the padded input, [M, T, P, 2] -> [M, T, P]; frames do not know about padding."""
        maps, where = self.masks.flatten(0, 1)[:, None], points.flatten(0, 1) * self.padding
        return losses.sample(maps, where)[:, 0].unflatten(0, points.shape[:2])


class Assignment(NamedTuple):
    """Mask logits of matched queries, and how much each counts."""

    maps: Tensor  # [M, A, T, h, w]: kernel a in frame t
    own: Tensor  # bool [A, T]: the kernel is the frame's own
    weights: Tensor  # [A, T]: 1 for the own one, lambda_e for others


class CriterionConfig(Config):
    """Weights and samples as published; both systems share them."""

    class_weight: float = Field(default=2.0, ge=0)  # lambda_c
    mask_weight: float = Field(default=5.0, ge=0)  # lambda_m, binary cross-entropy
    dice_weight: float = Field(default=5.0, ge=0)  # lambda_d
    no_object: float = Field(default=0.1, ge=0)  # weight of "no object" in the cross-entropy
    focal_alpha: float = Field(default=0.25, ge=0, le=1)
    focal_gamma: float = Field(default=2.0, ge=0)
    points: int = Field(default=12544, ge=1)  # of each mask: 112 x 112
    oversample: float = Field(default=3.0, ge=1)  # candidates for each point
    important: float = Field(default=0.75, ge=0, le=1)  # share of the points that are the most uncertain candidates

    def build(self, classification: Classification, cross_frame: float = 0.0, *, all_layers: bool = True) -> Criterion:
        """`cross_frame` is lambda_e, on all predictions or on the last alone."""
        return Criterion(self, classification, cross_frame, all_layers)


class Criterion:
    """Losses of every prediction of a batch; holds no parameters."""

    def __init__(
        self, config: CriterionConfig, classification: Classification, cross_frame: float, all_layers: bool
    ) -> None:
        self.config, self.classification = config, classification
        self.cross_frame, self.all_layers = cross_frame, all_layers

    def __call__(self, predictions: Sequence[QueryPrediction], features: Tensor, targets: Sequence[Target]) -> Losses:
        """`features` [B, T, D, h, w]. Names are class_n, mask_n, dice_n and cross_n of the n-th prediction.

        Points are drawn from torch's global generator.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            count = _mean_over_processes(sum(len(target.labels) for target in targets), features.device)
            total: Losses = {}
            for number, prediction in enumerate(predictions):
                cross = self.cross_frame if self.all_layers or number == len(predictions) - 1 else 0.0
                found = self.of_prediction(prediction, features, targets, count, cross)
                total |= {f"{name}_{number}": loss for name, loss in found.items()}
            return total

    def of_prediction(
        self, prediction: QueryPrediction, features: Tensor, targets: Sequence[Target], count: Tensor, cross: float
    ) -> Losses:
        """Losses of one prediction; `count` objects share the cost."""
        none = features.flatten()[:0].sum() + prediction.kernels.flatten()[:0].sum()  # 0, and every part has a gradient
        mask, dice, other = none, none, none
        matches = [self.match(prediction, b, features[b], target) for b, target in enumerate(targets)]
        for b, (target, (queries, objects)) in enumerate(zip(targets, matches, strict=True)):
            if len(queries):
                pairs = compare(prediction.kernels[b][:, queries], features[b], cross)
                chosen = Target(labels=target.labels, masks=target.masks[objects], padding=target.padding)
                bce, overlap = self.of_masks(pairs.maps, chosen)  # [M, A, T]
                own = pairs.own
                mask = mask + bce[:, own].sum()
                dice = dice + overlap[:, own].sum()
                both = self.config.mask_weight * bce + self.config.dice_weight * overlap
                other = other + (both * pairs.weights)[:, ~own].sum()
        found = {
            "class": self.config.class_weight * self.of_classes(prediction.logits, targets, matches, count),
            "mask": self.config.mask_weight * mask / count,
            "dice": self.config.dice_weight * dice / count,
        }
        return found | {"cross": other / count} if cross else found

    @torch.no_grad()
    def match(self, prediction: QueryPrediction, b: int, features: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Queries and objects of clip b that belong together, one to one, at the least cost (Eq. 4)."""
        length, config = len(features), self.config
        points = torch.rand(1, config.points, 2, device=features.device)  # the same for all queries and frames
        cells = losses.sample(features, points.expand(length, -1, -1))  # [T, D, P]
        logits = (prediction.kernels[b] @ cells).transpose(0, 1).flatten(1)  # [Q, T P]
        truth = target.sampled(points.expand(len(target.labels), length, -1, -1)).flatten(1)  # [M, T P]
        probabilities = self.probabilities(prediction.logits[b])
        cost = (
            config.class_weight * class_cost(probabilities, target.labels)
            + config.mask_weight * bce_cost(logits, truth)
            + config.dice_weight * dice_cost(logits, truth)
        )
        queries, objects = assign(cost)
        return queries.to(features.device), objects.to(features.device)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of each class and of none, [Q, K + 1]; sigmoids know no "none"."""
        if self.classification == "ce":
            return logits.softmax(-1)
        return F.pad(logits.sigmoid(), (0, 1))

    def of_masks(self, maps: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Cross-entropy and Dice of logit maps [M, A, T, h, w] on points of their own: [M, A, T] each."""
        shape, config = maps.shape[:3], self.config
        flat = maps.flatten(0, 2)
        with torch.no_grad():
            points = losses.uncertain_points(flat, config.points, config.oversample, config.important)
            apart = points.unflatten(0, shape).transpose(1, 2)  # [M, T, A, P, 2]
            truth = target.sampled(apart.flatten(2, 3)).unflatten(2, (shape[1], -1)).transpose(1, 2)
        logits = losses.sample(flat[:, None], points)[:, 0].unflatten(0, shape)
        return losses.point_bce(logits, truth), losses.dice(logits, truth)

    def of_classes(
        self, logits: Tensor, targets: Sequence[Target], matches: Sequence[tuple[Tensor, Tensor]], count: Tensor
    ) -> Tensor:
        """Cross-entropy as a weighted mean over queries, or focal loss over queries and classes by `count`."""
        none = logits.shape[-1] - (self.classification == "ce")
        labels = torch.full(logits.shape[:2], none, dtype=torch.int64, device=logits.device)
        for row, target, (queries, objects) in zip(labels, targets, matches, strict=True):
            row[queries] = target.labels[objects]
        if self.classification == "ce":
            weights = logits.new_ones(none + 1)
            weights[none] = self.config.no_object
            return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weights)
        wanted = F.one_hot(labels, none + 1)[..., :none].to(logits.dtype)
        return losses.focal(logits, wanted, self.config.focal_alpha, self.config.focal_gamma).sum() / count


def compare(kernels: Tensor, features: Tensor, cross: float) -> Assignment:
    """Kernels [T, M, D] on features [T, D, h, w]: each in its own frame, and where `cross` is not 0 in all others."""
    length, (height, width) = len(features), features.shape[-2:]
    cells = features.flatten(2)  # [T, D, h w]
    if not cross:
        maps = (kernels @ cells).transpose(0, 1)[:, None]  # [M, 1, T, h w]
        ones = maps.new_ones(1, length)
        return Assignment(maps.unflatten(-1, (height, width)), ones.bool(), ones)
    maps = (kernels[:, None] @ cells[None]).permute(2, 0, 1, 3)  # [M, A = T, T, h w]
    own = torch.eye(length, dtype=torch.bool, device=features.device)
    return Assignment(maps.unflatten(-1, (height, width)), own, torch.where(own, 1.0, cross))


def _mean_over_processes(count: int, device: torch.device) -> Tensor:
    """Objects per process, at least 1: processes with few objects weigh as much as their objects."""
    total, processes = torch.tensor(float(count), device=device), 1
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
        processes = dist.get_world_size()
    return (total / processes).clamp(min=1)
