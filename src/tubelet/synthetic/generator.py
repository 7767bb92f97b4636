"""Generated videos with exact masks: textured creatures on a textured ground, seen by a moving camera.

`generate(config, seed, videos)` makes a data set whose frames are drawn when they are read. The same seed gives the
same bytes on any machine: pixels come from integers, elementwise IEEE arithmetic and a table of sines, random numbers
from PCG64's integers and uniform numbers, and PNG files from our own encoder.
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

MOST_VIDEOS = 1_000_000_000

Range = tuple[float, float]


class Synthetic(Config):
    """What the generated videos show. Shares are of videos, objects or frames, 0 to 1.

    Raises ConfigError for a class that does not exist or is named twice, and for ranges that do not rise.

    >>> from tubelet.synthetic.generator import Synthetic
    >>> config = Synthetic(frames=40, classes=("fish", "car"))
    >>> config.override("camera=0", "objects=[2, 3]").objects
    (2, 3)
    """

    height: int = Field(default=180, ge=8, le=4320)
    width: int = Field(default=320, ge=8, le=7680)
    frames: int = Field(default=20, ge=1)
    fps: float = Field(default=12.0, gt=0)
    classes: tuple[str, ...] = Field(default=tuple(CAST), min_length=1)
    objects: tuple[int, int] = (1, 4)  # fewest and most per video
    size: Range = (0.25, 0.55)  # length of an object over the frame's short side
    speed: float = Field(default=0.02, ge=0)  # mean movement per frame, in frame widths
    deformation: float = Field(default=0.15, ge=0, le=0.5)  # how far bodies bend; 0 also stills wings, legs and tails
    look_alikes: float = Field(default=0.3, ge=0, le=1)  # share of videos in which two objects of the same look cross
    occluders: tuple[int, int] = (0, 2)  # fewest and most posts and bushes in front of the objects
    leaving: float = Field(default=0.25, ge=0, le=1)  # share of objects that leave the frame and come back
    camera: float = Field(default=0.5, ge=0, le=1)  # how far the camera pans, zooms and rolls
    light: float = Field(default=0.15, ge=0, lt=1)  # how much the brightness changes
    blur: float = Field(default=0.5, ge=0, le=8)  # largest standard deviation in pixels
    shakes: float = Field(default=0.0, ge=0, le=1)  # share of frames blurred as by a shake, between sharp neighbours
    shake_blur: float = Field(default=3.0, ge=0, le=8)  # their extra standard deviation in pixels
    noise: float = Field(default=4.0, ge=0, le=64)  # standard deviation in grey levels
    least_pixels: int = Field(default=8, ge=1)  # an object with fewer visible pixels is absent in that frame

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


def generate(config: Synthetic, seed: int, videos: int) -> VideoSet:
    """Generate `videos` videos; video number n depends on the config, the seed and n alone.

    >>> from tubelet.synthetic.generator import Synthetic, generate
    >>> config = Synthetic(height=48, width=64, frames=2, objects=(1, 1), size=(0.6, 0.8))
    >>> generate(config, seed=0, videos=3).videos[2]
    Video(id='00002', size=(48, 64), frames=2, fps=12, tracks=1)
    """
    seed = whole_between("seed", seed, 0)
    videos = whole_between("videos", videos, 0, MOST_VIDEOS)
    return VideoSet(videos=GeneratedVideos(config, seed, range(videos)), classes=config.classes)


def write(
    out: str | Path, config: Synthetic, seed: int, videos: int, progress: Callable[[int], None] | None = None
) -> VideoSet:
    """Generate videos and write them as a YouTube-VIS folder (`ytvis.write_folder`); returns the set.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from tubelet.synthetic.generator import Synthetic, write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write(Path(folder) / "set", Synthetic(height=24, width=32, frames=1), seed=0, videos=1)
    ...     (Path(folder) / "set" / "instances.json").exists()
    True
    """
    generated = generate(config, seed, videos)
    ytvis.write_folder(out, generated, progress)
    return generated


class GeneratedVideos(LazyVideos[int]):
    """Generated videos by number; each is planned, and its masks drawn, when it is first read.

    >>> from tubelet.synthetic.generator import GeneratedVideos, Synthetic
    >>> videos = GeneratedVideos(Synthetic(height=24, width=32, frames=2), seed=0, numbers=range(10, 20))
    >>> len(videos), videos[0].id
    (10, '00010')
    """

    kept = 1024

    def __init__(self, config: Synthetic, seed: int, numbers: range) -> None:
        super().__init__(numbers)
        self.config = config
        self.seed = seed

    def make(self, entry: int) -> Video:
        return _video(self.config, self.seed, entry)


class WorldFrames(LazyFrames):
    """The frames of a world, each drawn when it is read: uint8 [3, H, W].

    >>> from tubelet.synthetic.planner import plan
    >>> from tubelet.synthetic.generator import Synthetic, WorldFrames
    >>> frames = WorldFrames(plan(Synthetic(height=24, width=32, frames=2), seed=(0, 0)), length=2)
    >>> frames[1].shape
    torch.Size([3, 24, 32])
    """

    def __init__(self, world: Scene, length: int) -> None:
        self.world = world
        self.length = length

    def __len__(self) -> int:
        return self.length

    def read(self, t: int) -> Tensor:
        return torch.from_numpy(self.world.frame(t)).permute(2, 0, 1)


def _video(config: Synthetic, seed: int, number: int) -> Video:
    world = plan(config, (seed, number))
    labels = [actor.label for actor in world.actors if actor.label is not None]
    rles_of_objects: list[list[masks.RLE | None]] = [[] for _ in labels]
    for t in range(config.frames):
        visible = world.masks(t)
        for rles, mask, rle in zip(rles_of_objects, visible, masks.encode(visible), strict=True):
            is_present = np.count_nonzero(mask) >= config.least_pixels
            rles.append(rle if is_present else None)

    tracks = []
    for id, (label, rles) in enumerate(zip(labels, rles_of_objects, strict=True), start=1):
        if any(rles):
            tracks.append(Track(id=id, label=label, score=1.0, rles=tuple(rles)))

    frames = WorldFrames(world, config.frames)
    return Video(id=f"{number:05d}", size=world.size, frames=frames, fps=config.fps, tracks=tuple(tracks))
