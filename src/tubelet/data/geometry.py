"""Geometric transforms: each is one matrix per frame, and several are composed into a single warp.

A step plans a `Placement`; `Geometry` multiplies the matrices of its steps, so that resize, crop, flip and
pseudo-motion together cost one interpolation of the frames and one nearest-neighbour warp of the masks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from tubelet.core.config import Config
from tubelet.core.types import Clip
from tubelet.data.warp import (
    Border,
    Placement,
    Range,
    Size,
    about,
    affine,
    log_uniform,
    repeat,
    scaling,
    smooth_path,
    translation,
    warp,
    warp_frames,
    warp_tracks,
)


class Step(Config, ABC):
    """Base class of the geometric transforms: a subclass plans the matrices, a call or `Geometry` applies them.

    >>> from tubelet.data.geometry import Step
    >>> from tubelet.data.warp import Placement, repeat, scaling
    >>> class Halve(Step):
    ...     def plan(self, size, length, rng):
    ...         return Placement(repeat(scaling(0.5, 0.5), length), (size[0] // 2, size[1] // 2))
    >>> clip = tubelet.Clip(
    ...     frames=torch.zeros(2, 3, 8, 12, dtype=torch.uint8), index=torch.arange(2), key=torch.ones(2, dtype=bool)
    ... )
    >>> Halve()(clip, np.random.default_rng(0)).size
    (4, 6)
    """

    @abstractmethod
    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        """The placement of a clip of `length` frames of `size` (height, width)."""

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Clip:
        return warp(clip, self.plan(clip.size, len(clip), rng))


class ResizeWithin(Step):
    """Resize, ratio kept, so that the sides are at most `short` and `long` (MaskTrack R-CNN: 640x360).

    >>> from tubelet.data.geometry import ResizeWithin
    >>> ResizeWithin(short=360, long=640).plan((1080, 1920), 1, np.random.default_rng(0)).size
    (360, 640)
    """

    kind: Literal["within"] = "within"
    short: int = Field(default=360, ge=1)
    long: int = Field(default=640, ge=1)

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        scale = min(self.short / min(size), self.long / max(size))
        return _resize(size, _scaled(size, scale), length)


class ResizeShortSide(Step):
    """Resize, ratio kept, to a short side drawn per clip from `sides` (IFR: 360 or 480) and a long side of at most
    `long`.

    >>> from tubelet.data.geometry import ResizeShortSide
    >>> ResizeShortSide(sides=(360,)).plan((720, 960), 1, np.random.default_rng(0)).size
    (360, 480)
    """

    kind: Literal["short_side"] = "short_side"
    sides: tuple[int, ...] = Field(default=(360, 480), min_length=1)
    long: int | None = None

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        side = self.sides[rng.integers(len(self.sides))]
        scale = side / min(size)
        if self.long is not None:
            scale = min(scale, self.long / max(size))
        return _resize(size, _scaled(size, scale), length)


class ResizeTo(Step):
    """Resize to a fixed size: stretched, or with the ratio kept and the right and bottom filled.

    >>> from tubelet.data.geometry import ResizeTo
    >>> step = ResizeTo(height=100, width=100, keep_ratio=True)
    >>> placement = step.plan((50, 200), 1, np.random.default_rng(0))
    >>> placement.size, placement.matrices[0].diagonal().tolist()
    ((100, 100), [0.5, 0.5, 1.0])
    """

    kind: Literal["to"] = "to"
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    keep_ratio: bool = False

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        across, down = _fit(size, (self.height, self.width), self.keep_ratio)
        return Placement(repeat(scaling(across, down), length), (self.height, self.width))


class RandomCrop(Step):
    """Crop the same random window from all frames; its sides are a share of the frame's, each drawn from `share`.

    Raises ConfigError unless 0 < share[0] <= share[1] <= 1.

    >>> from tubelet.data.geometry import RandomCrop
    >>> RandomCrop(share=(0.5, 0.5)).plan((40, 60), 1, np.random.default_rng(0)).size
    (20, 30)
    """

    kind: Literal["crop"] = "crop"
    share: Range = (0.6, 1.0)

    @model_validator(mode="after")
    def _share_of_the_frame(self) -> RandomCrop:
        if not 0 < self.share[0] <= self.share[1] <= 1:
            raise ValueError(f"share must be two rising numbers in (0, 1], got {self.share}")
        return self

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        height, width = (_at_least_one(side * rng.uniform(*self.share)) for side in size)
        y = int(rng.integers(size[0] - height + 1))
        x = int(rng.integers(size[1] - width + 1))
        return Placement(repeat(translation(-x, -y), length), (height, width))


class RandomScaleCrop(Step):
    """Zoom and stretch at random, then crop to a fixed size at a random position, the same for all frames.

    Zoom 1 fits the frame into the output; above 1 crops, below 1 leaves a border. `aspect` is an extra stretch of width
    over height. Both are drawn log-uniformly. Raises ConfigError unless both ranges are rising and positive.

    >>> from tubelet.data.geometry import RandomScaleCrop
    >>> RandomScaleCrop(height=48, width=64).plan((100, 100), 1, np.random.default_rng(0)).size
    (48, 64)
    """

    kind: Literal["scale_crop"] = "scale_crop"
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    zoom: Range = (0.8, 2.0)
    aspect: Range = (0.8, 1.25)
    keep_ratio: bool = False

    @model_validator(mode="after")
    def _positive_ranges(self) -> RandomScaleCrop:
        zoom_is_valid = 0 < self.zoom[0] <= self.zoom[1]
        aspect_is_valid = 0 < self.aspect[0] <= self.aspect[1]
        if not (zoom_is_valid and aspect_is_valid):
            raise ValueError(f"zoom and aspect must be rising and positive, got {self.zoom} and {self.aspect}")
        return self

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        across, down = _fit(size, (self.height, self.width), self.keep_ratio)
        zoom = log_uniform(rng, self.zoom)
        stretch = log_uniform(rng, self.aspect) ** 0.5
        across = across * zoom * stretch
        down = down * zoom / stretch

        x = _random_offset(rng, self.width - across * size[1])
        y = _random_offset(rng, self.height - down * size[0])
        matrix = translation(x, y) @ scaling(across, down)
        return Placement(repeat(matrix, length), (self.height, self.width))


class HorizontalFlip(Step):
    """Mirror all frames of the clip with `probability`, or none.

    >>> from tubelet.data.geometry import HorizontalFlip
    >>> placement = HorizontalFlip(probability=1).plan((4, 10), 1, np.random.default_rng(0))
    >>> (placement.matrices[0] @ [2, 3, 1]).tolist()  # x = 2 moves to x = 8
    [8.0, 3.0, 1.0]
    """

    kind: Literal["flip"] = "flip"
    probability: float = Field(default=0.5, ge=0, le=1)

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        mirrored = rng.random() < self.probability
        matrix = translation(size[1], 0) @ scaling(-1, 1) if mirrored else np.eye(3)
        return Placement(repeat(matrix, length), size)


class PseudoMotion(Step):
    """Move an image, or a video, as a camera would (CompFeat section 5; the paper leaves the ranges open).

    Up to two frames are drawn independently of each other, as in the paper; longer clips follow a smooth path. Raises
    ConfigError unless `scale` is rising and positive.

    >>> from tubelet.data.geometry import PseudoMotion
    >>> PseudoMotion(rotation=5).plan((90, 160), 4, np.random.default_rng(0)).matrices.shape
    (4, 3, 3)
    """

    kind: Literal["motion"] = "motion"
    rotation: float = Field(default=15.0, ge=0, le=180)  # degrees, either way
    translation: float = Field(default=0.1, ge=0, le=1)  # share of the frame's sides, either way
    shear: float = Field(default=10.0, ge=0, lt=90)  # degrees, either way
    scale: Range = (0.9, 1.1)
    frames_per_turn: int = Field(default=6, ge=1)  # frames between two random poses of a smooth path

    @model_validator(mode="after")
    def _positive_scale(self) -> PseudoMotion:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two rising positive numbers, got {self.scale}")
        return self

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        turns, shears, rights, downs, zooms = smooth_path(rng, 5, length, self.frames_per_turn).T
        low, high = np.log(self.scale)
        poses = affine(
            angles=np.radians(self.rotation) * turns,
            shears=np.radians(self.shear) * shears,
            scales=np.exp(low + (high - low) * (zooms + 1) / 2),
        )
        shifts = np.stack([rights * size[1], downs * size[0]], -1) * self.translation
        centre = np.array([size[1], size[0]]) / 2
        return Placement(about(poses, centre, centre + shifts), size)


AnyStep = Annotated[
    ResizeWithin | ResizeShortSide | ResizeTo | RandomCrop | RandomScaleCrop | HorizontalFlip | PseudoMotion,
    Field(discriminator="kind"),
]


class Geometry(Config):
    """Apply several geometric steps in one warp.

    An object with less than `min_left` of its area inside a frame is absent there (CompFeat: 20 %), and one that is
    absent everywhere is dropped. A clip that would lose all its objects is planned again, up to `attempts` times in
    all.

    >>> from tubelet.data.geometry import Geometry, HorizontalFlip, ResizeWithin
    >>> geometry = Geometry(steps=(ResizeWithin(short=36, long=64), HorizontalFlip()))
    >>> geometry.plan((72, 128), 1, np.random.default_rng(0)).size
    (36, 64)
    """

    kind: Literal["geometry"] = "geometry"
    steps: tuple[AnyStep, ...]
    only: Literal["stills"] | None = None  # stills: change only clips that repeat one frame
    border: Border = "mean"
    min_left: float = Field(default=0.2, ge=0, le=1)
    attempts: int = Field(default=3, ge=1)

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        """The product of all steps' matrices, and the size after the last step."""
        matrices = repeat(np.eye(3), length)
        for step in self.steps:
            placement = step.plan(size, length, rng)
            matrices = placement.matrices @ matrices
            size = placement.size
        return Placement(matrices, size)

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Clip:
        if self.only == "stills" and bool((clip.index != clip.index[0]).any()):
            return clip

        for _ in range(self.attempts):
            placement = self.plan(clip.size, len(clip), rng)
            tracks = None if clip.tracks is None else warp_tracks(clip.tracks, placement, self.min_left)
            if tracks is None or len(tracks) or not len(clip.tracks or ()):
                break
        return replace(clip, frames=warp_frames(clip.frames, placement, self.border), tracks=tracks)


def _resize(size: Size, new: Size, length: int) -> Placement:
    return Placement(repeat(scaling(new[1] / size[1], new[0] / size[0]), length), new)


def _scaled(size: Size, scale: float) -> Size:
    return _at_least_one(size[0] * scale), _at_least_one(size[1] * scale)


def _fit(size: Size, new: Size, keep_ratio: bool) -> tuple[float, float]:
    """Scales (across, down) from `size` to `new`; with `keep_ratio`, the smaller of the two for both."""
    down = new[0] / size[0]
    across = new[1] / size[1]
    if keep_ratio:
        across = down = min(down, across)
    return across, down


def _at_least_one(side: float) -> int:
    return max(1, round(side))


def _random_offset(rng: np.random.Generator, slack: float) -> float:
    """An offset between 0 and `slack`, which may be negative."""
    return float(rng.uniform(min(0.0, slack), max(0.0, slack)))
