"""Cache frames, decoded in memory or shrunk on disk, for data sets with larger frames than a model reads."""

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
    """Keep the latest decoded frames of a set in memory, up to `megabytes` in each process.

    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.data.caching import keep_decoded
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=list(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)))
    >>> videos = keep_decoded(VideoSet(videos=[video], classes=()), megabytes=100)
    >>> videos.videos[0].frames[1] is videos.videos[0].frames[1]  # decoded once
    True
    """
    cache = _FrameCache(megabytes * 1_000_000)
    return replace(videos, videos=_CachedVideos(videos.videos, cache))


def shrink(videos: VideoSet, folder: str | Path, *, short: int = 360, long: int = 640) -> VideoSet:
    """Shrink frames and masks of a set to at most `short` x `long` pixels, ratio kept.

    Each frame is decoded and shrunk when it is first read, and cached in `folder` as JPEG of quality 95. Use one folder
    per data set; it may be removed at any time.

    >>> import tempfile
    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.data.caching import shrink
    >>> video = tubelet.Video(id="v", size=(8, 16), frames=list(torch.zeros(1, 3, 8, 16, dtype=torch.uint8)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     videos = shrink(VideoSet(videos=[video], classes=()), folder, short=4, long=8)
    ...     videos.videos[0].frames[0].shape
    torch.Size([3, 4, 8])
    """
    step = ResizeWithin(short=short, long=long)
    return replace(videos, videos=_ShrunkVideos(videos.videos, Path(folder) / f"{short}x{long}", step))


class _FrameCache:
    """Decoded frames by (video, frame), at most `most` bytes; the least recently used are dropped first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0  # bytes of all frames
        self.frames: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def get(self, key: tuple[int, int], frames: Sequence[Tensor]) -> Tensor:
        if key in self.frames:
            self.frames.move_to_end(key)
            return self.frames[key]
        frame = frames[key[1]]
        self.frames[key] = frame
        self.size += frame.nbytes
        while self.size > self.most:
            _, dropped = self.frames.popitem(last=False)
            self.size -= dropped.nbytes
        return frame

    def __getstate__(self) -> dict[str, object]:
        return {"most": self.most, "size": 0, "frames": OrderedDict()}  # each worker starts with an empty cache


class _CachedFrames(LazyFrames):
    def __init__(self, frames: Sequence[Tensor], video: int, cache: _FrameCache) -> None:
        self.frames = frames
        self.video = video  # its position in the set
        self.cache = cache

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, t: int) -> Tensor:
        return self.cache.get((self.video, t), self.frames)


class _CachedVideos(LazyVideos[int]):
    def __init__(self, videos: Sequence[Video], cache: _FrameCache) -> None:
        super().__init__(range(len(videos)))
        self.videos = videos
        self.cache = cache

    def make(self, entry: int) -> Video:
        video = self.videos[entry]
        return replace(video, frames=_CachedFrames(video.frames, entry, self.cache))


class _ShrunkFrames(LazyFrames):
    def __init__(self, frames: Sequence[Tensor], folder: Path, size: tuple[int, int]) -> None:
        self.frames = frames
        self.folder = folder
        self.size = size

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, t: int) -> Tensor:
        path = self.folder / f"{t:06d}.jpg"
        if not path.is_file():
            self._write(t, path)
        return torch.from_numpy(decode_rgb(read_image_file(path), str(path), size=self.size)).permute(2, 0, 1)

    def _write(self, t: int, path: Path) -> None:
        image = self.frames[t].permute(1, 2, 0).numpy()
        small = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)
        _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        with replacing(path) as temporary:
            temporary.write_bytes(data.tobytes())


class _ShrunkVideos(LazyVideos[int]):
    cache_size = 4096  # shrinking the masks of a video again for every clip would cost more than it saves

    def __init__(self, videos: Sequence[Video], folder: Path, step: ResizeWithin) -> None:
        super().__init__(range(len(videos)))
        self.videos = videos
        self.folder = folder
        self.step = step

    def make(self, entry: int) -> Video:
        video = self.videos[entry]
        size = self.step.plan(video.size, 1, np.random.default_rng(0)).size
        if size[0] >= video.size[0]:
            return video

        name = clean_name(video.id.replace("/", "-").replace("\\", "-"), "video names")
        frames = _ShrunkFrames(video.frames, self.folder / name, size)
        tracks = None
        if video.tracks is not None:
            tracks = tuple(_shrink_track(track, size) for track in video.tracks)
        return replace(video, size=size, frames=frames, tracks=tracks)


def _shrink_track(track: Track, size: tuple[int, int]) -> Track:
    rles = tuple(None if rle is None else _shrink_mask(rle, size) for rle in track.rles)
    return replace(track, rles=rles)


def _shrink_mask(rle: masks.RLE, size: tuple[int, int]) -> masks.RLE | None:
    small = cv2.resize(masks.decode([rle])[0], size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return masks.encode(small[None])[0] if small.any() else None
