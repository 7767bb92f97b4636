"""Frames kept ready: decoded in memory, or shrunk on disk, for data sets whose frames are larger than a model reads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from tubelet.core import masks
from tubelet.core.atomic import replacing
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.images import decode_rgb, read_image_file
from tubelet.data.geometry import ResizeWithin
from tubelet.formats.files import clean_name
from tubelet.formats.lazy import LazyVideos
from tubelet.video.frames import LazyFrames


def keep_decoded(videos: VideoSet, megabytes: int = 1024) -> VideoSet:
    """The same set, whose latest decoded frames stay in memory, up to so many megabytes in each process."""
    memory = _Memory(megabytes * 1_000_000)
    return replace(videos, videos=_Remembering(videos.videos, memory))


def shrink(videos: VideoSet, folder: str | Path, *, short: int = 360, long: int = 640) -> VideoSet:
    """The same set at no more than `short` x `long` pixels, ratio kept; masks are shrunk alike.

    Each frame is decoded and shrunk when first asked for, and kept in `folder` as JPEG of quality 95. The folder
    belongs to one data set; it may be removed at any time.
    """
    step = ResizeWithin(short=short, long=long)
    return replace(videos, videos=_Shrinking(videos.videos, Path(folder) / f"{short}x{long}", step))


class _Memory:
    """Decoded frames by (video, frame), the longest unused forgotten first."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self.frames: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def get(self, key: tuple[int, int], frames: Sequence[Tensor]) -> Tensor:
        if key in self.frames:
            self.frames.move_to_end(key)
            return self.frames[key]
        frame = frames[key[1]]
        self.frames[key] = frame
        self.held += frame.nbytes
        while self.held > self.most:
            self.held -= self.frames.popitem(last=False)[1].nbytes
        return frame

    def __getstate__(self) -> dict[str, object]:
        return {"most": self.most, "held": 0, "frames": OrderedDict()}  # a worker starts with a memory of its own


class _RememberedFrames(LazyFrames):
    def __init__(self, frames: Sequence[Tensor], number: int, memory: _Memory) -> None:
        self.frames, self.number, self.memory = frames, number, memory

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, t: int) -> Tensor:
        return self.memory.get((self.number, t), self.frames)


class _Remembering(LazyVideos[int]):
    def __init__(self, videos: Sequence[Video], memory: _Memory) -> None:
        super().__init__(range(len(videos)))
        self.videos, self.memory = videos, memory

    def make(self, entry: int) -> Video:
        video = self.videos[entry]
        return replace(video, frames=_RememberedFrames(video.frames, entry, self.memory))


class _ShrunkFrames(LazyFrames):
    def __init__(self, frames: Sequence[Tensor], folder: Path, size: tuple[int, int]) -> None:
        self.frames, self.folder, self.size = frames, folder, size

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, t: int) -> Tensor:
        path = self.folder / f"{t:06d}.jpg"
        if not path.is_file():
            image = self.frames[t].permute(1, 2, 0).numpy()
            small = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)
            data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
            with replacing(path) as temporary:
                temporary.write_bytes(data.tobytes())
        return torch.from_numpy(decode_rgb(read_image_file(path), str(path), size=self.size)).permute(2, 0, 1)


class _Shrinking(LazyVideos[int]):
    kept = 4096  # shrinking the masks of a video anew for every clip would cost more than it saves

    def __init__(self, videos: Sequence[Video], folder: Path, step: ResizeWithin) -> None:
        super().__init__(range(len(videos)))
        self.videos, self.folder, self.step = videos, folder, step

    def make(self, entry: int) -> Video:
        video = self.videos[entry]
        size = self.step.plan(video.size, 1, np.random.default_rng(0)).size
        if size[0] >= video.size[0]:
            return video
        name = clean_name(video.id.replace("/", "-").replace("\\", "-"), "video names")
        frames = _ShrunkFrames(video.frames, self.folder / name, size)
        tracks = None if video.tracks is None else tuple(_shrunk(track, size) for track in video.tracks)
        return replace(video, size=size, frames=frames, tracks=tracks)


def _shrunk(track: Track, size: tuple[int, int]) -> Track:
    return replace(track, rles=tuple(None if rle is None else _shrunk_mask(rle, size) for rle in track.rles))


def _shrunk_mask(rle: masks.RLE, size: tuple[int, int]) -> masks.RLE | None:
    small = cv2.resize(masks.decode([rle])[0], size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return masks.encode(small[None])[0] if small.any() else None
