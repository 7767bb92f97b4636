"""Open a file, a folder of images or an array as a `Video`. `open_stream` opens cameras and network streams."""

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
LARGEST_VIDEO = 1 << 44  # bytes
DEFAULT_FPS = 25.0  # if a source has no times

Source = str | Path | np.ndarray | Tensor | Video | int  # camera indices and addresses give an InputError


def open_video(source: Source, *, id: str | None = None, fps: float | None = None) -> Video:
    """Open a video; its frames are decoded on access.

    High dynamic range (PQ, HLG) is converted to sRGB, and interlaced frames are deinterlaced. Warns
    with TruncatedVideoWarning if a file ends early or has frames that do not decode; the others are
    used.

    Args:
        source: One of
            - a path to a video file, of any format that FFmpeg decodes;
            - a path to a folder of images of one size, which are sorted in natural order;
            - a path to an image file; each picture of an animated one is a frame;
            - a uint8 array [T, H, W, 3] or tensor [T, 3, H, W], RGB;
            - a Video, which is returned as it is, with `id` and `fps` if given.
        id: By default the name of the file or folder.
        fps: Replaces the times of a file. Images and arrays have 25 frames a second by default.

    Raises:
        InputError: if the source cannot be read.

    Example:
        >>> from tubelet.video.reader import open_video
        >>> video = open_video(np.zeros((5, 4, 6, 3), np.uint8), id="black", fps=10)
        >>> video
        Video(id='black', size=(4, 6), frames=5, fps=10, tracks=unknown)
        >>> video.frames[2].shape
        torch.Size([3, 4, 6])
    """
    rate = None if fps is None else positive("frame rate", fps)
    video = _open(source, id)
    return video if rate is None else replace(video, fps=rate, times=None)


def is_live(source: object) -> bool:
    """Whether a source is a camera index or the address of a stream, for `open_stream` instead of `open_video`.

    Example:
        >>> from tubelet.video.reader import is_live
        >>> is_live(0), is_live("rtsp://camera.local/1"), is_live("dog.mp4")
        (True, True, False)
    """
    is_camera = isinstance(source, int) and not isinstance(source, bool)
    is_address = isinstance(source, str) and "://" in source
    return is_camera or is_address


def natural_order(path: Path) -> list[str | int]:
    """Sort key of file names with numbers: frame2.png before frame10.png.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.video.reader import natural_order
        >>> paths = [Path("frame10.png"), Path("frame2.png")]
        >>> [path.name for path in sorted(paths, key=natural_order)]
        ['frame2.png', 'frame10.png']
    """
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
    name = id or path.stem
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _open_animated(path, name) or _open_images([path], name)

    file = open_file(path)
    return Video(
        id=name,
        size=file.frames.size,
        frames=file.frames,
        fps=file.fps,
        times=file.times,
        pixel_aspect=file.pixel_aspect,
    )


def _open_animated(path: Path, id: str) -> Video | None:
    """The video of an image file with several pictures; None if it has one."""
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
