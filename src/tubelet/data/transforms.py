"""Transforms of a whole clip, which keep frames, masks and identities aligned.

A transform is a config called as `transform(clip, rng) -> Clip`. Geometric transforms are in `geometry.py`, pasting is
in `pasting.py`; here are colour and time, and the union of all transforms.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import Field

from tubelet.core.config import Config
from tubelet.core.types import Clip
from tubelet.data.geometry import (
    Geometry,
    HorizontalFlip,
    PseudoMotion,
    RandomCrop,
    RandomScaleCrop,
    ResizeShortSide,
    ResizeTo,
    ResizeWithin,
)
from tubelet.data.pasting import PasteObjects
from tubelet.data.warp import as_frames, as_images

__all__ = [
    "AnyTransform",
    "ColourJitter",
    "Geometry",
    "HorizontalFlip",
    "PasteObjects",
    "PseudoMotion",
    "RandomCrop",
    "RandomScaleCrop",
    "ResizeShortSide",
    "ResizeTo",
    "ResizeWithin",
    "TemporalFlip",
]

_GREY = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class ColourJitter(Config):
    """Change brightness, contrast, saturation and hue with one colour matrix, then blur and add noise.

    Strengths are drawn once per clip; `flicker` is the share of each strength that is drawn per frame instead.

    >>> from tubelet.data.transforms import ColourJitter
    >>> grey = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    >>> clip = tubelet.Clip(frames=grey, index=torch.arange(2), key=torch.ones(2, dtype=bool))
    >>> changed = ColourJitter(brightness=0.5)(clip, np.random.default_rng(0))
    >>> changed.frames.shape, changed.frames.dtype
    (torch.Size([2, 3, 8, 8]), torch.uint8)
    """

    kind: Literal["colour"] = "colour"
    brightness: float = Field(default=0.25, ge=0, le=1)  # of full white, either way
    contrast: float = Field(default=0.3, ge=0, lt=1)  # relative, either way
    saturation: float = Field(default=0.4, ge=0, le=1)  # relative, either way
    hue: float = Field(default=12.0, ge=0, le=180)  # degrees, either way
    blur: float = Field(default=1.0, ge=0)  # largest standard deviation in pixels
    blur_probability: float = Field(default=0.2, ge=0, le=1)
    noise: float = Field(default=0.0, ge=0)  # standard deviation in grey levels
    flicker: float = Field(default=0.1, ge=0, le=1)

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Clip:
        images = as_images(clip.frames)
        per_clip = rng.uniform(-1, 1, 4)
        per_frame = rng.uniform(-1, 1, (len(clip), 4))
        draws = (1 - self.flicker) * per_clip + self.flicker * per_frame  # [T, 4]
        blurs = self._blurs(len(clip), rng)

        changed = np.empty(images.shape, np.uint8)
        for image, draw, blur, out in zip(images, draws, blurs, changed, strict=True):
            cv2.transform(image, self._matrix(draw), out)
            if blur > 0.1:
                cv2.GaussianBlur(out, (0, 0), blur, out)
            if self.noise:
                noise = rng.normal(0, self.noise, out.shape).astype(np.float32)
                out[:] = np.clip(out + noise, 0, 255)
        return replace(clip, frames=as_frames(changed))

    def _blurs(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Standard deviations of the frames' blur in pixels, float64 [T]."""
        chance = rng.random()
        per_clip = rng.random()
        per_frame = rng.random(length)
        if chance >= self.blur_probability:
            return np.zeros(length)
        return self.blur * ((1 - self.flicker) * per_clip + self.flicker * per_frame)

    def _matrix(self, draw: np.ndarray) -> np.ndarray:
        """The affine colour matrix [3, 4] for draws [4] in [-1, 1]."""
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        brightness, contrast, saturation, hue = draw * strengths

        cos = np.cos(np.radians(hue))
        sin = np.sin(np.radians(hue))
        rotation = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        colour = np.linalg.inv(_TO_YIQ) @ rotation @ _TO_YIQ
        colour = (1 + saturation) * colour - saturation * np.tile(_GREY, (3, 1))

        offset = 255 * brightness - 127.5 * contrast
        return np.concatenate([(1 + contrast) * colour, np.full((3, 1), offset)], 1)


class TemporalFlip(Config):
    """Play the clip backwards with `probability` (tag-based system).

    >>> from tubelet.data.transforms import TemporalFlip
    >>> frames = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    >>> clip = tubelet.Clip(frames=frames, index=torch.arange(3), key=torch.ones(3, dtype=bool))
    >>> TemporalFlip(probability=1)(clip, np.random.default_rng(0)).index
    tensor([2, 1, 0])
    """

    kind: Literal["temporal_flip"] = "temporal_flip"
    probability: float = Field(default=0.5, ge=0, le=1)

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Clip:
        if rng.random() >= self.probability:
            return clip
        tracks = clip.tracks
        if tracks is not None:
            tracks = replace(tracks, masks=tracks.masks.flip(1), index=tracks.index.flip(0))
        return Clip(frames=clip.frames.flip(0), index=clip.index.flip(0), key=clip.key.flip(0), tracks=tracks)


AnyTransform = Annotated[
    Geometry
    | ResizeWithin
    | ResizeShortSide
    | ResizeTo
    | RandomCrop
    | RandomScaleCrop
    | HorizontalFlip
    | PseudoMotion
    | PasteObjects
    | ColourJitter
    | TemporalFlip,
    Field(discriminator="kind"),
]
