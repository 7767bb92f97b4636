"""Annotated data sets of moving patches, which the toy segmenter of `toy.py` finds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from toy import COLOURS, moving_patches
from tubelet.core import masks
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats import ytvis

CLASSES = tuple(COLOURS)
SIZE = (48, 64)


def patch_video(name: str, colours: Sequence[str], length: int = 3) -> Video:
    frames = moving_patches(length, SIZE, colours)
    tracks = []
    for number, colour in enumerate(colours, start=1):
        exact = np.all(frames == COLOURS[colour], axis=-1)
        rles = tuple(masks.encode(exact))
        tracks.append(Track(id=10 * int(name) + number, label=CLASSES.index(colour), score=1.0, rles=rles))
    images = list(torch.from_numpy(frames).permute(0, 3, 1, 2))
    return Video(id=name, size=SIZE, frames=images, tracks=tuple(tracks))


def patch_set() -> VideoSet:
    """Three videos of patches; the ids are numbers, not in order of the position from 1."""
    videos = [
        patch_video("7", ("red", "blue")),
        patch_video("8", ("green",)),
        patch_video("9", ("yellow", "red")),
    ]
    return VideoSet(videos=videos, classes=CLASSES)


def write_patch_set(folder: Path) -> Path:
    """Write the set as a YouTube-VIS folder; the path of its JSON."""
    ytvis.write_folder(folder, patch_set())
    return folder / "instances.json"
