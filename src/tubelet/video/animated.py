"""Image files that hold several pictures: animated PNG and WebP, and TIFFs of several pages."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.core.untrusted.images import picture_samples
from tubelet.video.frames import LazyFrames, bits_held, to_eight_bits
from tubelet.video.shortage import TruncatedVideoWarning

FORMATS = ("PNG", "WEBP", "TIFF")  # not a JPEG's: its other pictures are previews, or a second eye's
SHORTEST = 0.011  # seconds; what claims less is shown for USUAL, as browsers do
USUAL = 0.1
BROKEN = (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError)


class Pictures(NamedTuple):
    """What decoding all pictures of a file once tells."""

    first: int  # 1 where a PNG begins with a still for programs that know no animation
    size: tuple[int, int]  # height, width
    durations: list[float]  # seconds, of each picture that decodes and has the size of the first
    bits: int  # a sample
    promised: int  # pictures, by the header
    is_timed: bool


class AnimatedFrames(LazyFrames):
    """The pictures of one image file. Iterating decodes each once; reading picture t decodes those before it too."""

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
        except (*BROKEN, EOFError):
            raise InputError(f"{self._path}: frame {t} cannot be decoded any more; was the file changed?") from None

    def _frame(self, image: Image.Image) -> Tensor:
        if (image.height, image.width) != self.size:
            raise ValueError("another size")
        return torch.from_numpy(to_eight_bits(picture_samples(image), self._pictures.bits)).permute(2, 0, 1)


def open_animated(path: Path) -> tuple[AnimatedFrames, tuple[float, ...] | None] | None:
    """Frames and the seconds at which they begin (None for a TIFF); None for a still, and for what is no image.

    All pictures are decoded once, since only then their durations are known. Warns with TruncatedVideoWarning where
    some do not decode; the ones before are kept.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            count = getattr(image, "n_frames", 1)  # formats that hold one picture alone have no such name
            if count == 1:
                return None
            pictures = _decode_all(image, count)
    except BROKEN:
        return None  # reading it as a still says what is wrong with it
    length = len(pictures.durations)
    if length == 0:
        return None
    if length < pictures.promised:
        what = f"is incomplete, {length} of {pictures.promised} pictures are in the file"
        warnings.warn(f"{path}: {what}", TruncatedVideoWarning, stacklevel=4)
    starts = np.cumsum([0.0, *pictures.durations[:-1]])
    return AnimatedFrames(path, pictures), tuple(starts.tolist()) if pictures.is_timed else None


def _decode_all(image: Image.Image, count: int) -> Pictures:
    size = image.size
    first = int(bool(image.info.get("default_image")))
    promised = count - first
    durations: list[float] = []
    bits = 8
    for t in range(promised):
        try:
            image.seek(first + t)
            bits = max(bits, bits_held(picture_samples(image)))
        except (*BROKEN, EOFError):
            break
        if image.size != size:
            break
        durations.append(_seconds(image))
    return Pictures(first, (size[1], size[0]), durations, bits, promised, image.format != "TIFF")


def _seconds(image: Image.Image) -> float:
    """How long the current picture is shown."""
    seconds = float(image.info.get("duration") or 0) / 1000
    return seconds if seconds >= SHORTEST else USUAL
