"""Open a file, a folder of images, an address or frames in memory as a `Video`.

`open_stream` opens cameras and network streams.
"""

from __future__ import annotations

import glob
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tubelet.core import remote
from tubelet.core.arguments import positive
from tubelet.core.atomic import scratch_name, sweep
from tubelet.core.errors import FormatError, InputError
from tubelet.core.types import Video
from tubelet.core.untrusted.addresses import fetch, is_address, is_web_address, name_of
from tubelet.core.untrusted.files import as_path, check_file, exists
from tubelet.core.untrusted.image_headers import read_header
from tubelet.video.animated import open_animated
from tubelet.video.decoding import FileFrames, SlowAccessWarning, open_file
from tubelet.video.frames import ArrayFrames, ImageFrames, check_size, image_size, read_image
from tubelet.video.in_memory import Picture, as_frames, collect, is_picture
from tubelet.video.live import LiveVideo, open_stream
from tubelet.video.shortage import TruncatedVideoWarning
from tubelet.video.trimming import trim

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "ArrayFrames",
    "FileFrames",
    "ImageFrames",
    "LiveVideo",
    "SlowAccessWarning",
    "TruncatedVideoWarning",
    "is_live",
    "natural_order",
    "open_remote",
    "open_stream",
    "open_video",
    "read_image",
]

_VIDEO_SUFFIXES = ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .wmv .flv .ogv .3gp .gif"
VIDEO_SUFFIXES = frozenset(_VIDEO_SUFFIXES.split())
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
LARGEST_VIDEO = 1 << 44  # bytes
DEFAULT_FPS = 25.0  # if a source has no times

# frames in memory: one image, an array or tensor of all, a list or a generator of images
Source = str | Path | Picture | Iterable[Picture] | list[str] | list[Path] | Video | int


def open_video(
    source: Source,
    *,
    id: str | None = None,
    fps: float | None = None,
    start: float | None = None,
    end: float | None = None,
    every: int = 1,
) -> Video:
    """Open a video; its frames are decoded on access.

    High dynamic range (PQ, HLG) is converted to sRGB, and interlaced frames are deinterlaced. Warns
    with TruncatedVideoWarning if a file ends early or has frames that do not decode; the others are
    used.

    Args:
        source: One of
            - a path to a video file, of any format that FFmpeg decodes;
            - a path to a folder of images of one size, which are sorted in natural order;
            - a path to an image file; each picture of an animated one is a frame;
            - a pattern such as "frames/*.png" of images, sorted likewise, or of one video;
            - a list of paths to images, in the order of the list;
            - the http or https address of such a file, which is fetched first;
            - a uint8 array [T, H, W, 3] or tensor [T, 3, H, W], RGB (OpenCV's frames are BGR: frame[..., ::-1]);
            - one image: such an array or tensor without T, or a Pillow image;
            - a list or generator of such images, all of one size;
            - a Video, which is returned as it is, with `id` and `fps` if given.
        id: By default the name of the file or folder.
        fps: Replaces the times of a file. Images and arrays have 25 frames a second by default.
        start, end: Take the part between these times (seconds), `end` not included.
        every: Take every `every`-th frame of it. Frames keep their times.

    Raises:
        InputError: if the source cannot be read.
        ConfigError: for a part without a frame.

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
    if rate is not None:
        video = replace(video, fps=rate, times=None)
    return trim(video, start=start, end=end, every=every)


def open_remote(address: str) -> Video:
    """Open a video in an object store or on another machine; it is fetched first.

    Not a part of `open_video`: a data set or a request to a server may name sources too, and must not reach there.
    Raises InputError if it cannot be read.

    Example:
        >>> import tempfile
        >>> from tubelet.video.reader import open_remote
        >>> from tubelet.video.writer import VideoWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with VideoWriter(f"{folder}/dog.mp4", size=(48, 64), fps=10) as writer:
        ...         writer.write(np.zeros((48, 64, 3), np.uint8))
        ...     open_remote(f"file://{folder}/dog.mp4").id
        'dog'
    """
    return _open_fetched(partial(remote.fetch, address, largest=LARGEST_VIDEO), name_of(address))


def is_live(source: object) -> bool:
    """Whether a source is a camera index or the address of a stream, for `open_stream` instead of `open_video`.

    Example:
        >>> from tubelet.video.reader import is_live
        >>> is_live(0), is_live("rtsp://camera.local/1"), is_live("dog.mp4")
        (True, True, False)
    """
    is_camera = isinstance(source, int) and not isinstance(source, bool)
    return is_camera or is_address(source)


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


def _open(source: Any, id: str | None) -> Video:
    if isinstance(source, Video):
        return source if id is None else replace(source, id=id)
    if is_picture(source):
        return _of_frames(as_frames(source), id)
    if is_web_address(source):
        return _open_address(source, id)
    if is_live(source):
        raise InputError(
            f"{source}: a live source has no end and no length; read it with `tubelet stream` or tubelet.stream"
        )
    if isinstance(source, str | Path):
        return _open_path(as_path(source, "a video"), id)
    if isinstance(source, list | tuple) and source and all(isinstance(item, str | Path) for item in source):
        return _open_list([as_path(item, "an image") for item in source], id)
    if isinstance(source, list | tuple | Iterator):
        return _of_frames(collect(source), id)

    expected = "a path, an array [T, H, W, 3], a tensor [T, 3, H, W] or a list of images"
    raise InputError(f"a video must be {expected}, got {type(source).__name__}")


def _of_frames(frames: Any, id: str | None) -> Video:
    return Video(id=id or "video", size=frames.size, frames=frames, fps=DEFAULT_FPS)


def _open_path(path: Path, id: str | None) -> Video:
    if not exists(path):
        return _open_pattern(str(path), id)
    if path.is_dir():
        return _open_images(_images_in(path), id or path.resolve().name)

    check_file(path, largest=LARGEST_VIDEO)
    return _open_file(path, id or path.stem, is_image=path.suffix.lower() in IMAGE_SUFFIXES)


def _open_file(path: Path, id: str, *, is_image: bool) -> Video:
    if is_image:
        return _open_animated(path, id) or _open_images([path], id)

    file = open_file(path)
    return Video(
        id=id,
        size=file.frames.size,
        frames=file.frames,
        fps=file.fps,
        times=file.times,
        pixel_aspect=file.pixel_aspect,
    )


def _open_pattern(pattern: str, id: str | None) -> Video:
    """The images, or the one video, that a pattern such as "frames/*.png" names."""
    if not glob.has_magic(pattern):
        raise InputError(f"{pattern}: no such file or folder")
    matches = [Path(match) for match in glob.glob(pattern, recursive=True)]
    files = sorted((path for path in matches if path.is_file()), key=natural_order)
    if not files:
        raise InputError(f"{pattern}: no file matches; patterns are relative to {Path.cwd()}")
    return _open_list(files, id or (files[0].absolute().parent.name if len(files) > 1 else None))


def _open_list(paths: list[Path], id: str | None) -> Video:
    """One video of several images, or of one file."""
    if len(paths) == 1:
        return _open_path(paths[0], id)
    if not all(path.suffix.lower() in IMAGE_SUFFIXES for path in paths):
        raise InputError(
            f"{paths[0]} and {len(paths) - 1} more: several videos; predict each, "
            "[tubelet.predict(model, path) for path in paths], or all with `tubelet batch`"
        )
    for path in paths:
        check_file(path)
    return _open_images(paths, id or paths[0].absolute().parent.name)


def _open_address(address: str, id: str | None) -> Video:
    return _open_fetched(partial(fetch, address), id or name_of(address))


def _open_fetched(fetch: Callable[[Path], None], id: str) -> Video:
    """Fetch a file and open it by its content; it is removed with the last reference to its frames."""
    temporary = Path(tempfile.gettempdir())
    sweep(temporary)  # what processes that were killed have fetched
    folder = scratch_name(temporary / "tubelet-fetched")
    folder.mkdir(mode=0o700)
    try:
        path = folder / "file"
        fetch(path)
        video = _open_file(path, id, is_image=_holds_image(path))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(video.frames, shutil.rmtree, folder, ignore_errors=True)
    return video


def _holds_image(path: Path) -> bool:
    """Whether a file's content is an image; a GIF is read as a video."""
    try:
        return read_header(path, str(path)).form != "GIF"
    except (InputError, FormatError):
        return False


def _open_animated(path: Path, id: str) -> Video | None:
    """The video of an image file with several pictures; None if it has one."""
    opened = open_animated(path)
    if opened is None:
        return None

    frames, times = opened
    fps = (len(times) - 1) / times[-1] if times and len(times) > 1 else DEFAULT_FPS
    return Video(id=id, size=frames.size, frames=frames, fps=fps, times=times)


def _images_in(folder: Path) -> list[Path]:
    shown = sorted((path for path in folder.iterdir() if path.name[0] != "."), key=natural_order)
    images = [path for path in shown if path.suffix.lower() in IMAGE_SUFFIXES]
    if images:
        return images

    videos = sum(path.suffix.lower() in VIDEO_SUFFIXES for path in shown)
    if videos:
        raise InputError(f"{folder}: no images but {videos} videos in it; `tubelet predict {folder}` takes them all")
    raise InputError(f"{folder}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")


def _open_images(paths: list[Path], id: str) -> Video:
    size = image_size(paths[0])
    for path in paths[1:]:
        check_size(path, size, expected_by=paths[0].name)
    return Video(id=id, size=size, frames=ImageFrames(paths, size), fps=DEFAULT_FPS)
