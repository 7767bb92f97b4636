"""Opens whatever holds frames as a `Video`: a file, a folder of images, an array. `open_stream` is for cameras."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from tubelet.core.arguments import positive
from tubelet.core.errors import InputError
from tubelet.core.types import Video
from tubelet.core.untrusted.files import as_path, check_file, exists
from tubelet.video.animated import open_animated
from tubelet.video.decoding import FileFrames, SlowAccessWarning, open_file
from tubelet.video.frames import ArrayFrames, ImageFrames, check_size, image_size, read_image
from tubelet.video.live import LiveVideo, open_stream
from tubelet.video.shortage import TruncatedVideoWarning

__all__ = [
    "IMAGE_SUFFIXES",
    "ArrayFrames",
    "FileFrames",
    "ImageFrames",
    "LiveVideo",
    "SlowAccessWarning",
    "TruncatedVideoWarning",
    "is_live",
    "natural_order",
    "open_stream",
    "open_video",
    "read_image",
]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
LARGEST_VIDEO = 1 << 44  # bytes of a file
DEFAULT_FPS = 25.0  # of frames that carry no time

Source = str | Path | np.ndarray | Tensor | Video | int  # int and addresses are for streams, and refused as videos


def open_video(source: Source, *, id: str | None = None, fps: float | None = None) -> Video:
    """A video whose frames are decoded only when asked for.

    `source` is a path to a video file (whatever FFmpeg decodes), to a folder of images (in natural order, all of one
    size) or to one image (each picture of an animated one is a frame), a uint8 array [T, H, W, 3] or tensor
    [T, 3, H, W] in RGB, or a Video, which stays as it is. `id` defaults to the name of the file or folder. `fps`
    replaces the times that a file tells; images and arrays have 25 frames a second where it is not given.

    High dynamic range (PQ, HLG) is shown as sRGB, and the two fields of an interlaced frame as one moment.

    Raises InputError, in one line, for anything that cannot be read. Warns with TruncatedVideoWarning about a file
    that ends early or has frames that do not decode; the others are kept.
    """
    rate = None if fps is None else positive("frame rate", fps)
    video = _open(source, id)
    return video if rate is None else replace(video, fps=rate, times=None)


def is_live(source: object) -> bool:
    """Whether a source is a camera index or the address of a stream: for `open_stream`, not for `open_video`."""
    return (isinstance(source, int) and not isinstance(source, bool)) or (isinstance(source, str) and "://" in source)


def natural_order(path: Path) -> list[str | int]:
    """A sorting key by which frame2.png comes before frame10.png."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name.lower())]


def _open(source: Source, id: str | None) -> Video:
    if isinstance(source, Video):
        return source if id is None else replace(source, id=id)
    if isinstance(source, np.ndarray | Tensor):
        frames = ArrayFrames(source)
        return Video(id=id or "video", size=frames.size, frames=frames, fps=DEFAULT_FPS)
    if is_live(source):
        raise InputError(f"{source}: a live source has no end and no length; read it with a stream instead")
    if not isinstance(source, str | Path):
        expected = "a path, an array [T, H, W, 3] or a tensor [T, 3, H, W]"
        raise InputError(f"a video must be {expected}, got {type(source).__name__}")
    return _open_path(as_path(source, "a video"), id)


def _open_path(path: Path, id: str | None) -> Video:
    if not exists(path):
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        return _open_images(_images_in(path), id or path.resolve().name)
    check_file(path, largest=LARGEST_VIDEO)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _open_animated(path, id or path.stem) or _open_images([path], id or path.stem)
    file = open_file(path)
    return Video(
        id=id or path.stem,
        size=file.frames.size,
        frames=file.frames,
        fps=file.fps,
        times=file.times,
        pixel_aspect=file.pixel_aspect,
    )


def _open_animated(path: Path, id: str) -> Video | None:
    """An image file that holds several pictures; None where it holds one."""
    opened = open_animated(path)
    if opened is None:
        return None
    frames, times = opened
    fps = (len(times) - 1) / times[-1] if times and len(times) > 1 else DEFAULT_FPS
    return Video(id=id, size=frames.size, frames=frames, fps=fps, times=times)


def _images_in(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")
    images = sorted(files, key=natural_order)
    if not images:
        raise InputError(f"{folder}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return images


def _open_images(paths: list[Path], id: str) -> Video:
    size = image_size(paths[0])
    for path in paths[1:]:
        check_size(path, size, expected_by=paths[0].name)
    return Video(id=id, size=size, frames=ImageFrames(paths, size), fps=DEFAULT_FPS)
