"""Test-time augmentation: a query model reads each clip at several sizes, and matching queries are averaged.

Source: the IFR paper, Sec. 4 (test-time augmentation by pivot matching). One view, drawn at random, is the pivot. The
queries of each other view are assigned to the pivot's with the cost of training (Eq. 4), where the pivot's best classes
and soft masks stand for the truth; then class probabilities and mask probabilities are averaged, on one grid.
Letters: Q queries, K classes, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.core.arguments import whole_between
from tubelet.core.errors import ConfigError
from tubelet.core.matching import assign, bce_cost, class_cost
from tubelet.core.protocol import State, VideoSegmenter
from tubelet.core.types import Clip, Losses, Tracks

SHORTEST, LONGEST = 360, 540  # short sides of the first and the last view; the paper does not tell its four
GRID = 480 // 4  # the short side of the grid on which masks are matched and averaged
CLASS, MASK, DICE = 2.0, 5.0, 5.0  # the cost's weights (Eq. 4)
MOST = 16
SURE = 1e-6  # averaged probabilities closer to 0 or 1 than this have the logit of this


class QueryOutput(Protocol):
    """A model's prediction for one clip."""

    @property
    def probabilities(self) -> Tensor:
        """Class probabilities [Q, K]."""
        ...

    @property
    def mask_logits(self) -> Tensor:
        """Mask logits [Q, T, h, w] over the whole unpadded frame, at any resolution."""
        ...


@runtime_checkable
class Resizable(VideoSegmenter[State], Protocol[State]):
    """A segmenter whose step has two parts: infer all queries of a clip at any size, then link them to objects."""

    def look(self, frames: Tensor, short: int | None = None) -> QueryOutput:
        """All queries of one clip, frames uint8 [T, 3, H, W], resized to a short side or to the model's default."""
        ...

    def settle(self, state: State, answer: QueryOutput, index: Tensor, shot: int = 0) -> tuple[State, Tracks]:
        """Link queries to objects: tracks of the frames `index` [T] of a shot, with ids global to the video."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentedView:
    """A prediction on the common grid, or the average of several.

    >>> view = AugmentedView(probabilities=torch.zeros(5, 2), mask_logits=torch.zeros(5, 1, 120, 160))
    >>> view.mask_logits.shape
    torch.Size([5, 1, 120, 160])
    """

    probabilities: Tensor  # [Q, K]
    mask_logits: Tensor  # [Q, T, h, w]


def several(model: VideoSegmenter[Any], views: int, *, seed: int = 0) -> VideoSegmenter[Any]:
    """Wrap the model so that it averages over `views` sizes; 1 returns the model itself.

    Raises ConfigError if the model does not support test-time augmentation.
    """
    views = whole_between("views", views, 1, MOST)
    if views == 1:
        return model
    if not model.traits.resizable:
        expected = "expected a model with queries that can be matched (Mask2Former, IFR)"
        raise ConfigError(f"views={views}: {expected}, got {type(model).__name__}")
    assert isinstance(model, Resizable), "traits.resizable promises look and settle"
    return Views(model, sides(views), int(np.random.default_rng(seed).integers(views)))


def sides(views: int) -> tuple[int, ...]:
    """Short sides in pixels, evenly spaced from SHORTEST to LONGEST.

    >>> sides(4)
    (360, 420, 480, 540)
    """
    return tuple(np.linspace(SHORTEST, LONGEST, views).round().astype(int).tolist())


class Views(nn.Module):
    """A segmenter that averages its model's queries over several sizes before they are linked to objects."""

    def __init__(self, model: Resizable[Any], shorts: tuple[int, ...], pivot: int) -> None:
        super().__init__()
        self.model = model
        self.shorts = shorts
        self.pivot = pivot
        self.window = model.window
        self.classes = model.classes
        self.traits = model.traits
        self.precision = model.precision
        self.training = isinstance(model, nn.Module) and model.training

    def forward(self, clips: list[Clip]) -> Losses:
        """The model's losses: views are for inference alone."""
        return self.model.forward(clips)

    def start(self) -> Any:
        return self.model.start()

    def step(self, state: Any, clip: Clip) -> tuple[Any, Tracks]:
        frames = clip.frames[clip.key]
        pivot, *others = [self.pivot, *(n for n in range(len(self.shorts)) if n != self.pivot)]
        grid = grid_of(clip.size)
        merging = Merging(on_grid(self.model.look(frames, self.shorts[pivot]), grid))
        for other in others:
            merging.add(on_grid(self.model.look(frames, self.shorts[other]), grid))
        return self.model.settle(state, merging.mean(), clip.index[clip.key], clip.shot)


class Merging:
    """The running sum of views, their queries in the pivot's order."""

    def __init__(self, pivot: AugmentedView) -> None:
        self._pivot = pivot
        self._probabilities = pivot.probabilities.clone()
        self._masks = pivot.mask_logits.sigmoid()
        self._count = 1

    def add(self, view: AugmentedView) -> None:
        """Match a view's queries to the pivot's and add it."""
        order = match(view, self._pivot)
        self._probabilities += view.probabilities[order]
        for t in range(self._masks.shape[1]):  # frame by frame: no second copy of all masks
            self._masks[:, t] += view.mask_logits[order, t].sigmoid()
        self._count += 1

    def mean(self) -> AugmentedView:
        """Mean class probabilities, and the logits of mean mask probabilities."""
        masks = (self._masks / self._count).logit(eps=SURE)
        return replace(self._pivot, probabilities=self._probabilities / self._count, mask_logits=masks)


def match(view: AugmentedView, pivot: AugmentedView) -> Tensor:
    """The query of `view` that matches each query of `pivot`, int64 [Q]: the assignment of least cost (Eq. 4).

    >>> logits = torch.tensor([[[[9.0, -9.0]]], [[[-9.0, 9.0]]]])
    >>> pivot = AugmentedView(probabilities=torch.ones(2, 1), mask_logits=logits)
    >>> match(AugmentedView(probabilities=torch.ones(2, 1), mask_logits=logits.flip(0)), pivot)
    tensor([1, 0])
    """
    rows, columns = assign(matching_cost(view, pivot))
    order = torch.empty_like(rows)
    order[columns] = rows
    return order.to(view.probabilities.device)


def matching_cost(view: AugmentedView, pivot: AugmentedView) -> Tensor:
    """Eq. 4 with the pivot's best classes and soft masks as truth, [Q of the view, Q of the pivot].

    Cross-entropy is the mean over all frames' pixels, Dice is of the whole clip; masks are taken frame by frame, so
    that nothing of the size of all masks is made.
    """
    cost = CLASS * class_cost(view.probabilities, pivot.probabilities.argmax(1))
    queries, frames = pivot.mask_logits.shape[:2]
    overlap = cost.new_zeros(len(cost), queries)
    sizes = cost.new_zeros(len(cost), queries)
    for t in range(frames):
        logits, truth = view.mask_logits[:, t].flatten(1), pivot.mask_logits[:, t].flatten(1).sigmoid()
        probabilities = logits.sigmoid()
        cost = cost + MASK / frames * bce_cost(logits, truth)
        overlap += probabilities @ truth.T
        sizes += probabilities.sum(1)[:, None] + truth.sum(1)[None]
    return cost + DICE * (1 - (2 * overlap + 1) / (sizes + 1))


def on_grid(answer: QueryOutput, grid: tuple[int, int]) -> AugmentedView:
    """A prediction with its masks resized to the grid (height, width)."""
    masks = answer.mask_logits.float()
    if tuple(masks.shape[-2:]) != grid:
        masks = torch.stack([F.interpolate(m[None], grid, mode="bilinear", align_corners=False)[0] for m in masks])
    return AugmentedView(probabilities=answer.probabilities.float(), mask_logits=masks)


def grid_of(size: tuple[int, int]) -> tuple[int, int]:
    """The grid for frames of a size (height, width): the same shape, GRID cells on the short side.

    >>> grid_of((720, 1280))
    (120, 213)
    """
    scale = GRID / min(size)
    return round(size[0] * scale), round(size[1] * scale)
