"""Generated videos with exact truth: textured creatures over a textured world, seen by a moving camera.

`generate(config, seed, videos)` makes a set whose frames are drawn when asked for. The same seed gives the same bytes
on any machine: pixels come from integers, elementwise IEEE arithmetic and a table of sines, chance from PCG64's
integers and uniform numbers, and the PNG files from an encoder of our own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tubelet.core import masks
from tubelet.core.arguments import whole_between
from tubelet.core.config import Config
from tubelet.core.errors import nearest
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats import ytvis
from tubelet.formats.lazy import LazyVideos
from tubelet.synthetic.cast import CAST
from tubelet.synthetic.planner import plan
from tubelet.synthetic.renderer import Scene
from tubelet.video.frames import LazyFrames

Range = tuple[float, float]


class Synthetic(Config):
    """What the generated videos show. Shares are of videos or objects, 0 to 1."""

    height: int = Field(default=180, ge=8, le=4320)
    width: int = Field(default=320, ge=8, le=7680)
    frames: int = Field(default=20, ge=1)
    fps: float = Field(default=12.0, gt=0)
    classes: tuple[str, ...] = Field(default=tuple(CAST), min_length=1)
    objects: tuple[int, int] = (1, 4)  # least and most per video
    size: Range = (0.25, 0.55)  # length of an object over the frame's short side
    speed: float = Field(default=0.02, ge=0)  # mean way per frame, in frame widths
    deformation: float = Field(default=0.15, ge=0, le=0.5)  # how far bodies bend; 0 also stills wings, legs and tails
    look_alikes: float = Field(default=0.3, ge=0, le=1)  # share of videos in which two that look the same cross
    occluders: tuple[int, int] = (0, 2)  # posts and bushes in front
    leaving: float = Field(default=0.25, ge=0, le=1)  # share of objects that leave the frame and come back
    camera: float = Field(default=0.5, ge=0, le=1)  # how far the camera pans, zooms and rolls
    light: float = Field(default=0.15, ge=0, lt=1)  # how much the light comes and goes
    blur: float = Field(default=0.5, ge=0, le=8)  # largest standard deviation in pixels
    shakes: float = Field(default=0.0, ge=0, le=1)  # share of frames smeared as by a shake, between clear neighbours
    shake_blur: float = Field(default=3.0, ge=0, le=8)  # their standard deviation in pixels, beside the blur
    noise: float = Field(default=4.0, ge=0, le=64)  # standard deviation in grey levels
    least_pixels: int = Field(default=8, ge=1)  # an object of which less is seen counts as absent in that frame

    @model_validator(mode="after")
    def _sensible(self) -> Synthetic:
        for name in self.classes:
            if name not in CAST:
                raise ValueError(f"no class {name!r}; {nearest(name, CAST)}")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"a class is named twice: {self.classes}")
        for name in ("objects", "occluders", "size"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} must be two rising numbers from 0, got {(low, high)}")
        if not self.size[0]:
            raise ValueError("objects of size 0 cannot be seen")
        return self


MOST_VIDEOS = 1_000_000_000


def generate(config: Synthetic, seed: int, videos: int) -> VideoSet:
    """`videos` generated videos; number n depends on the config, the seed and n alone."""
    seed = whole_between("seed", seed, 0)
    videos = whole_between("videos", videos, 0, MOST_VIDEOS)
    return VideoSet(videos=GeneratedVideos(config, seed, range(videos)), classes=config.classes)


def write(
    out: str | Path, config: Synthetic, seed: int, videos: int, progress: Callable[[int], None] | None = None
) -> VideoSet:
    """Write a generated set as a YouTube-VIS folder (`ytvis.write_folder`)."""
    generated = generate(config, seed, videos)
    ytvis.write_folder(out, generated, progress)
    return generated


class GeneratedVideos(LazyVideos[int]):
    """Videos by number, drawn when asked for."""

    kept = 1024

    def __init__(self, config: Synthetic, seed: int, numbers: range) -> None:
        super().__init__(numbers)
        self.config, self.seed = config, seed

    def make(self, entry: int) -> Video:
        return _video(self.config, self.seed, entry)


class WorldFrames(LazyFrames):
    """Frames drawn from a world when asked for."""

    def __init__(self, world: Scene, length: int) -> None:
        self.world, self.length = world, length

    def __len__(self) -> int:
        return self.length

    def read(self, t: int) -> Tensor:
        return torch.from_numpy(self.world.frame(t)).permute(2, 0, 1)


def _video(config: Synthetic, seed: int, number: int) -> Video:
    world = plan(config, (seed, number))
    labels = [actor.label for actor in world.actors if actor.label is not None]
    columns: list[list[masks.RLE | None]] = [[] for _ in labels]
    for t in range(config.frames):
        seen = world.masks(t)
        for column, mask, code in zip(columns, seen, masks.encode(seen), strict=True):
            column.append(code if np.count_nonzero(mask) >= config.least_pixels else None)
    tracks = tuple(
        Track(id=n + 1, label=label, score=1.0, rles=tuple(column))
        for n, (label, column) in enumerate(zip(labels, columns, strict=True))
        if any(column)
    )
    frames = WorldFrames(world, config.frames)
    return Video(id=f"{number:05d}", size=world.size, frames=frames, fps=config.fps, tracks=tracks)
