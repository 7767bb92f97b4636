"""Training losses: queries are matched with objects, then classes and sampled points of masks are compared.

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
from tubelet.models.queries.prediction import Classification, QueryPrediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The M true objects of one clip.

    Example:
        >>> from tubelet.models.queries.criterion import Target
        >>> masks = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
        >>> target = Target(labels=torch.tensor([0]), masks=masks, padding=torch.ones(2))
        >>> target.sampled(torch.tensor([0.75, 0.5]).view(1, 1, 1, 2))
        tensor([[[1.]]])
    """

    labels: Tensor  # int64 [M]; K for an object that must be classified as "no object"
    masks: Tensor  # float [M, T, H, W], 0 or 1, over the frame
    padding: Tensor  # [2]: width and height of the padded network input over those of the frame in it

    def sampled(self, points: Tensor) -> Tensor:
        """Sample the masks at points of the padded input, [M, T, P, 2] -> [M, T, P]."""
        maps = self.masks.flatten(0, 1)[:, None]
        in_frame = points.flatten(0, 1) * self.padding
        return losses.sample(maps, in_frame)[:, 0].unflatten(0, points.shape[:2])


Match = tuple[Tensor, Tensor]  # matched queries and their objects, int64 [P] each


class MatchedMasks(NamedTuple):
    """Mask logits of matched queries, and the weights of their losses."""

    maps: Tensor  # [M, A, T, h, w]: kernel a in frame t
    same_frame: Tensor  # bool [A, T]: the kernel is that of the frame
    weights: Tensor  # [A, T]: 1 in the kernel's own frame, lambda_e in the others


class CriterionConfig(Config):
    """Weights and numbers of points as published; Mask2Former-VIS and IFR share them.

    Example:
        >>> from tubelet.models.queries.criterion import CriterionConfig
        >>> CriterionConfig(points=256).build("ce").config.points
        256
    """

    class_weight: float = Field(default=2.0, ge=0)  # lambda_c
    mask_weight: float = Field(default=5.0, ge=0)  # lambda_m, binary cross-entropy
    dice_weight: float = Field(default=5.0, ge=0)  # lambda_d
    no_object: float = Field(default=0.1, ge=0)  # weight of "no object" in the cross-entropy
    focal_alpha: float = Field(default=0.25, ge=0, le=1)
    focal_gamma: float = Field(default=2.0, ge=0)
    points: int = Field(default=12544, ge=1)  # per mask: 112 x 112
    oversample: float = Field(default=3.0, ge=1)  # candidates per point
    important: float = Field(default=0.75, ge=0, le=1)  # share of the points that are the most uncertain candidates

    def build(self, classification: Classification, cross_frame: float = 0.0, *, all_layers: bool = True) -> Criterion:
        """Build the losses.

        Args:
            classification: "ce" or "focal".
            cross_frame: Weight lambda_e of the loss of a frame's kernel in the other frames.
            all_layers: Apply the cross-frame loss to all predictions, or only to the last.
        """
        return Criterion(self, classification, cross_frame, all_layers)


class Criterion:
    """Losses of all predictions of a batch; it has no parameters.

    Example:
        >>> from tubelet.models.queries.criterion import CriterionConfig, Target
        >>> from tubelet.models.queries.prediction import QueryPrediction
        >>> prediction = QueryPrediction(torch.zeros(1, 5, 4), kernels=torch.zeros(1, 2, 5, 8))
        >>> masks = torch.ones(1, 2, 16, 16)
        >>> target = Target(labels=torch.tensor([2]), masks=masks, padding=torch.ones(2))
        >>> features = torch.zeros(1, 2, 8, 4, 4)
        >>> found = CriterionConfig(points=4).build("ce")([prediction], features, [target])
        >>> sorted(found)
        ['class_0', 'dice_0', 'mask_0']
    """

    def __init__(
        self, config: CriterionConfig, classification: Classification, cross_frame: float, all_layers: bool
    ) -> None:
        self.config = config
        self.classification = classification
        self.cross_frame = cross_frame
        self.all_layers = all_layers

    def __call__(
        self,
        predictions: Sequence[QueryPrediction],
        features: Tensor,
        targets: Sequence[Target],
    ) -> Losses:
        """Compute the losses class_n, mask_n, dice_n and cross_n of the n-th prediction.

        Draws points from torch's global generator.

        Args:
            predictions: Of the decoder, before the first layer and after each.
            features: Mask features [B, T, D, h, w].
            targets: The true objects of each clip.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            num_objects = sum(len(target.labels) for target in targets)
            count = mean_over_processes(num_objects, features.device)

            total: Losses = {}
            for number, prediction in enumerate(predictions):
                is_last = number == len(predictions) - 1
                cross = self.cross_frame if self.all_layers or is_last else 0.0
                of_layer = self.of_prediction(prediction, features, targets, count, cross)
                for name, loss in of_layer.items():
                    total[f"{name}_{number}"] = loss
            return total

    def of_prediction(
        self,
        prediction: QueryPrediction,
        features: Tensor,
        targets: Sequence[Target],
        count: Tensor,
        cross: float,
    ) -> Losses:
        """Compute the losses of one prediction, divided by the number of objects `count`."""
        matches = [self.match(prediction, b, features[b], target) for b, target in enumerate(targets)]
        return self.of_matches(prediction, features, targets, matches, count, cross)

    def of_matches(
        self,
        prediction: QueryPrediction,
        features: Tensor,
        targets: Sequence[Target],
        matches: Sequence[Match],
        count: Tensor,
        cross: float = 0.0,
    ) -> Losses:
        """Compute the losses of one prediction whose queries are matched with objects.

        Args:
            prediction: Of B clips.
            features: Mask features [B, T, D, h, w].
            targets: The true objects of each clip.
            matches: The matched queries and objects of each clip, as `match` returns them.
            count: The number of objects that the losses of masks are divided by.
            cross: Weight of the loss of a frame's kernel in the other frames.
        """
        config = self.config
        # 0, but every part gets a gradient even in a batch without objects
        zero = features.flatten()[:0].sum() + prediction.kernels.flatten()[:0].sum()
        mask, dice, other_frames = zero, zero, zero

        for b, (target, (queries, objects)) in enumerate(zip(targets, matches, strict=True)):
            if len(queries) == 0:
                continue
            matched = apply_kernels(prediction.kernels[b][:, queries], features[b], cross)
            truth = Target(labels=target.labels, masks=target.masks[objects], padding=target.padding)
            bce, overlap = self.of_masks(matched.maps, truth)  # [M, A, T]

            same_frame = matched.same_frame
            mask = mask + bce[:, same_frame].sum()
            dice = dice + overlap[:, same_frame].sum()
            both = config.mask_weight * bce + config.dice_weight * overlap
            other_frames = other_frames + (both * matched.weights)[:, ~same_frame].sum()

        of_layer = {
            "class": config.class_weight * self.of_classes(prediction.logits, targets, matches, count),
            "mask": config.mask_weight * mask / count,
            "dice": config.dice_weight * dice / count,
        }
        if cross:
            of_layer["cross"] = other_frames / count
        return of_layer

    @torch.no_grad()
    def match(
        self,
        prediction: QueryPrediction,
        b: int,
        features: Tensor,
        target: Target,
    ) -> Match:
        """Match queries and objects of clip `b` one to one, at the least cost (Eq. 4).

        Returns:
            The matched queries and their objects, int64 [min(Q, M)] each.
        """
        length = len(features)
        config = self.config
        points = torch.rand(1, config.points, 2, device=features.device)  # the same for all queries and frames
        cells = losses.sample(features, points.expand(length, -1, -1))  # [T, D, P]
        logits = (prediction.kernels[b] @ cells).transpose(0, 1).flatten(1)  # [Q, T P]

        points_of_objects = points.expand(len(target.labels), length, -1, -1)
        truth = target.sampled(points_of_objects).flatten(1)  # [M, T P]
        probabilities = self.probabilities(prediction.logits[b])
        cost = (
            config.class_weight * class_cost(probabilities, target.labels)
            + config.mask_weight * bce_cost(logits, truth)
            + config.dice_weight * dice_cost(logits, truth)
        )
        queries, objects = assign(cost)
        return queries.to(features.device), objects.to(features.device)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits to the probabilities of the classes and of "no object", [Q, K + 1].

        With sigmoids, which have no such column, the last column is 0.
        """
        if self.classification == "ce":
            return logits.softmax(-1)
        return F.pad(logits.sigmoid(), (0, 1))

    def of_masks(self, maps: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Compute cross-entropy and Dice of logit maps [M, A, T, h, w], [M, A, T] each.

        Every map has its own sampled points.
        """
        config = self.config
        shape = maps.shape[:3]  # M, A, T
        flat = maps.flatten(0, 2)
        with torch.no_grad():
            points = losses.uncertain_points(flat, config.points, config.oversample, config.important)
            by_frame = points.unflatten(0, shape).transpose(1, 2)  # [M, T, A, P, 2]
            truth = target.sampled(by_frame.flatten(2, 3))  # [M, T, A P]
            truth = truth.unflatten(2, (shape[1], -1)).transpose(1, 2)  # [M, A, T, P]
        logits = losses.sample(flat[:, None], points)[:, 0].unflatten(0, shape)
        return losses.point_bce(logits, truth), losses.dice(logits, truth)

    def of_classes(
        self,
        logits: Tensor,
        targets: Sequence[Target],
        matches: Sequence[Match],
        count: Tensor,
    ) -> Tensor:
        """Compute the classification loss of all queries.

        "ce": cross-entropy, the weighted mean over queries; "focal": the sum over queries and
        classes, divided by `count`.
        """
        no_object = logits.shape[-1] - (self.classification == "ce")
        labels = torch.full(logits.shape[:2], no_object, dtype=torch.int64, device=logits.device)
        for row, target, (queries, objects) in zip(labels, targets, matches, strict=True):
            row[queries] = target.labels[objects]

        if self.classification == "ce":
            weights = logits.new_ones(no_object + 1)
            weights[no_object] = self.config.no_object
            return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weights)

        true_classes = F.one_hot(labels, no_object + 1)[..., :no_object].to(logits.dtype)
        return losses.focal(logits, true_classes, self.config.focal_alpha, self.config.focal_gamma).sum() / count


def apply_kernels(kernels: Tensor, features: Tensor, cross: float) -> MatchedMasks:
    """Apply kernels [T, M, D] to features [T, D, h, w].

    Each kernel gives the mask of its own frame, and with `cross` not 0 also those of all others.

    Example:
        >>> from tubelet.models.queries.criterion import apply_kernels
        >>> masks = apply_kernels(torch.ones(2, 3, 8), torch.ones(2, 8, 4, 4), cross=0.5)
        >>> masks.maps.shape, masks.weights.tolist()
        (torch.Size([3, 2, 2, 4, 4]), [[1.0, 0.5], [0.5, 1.0]])
    """
    length = len(features)
    size = (features.shape[-2], features.shape[-1])
    cells = features.flatten(2)  # [T, D, h w]
    if not cross:
        maps = (kernels @ cells).transpose(0, 1)[:, None]  # [M, 1, T, h w]
        ones = maps.new_ones(1, length)
        return MatchedMasks(maps.unflatten(-1, size), ones.bool(), ones)

    maps = (kernels[:, None] @ cells[None]).permute(2, 0, 1, 3)  # [M, A = T, T, h w]
    same_frame = torch.eye(length, dtype=torch.bool, device=features.device)
    weights = torch.where(same_frame, 1.0, cross)
    return MatchedMasks(maps.unflatten(-1, size), same_frame, weights)


def mean_over_processes(count: int, device: torch.device) -> Tensor:
    """Return the number of objects per process, at least 1, so that each weighs the same in all processes.

    Example:
        >>> from tubelet.models.queries.criterion import mean_over_processes
        >>> mean_over_processes(3, torch.device("cpu"))
        tensor(3.)
    """
    total = torch.tensor(float(count), device=device)
    processes = 1
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
        processes = dist.get_world_size()
    return (total / processes).clamp(min=1)
