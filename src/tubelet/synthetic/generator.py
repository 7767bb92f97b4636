"""Generated videos with exact masks: textured creatures on a textured ground, seen by a moving camera.

`generate(config, seed, videos)` makes a data set whose frames are drawn when they are read. The same seed gives the
same bytes on any machine: pixels come from integers, elementwise IEEE arithmetic and a table of sines, random numbers
from PCG64's integers and uniform numbers, and PNG files packed by zlib's Huffman codes (`formats/png`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tubelet.core import masks
from tubelet.core.arguments import whole_between
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats import ytvis
from tubelet.formats.lazy import LazyVideos
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.planner import plan
from tubelet.synthetic.renderer import Scene
from tubelet.video.frames import LazyFrames

MOST_VIDEOS = 1_000_000_000


def generate(config: Synthetic, seed: int, videos: int) -> VideoSet:
    """Generate `videos` videos; video number n depends on the config, the seed and n alone.

    >>> from tubelet.synthetic.config import Synthetic
    >>> from tubelet.synthetic.generator import generate
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
    >>> from tubelet.synthetic.config import Synthetic
    >>> from tubelet.synthetic.generator import write
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

    >>> from tubelet.synthetic.config import Synthetic
    >>> from tubelet.synthetic.generator import GeneratedVideos
    >>> videos = GeneratedVideos(Synthetic(height=24, width=32, frames=2), seed=0, numbers=range(10, 20))
    >>> len(videos), videos[0].id
    (10, '00010')
    """

    cache_size = 1024

    def __init__(self, config: Synthetic, seed: int, numbers: range) -> None:
        super().__init__(numbers)
        self.config = config
        self.seed = seed

    def make(self, entry: int) -> Video:
        return _video(self.config, self.seed, entry)


class WorldFrames(LazyFrames):
    """The frames of a world, each drawn when it is read: uint8 [3, H, W].

    >>> from tubelet.synthetic.planner import plan
    >>> from tubelet.synthetic.config import Synthetic
    >>> from tubelet.synthetic.generator import WorldFrames
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
