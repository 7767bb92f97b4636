"""Read image files with several pictures as videos: animated PNG and WebP, and multi-page TIFF."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.core.untrusted.images import picture_samples
from tubelet.video.frames import LazyFrames, bits_held, to_eight_bits
from tubelet.video.shortage import TruncatedVideoWarning

FORMATS = ("PNG", "WEBP", "TIFF")  # not JPEG: its other pictures are previews, or the second view of a stereo pair
SHORTEST = 0.011  # seconds; pictures with a shorter duration last USUAL, as in browsers
USUAL = 0.1


class Pictures(NamedTuple):
    """The facts about an image file that are known once all its pictures are decoded.

    Example:
        >>> from tubelet.video.animated import Pictures
        >>> Pictures(first=0, size=(4, 6), durations=[0.1, 0.1], bits=8, promised=2, is_timed=True).size
        (4, 6)
    """

    first: int  # index of the first frame: 1 if a PNG starts with a fallback for programs without animation
    size: tuple[int, int]  # height, width
    durations: list[float]  # seconds, of each picture before the first that does not decode or has another size
    bits: int  # per sample
    promised: int  # number of pictures in the header
    is_timed: bool  # False for TIFF


class AnimatedFrames(LazyFrames):
    """The pictures of one image file as frames.

    Iterating decodes each picture once; reading picture t also decodes the pictures before it. Made
    by `open_animated`.
    """

    def __init__(self, path: Path, pictures: Pictures) -> None:
        self._path = path
        self._pictures = pictures
        self.size = pictures.size

    def __len__(self) -> int:
        return len(self._pictures.durations)

    def read(self, t: int) -> Tensor:
        return next(self._from(t))

    def __iter__(self) -> Iterator[Tensor]:
        return self._from(0)

    def _from(self, start: int) -> Iterator[Tensor]:
        t = start
        try:
            with Image.open(self._path, formats=FORMATS) as image:
                for t in range(start, len(self)):
                    image.seek(self._pictures.first + t)
                    yield self._frame(image)
        except Exception:  # broken files make Pillow raise many types of errors
            raise InputError(f"{self._path}: frame {t} cannot be decoded any more; was the file changed?") from None

    def _frame(self, image: Image.Image) -> Tensor:
        if (image.height, image.width) != self.size:
            raise ValueError("another size")
        samples = to_eight_bits(picture_samples(image), self._pictures.bits)
        return torch.from_numpy(samples).permute(2, 0, 1)


def open_animated(path: Path) -> tuple[AnimatedFrames, tuple[float, ...] | None] | None:
    """Open an image file with several pictures.

    Decodes all pictures once, because the file states each duration beside its picture. Warns with
    TruncatedVideoWarning if a picture does not decode; the video then ends before it.

    Returns:
        The frames and their start times in seconds (None for TIFF), or None if the file has a
        single picture or is not an image.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tubelet.video.animated import open_animated
        >>> pictures = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue", "lime")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "moving.png")
        ...     pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=250)
        ...     frames, times = open_animated(path)
        ...     frames[1].shape, times
        (torch.Size([3, 4, 6]), (0.0, 0.25, 0.5))
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            count = getattr(image, "n_frames", 1)  # missing for formats with a single picture
            if count == 1:
                return None
            pictures = _decode_all(image, count)
    except Exception:  # broken files make Pillow raise many types of errors
        return None  # the caller then reads it as a still image, which says what is wrong

    length = len(pictures.durations)
    if length == 0:
        return None
    if length < pictures.promised:
        what = f"is incomplete, {length} of {pictures.promised} pictures are in the file"
        warnings.warn(f"{path}: {what}", TruncatedVideoWarning, stacklevel=4)

    frames = AnimatedFrames(path, pictures)
    starts = np.cumsum([0.0, *pictures.durations[:-1]])
    return frames, tuple(starts.tolist()) if pictures.is_timed else None


def _decode_all(image: Image.Image, count: int) -> Pictures:
    """Decode up to the first picture that is broken or of another size."""
    width, height = image.size
    first = int(bool(image.info.get("default_image")))
    promised = count - first

    durations: list[float] = []
    bits = 8
    for t in range(promised):
        try:
            image.seek(first + t)
            bits = max(bits, bits_held(picture_samples(image)))
        except Exception:  # as in open_animated
            break
        if image.size != (width, height):
            break
        durations.append(_seconds(image))

    return Pictures(
        first=first,
        size=(height, width),
        durations=durations,
        bits=bits,
        promised=promised,
        is_timed=image.format != "TIFF",
    )


def _seconds(image: Image.Image) -> float:
    """The duration of the current picture."""
    seconds = float(image.info.get("duration") or 0) / 1000
    return seconds if seconds >= SHORTEST else USUAL
