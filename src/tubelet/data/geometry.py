"""Where each pixel goes: geometric transforms are one matrix per frame, composed and applied in a single warp.

A step plans a `Placement`; `Geometry` multiplies the plans of its steps, so that resize, crop, flip and pseudo-motion
together cost one interpolation of the frames and one nearest-neighbour warp of the masks.
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
    """Base of the geometric transforms: a subclass says where pixels go, `Geometry` or a call applies it."""

    @abstractmethod
    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        """The placement of a clip of `length` frames of `size` (height, width)."""

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Clip:
        return warp(clip, self.plan(clip.size, len(clip), rng))


class ResizeWithin(Step):
    """Keep the ratio, the sides at most `short` and `long` (MaskTrack R-CNN: 640x360)."""

    kind: Literal["within"] = "within"
    short: int = Field(default=360, ge=1)
    long: int = Field(default=640, ge=1)

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        scale = min(self.short / min(size), self.long / max(size))
        return _resize(size, (_at_least_one(size[0] * scale), _at_least_one(size[1] * scale)), length)


class ResizeShortSide(Step):
    """Keep the ratio; the short side is one of `sides`, drawn per clip (IFR: 360 or 480), the long at most `long`."""

    kind: Literal["short_side"] = "short_side"
    sides: tuple[int, ...] = Field(default=(360, 480), min_length=1)
    long: int | None = None

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        side = self.sides[rng.integers(len(self.sides))]
        scale = side / min(size)
        if self.long is not None:
            scale = min(scale, self.long / max(size))
        return _resize(size, (_at_least_one(size[0] * scale), _at_least_one(size[1] * scale)), length)


class ResizeTo(Step):
    """To a fixed size: stretched, or with the ratio kept and the right and bottom filled."""

    kind: Literal["to"] = "to"
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    keep_ratio: bool = False

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        down, across = self.height / size[0], self.width / size[1]
        if self.keep_ratio:
            down = across = min(down, across)
        return Placement(repeat(scaling(across, down), length), (self.height, self.width))


class RandomCrop(Step):
    """A window of the frame, the same for all frames; its sides are a share of the frame's, drawn from `share`."""

    kind: Literal["crop"] = "crop"
    share: Range = (0.6, 1.0)

    @model_validator(mode="after")
    def _share_of_the_frame(self) -> RandomCrop:
        if not 0 < self.share[0] <= self.share[1] <= 1:
            raise ValueError(f"share must be two rising numbers in (0, 1], got {self.share}")
        return self

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        height, width = (_at_least_one(side * rng.uniform(*self.share)) for side in size)
        y, x = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        return Placement(repeat(translation(-x, -y), length), (height, width))


class RandomScaleCrop(Step):
    """To a fixed size, zoomed and stretched at random, the window placed at random (the same for all frames).

    Zoom 1 fits the frame into the output; above 1 crops, below 1 leaves a border. `aspect` is an extra stretch of width
    over height. Both are drawn log-uniformly.
    """

    kind: Literal["scale_crop"] = "scale_crop"
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    zoom: Range = (0.8, 2.0)
    aspect: Range = (0.8, 1.25)
    keep_ratio: bool = False

    @model_validator(mode="after")
    def _positive_ranges(self) -> RandomScaleCrop:
        if not (0 < self.zoom[0] <= self.zoom[1] and 0 < self.aspect[0] <= self.aspect[1]):
            raise ValueError(f"zoom and aspect must be rising and positive, got {self.zoom} and {self.aspect}")
        return self

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        down, across = self.height / size[0], self.width / size[1]
        if self.keep_ratio:
            down = across = min(down, across)
        zoom, stretch = log_uniform(rng, self.zoom), log_uniform(rng, self.aspect) ** 0.5
        across, down = across * zoom * stretch, down * zoom / stretch
        x = _place(rng, self.width - across * size[1])
        y = _place(rng, self.height - down * size[0])
        matrix = translation(x, y) @ scaling(across, down)
        return Placement(repeat(matrix, length), (self.height, self.width))


class HorizontalFlip(Step):
    """Mirror all frames of the clip, or none."""

    kind: Literal["flip"] = "flip"
    probability: float = Field(default=0.5, ge=0, le=1)

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        mirrored = rng.random() < self.probability
        matrix = translation(size[1], 0) @ scaling(-1, 1) if mirrored else np.eye(3)
        return Placement(repeat(matrix, length), size)


class PseudoMotion(Step):
    """A still image, or a video, moved as by a camera (CompFeat section 5; the paper leaves the ranges open).

    Up to two frames are drawn independently of each other, as the paper does; longer clips follow a smooth path.
    """

    kind: Literal["motion"] = "motion"
    rotation: float = Field(default=15.0, ge=0, le=180)  # degrees, either way
    translation: float = Field(default=0.1, ge=0, le=1)  # share of the frame's sides, either way
    shear: float = Field(default=10.0, ge=0, lt=90)  # degrees, either way
    scale: Range = (0.9, 1.1)
    frames_per_turn: int = Field(default=6, ge=1)  # of a smooth path: how many frames between two random poses

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
    """Several geometric steps in one warp.

    An object of which less than `min_left` of its area stays inside a frame is absent there (CompFeat: 20 %), and one
    that is absent everywhere is gone. A clip that would lose all its objects is planned anew, `attempts` times in all.
    """

    kind: Literal["geometry"] = "geometry"
    steps: tuple[AnyStep, ...]
    only: Literal["stills"] | None = None  # stills: clips that show one frame again and again, not videos
    border: Border = "mean"
    min_left: float = Field(default=0.2, ge=0, le=1)
    attempts: int = Field(default=3, ge=1)

    def plan(self, size: Size, length: int, rng: np.random.Generator) -> Placement:
        """The product of all steps' plans."""
        matrices = repeat(np.eye(3), length)
        for step in self.steps:
            placement = step.plan(size, length, rng)
            matrices, size = placement.matrices @ matrices, placement.size
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


def _at_least_one(side: float) -> int:
    return max(1, round(side))


def _place(rng: np.random.Generator, slack: float) -> float:
    """An offset between 0 and `slack`, whichever sign it has."""
    return float(rng.uniform(min(0.0, slack), max(0.0, slack)))
