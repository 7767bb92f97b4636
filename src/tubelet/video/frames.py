"""Lazy sequences of frames: `frames[t]` reads one uint8 [3, H, W] RGB tensor, iterating reads in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import cv2
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from tubelet.core.errors import InputError

EXIF_ORIENTATION = 0x0112
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH, PNG_COLOUR = 24, 25  # bytes of a PNG that tell its bits a sample and whether it has colours
TIFF_BITS = 0x0102
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras give; a file of 16 bits may hold any of them
LOOKED_AT = 8  # images of a folder that decide for all how many bits they hold


class LazyFrames(Sequence[Tensor], ABC):
    """What every source shares: negative positions, slices (a list), and a clear IndexError."""

    @abstractmethod
    def read(self, t: int) -> Tensor:
        """Frame t, 0 <= t < len, as uint8 [3, H, W] RGB."""

    @overload
    def __getitem__(self, t: int) -> Tensor: ...
    @overload
    def __getitem__(self, t: slice) -> list[Tensor]: ...
    def __getitem__(self, t: int | slice) -> Tensor | list[Tensor]:
        if isinstance(t, slice):
            return [self.read(position) for position in range(len(self))[t]]
        if not -len(self) <= t < len(self):
            raise IndexError(f"frame {t} of a video of {len(self)} frames")
        return self.read(int(t) % len(self))


class ArrayFrames(LazyFrames):
    """Frames that lie in memory: uint8 numpy [T, H, W, 3] or tensor [T, 3, H, W]. Each frame is a view, not a copy.

    Raises InputError for another shape or type, and for no frames at all.
    """

    def __init__(self, frames: np.ndarray | Tensor) -> None:
        is_array = isinstance(frames, np.ndarray)
        form, channels = ("[T, H, W, 3]", 3) if is_array else ("[T, 3, H, W]", 1)
        given = f"{type(frames).__name__} of {frames.dtype} {list(frames.shape)}"
        if frames.ndim != 4 or frames.shape[channels] != 3 or frames.dtype not in (np.uint8, torch.uint8):
            raise InputError(f"frames in memory: expected uint8 {form} RGB, got {given}")
        if 0 in frames.shape:
            raise InputError(f"frames in memory: expected at least one frame, got {given}")
        self._frames = frames

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self._frames.shape[1:3] if isinstance(self._frames, np.ndarray) else self._frames.shape[2:]
        return int(height), int(width)

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, t: int) -> Tensor:
        if isinstance(self._frames, Tensor):
            return self._frames[t]
        frame = self._frames[t]
        # torch knows neither read-only memory (a file mapped into memory) nor negative strides (a flipped view)
        if not frame.flags.writeable or min(frame.strides) < 0:
            frame = np.array(frame)
        return torch.from_numpy(frame).permute(2, 0, 1)


class ImageFrames(LazyFrames):
    """Image files as frames; nothing is read before it is asked for.

    `size` is the (height, width) that every image must have. Reading raises InputError, which names the file, for an
    image that is missing, broken or of another size. Images of 16 bits may hold 10 or 12 alone: a few of them decide
    for all, so that brightness does not flicker.
    """

    def __init__(self, paths: Sequence[Path], size: tuple[int, int]) -> None:
        self._paths = tuple(paths)
        self.size = size

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, t: int) -> Tensor:
        path = self._paths[t]
        check_size(path, self.size, expected_by="this video")
        samples = read_samples(path)
        bits = self._bits if samples.dtype == np.uint16 else 8
        return torch.from_numpy(to_eight_bits(samples, bits)).permute(2, 0, 1)

    @cached_property
    def _bits(self) -> int:
        """How many bits the images hold, judged by some from the first to the last."""
        rows = np.linspace(0, len(self) - 1, min(len(self), LOOKED_AT)).round().astype(int)
        return max(bits_held(read_samples(self._paths[row])) for row in rows)


def check_size(path: Path, size: tuple[int, int], *, expected_by: str) -> None:
    """Raise InputError, which says both sizes, unless the image at `path` is of `size` (height, width)."""
    found = image_size(path)
    if found != size:
        raise InputError(f"{path}: is {found[1]}x{found[0]} pixels where {expected_by} has {size[1]}x{size[0]}")


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as it is shown, from its header alone; raises InputError where that is broken."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            # only a camera's JPEG is stored lying on its side; asking a PNG would decode all of it
            turned = image.format in ("JPEG", "MPO") and image.getexif().get(EXIF_ORIENTATION, 1) >= 5
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not an image that can be read ({_reason(error)})") from None
    return (width, height) if turned else (height, width)


def read_image(path: Path) -> Tensor:
    """An image file -> uint8 [3, H, W] RGB, turned as its camera was held; raises InputError where it is broken."""
    samples = read_samples(path)
    return torch.from_numpy(to_eight_bits(samples, bits_held(samples))).permute(2, 0, 1)


def read_samples(path: Path) -> np.ndarray:
    """An image file -> RGB [H, W, 3], upright, uint8 or, where it has 16 bits, uint16; raises InputError."""
    try:
        data = np.fromfile(path, np.uint8)
        is_jpeg = data[:2].tobytes() == b"\xff\xd8"
        return _decode_jpeg(data) if is_jpeg else _decode_other(path, data)
    except (cv2.error, UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not an image that can be read ({_reason(error)})") from None


def bits_held(samples: np.ndarray) -> int:
    """The bits a sample that the largest one needs, as far as cameras give such: 8, 10, 12, 14 or 16.

    A PNG can say so itself, but where it does, its samples were stretched to 16 bits already.
    """
    largest = int(samples.max(initial=0))
    return next(bits for bits in DEPTHS if largest < 1 << bits)


def to_eight_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples of so many bits -> uint8; larger ones become white."""
    return samples if samples.dtype == np.uint8 else np.minimum(samples >> (bits - 8), 255).astype(np.uint8)


def picture_samples(image: Image.Image) -> np.ndarray:
    """The current picture of an open file -> RGB [H, W, 3], uint8 or, where it is grey of 16 bits, uint16.

    Raises ValueError for samples of 32 bits, which have no white.
    """
    if image.mode == "F":
        raise ValueError("expected 8 or 16 bits a sample, got floating point")
    if not image.mode.startswith("I"):
        return np.array(image.convert("RGB"))
    grey = np.asarray(image)
    if grey.min(initial=0) < 0 or grey.max(initial=0) >= 1 << 16:
        raise ValueError("expected 8 or 16 bits a sample, got 32")
    return np.repeat(grey.astype(np.uint16)[..., None], 3, axis=2)


def _decode_jpeg(data: np.ndarray) -> np.ndarray:
    # OpenCV reads a JPEG three times faster than Pillow
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("the file is broken or cut short")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode_other(path: Path, data: np.ndarray) -> np.ndarray:
    with Image.open(path) as image:
        if not _has_deep_colours(image, data):
            return picture_samples(image)
    # Pillow would keep the upper 8 of the 16 bits, where a camera's 12 leave almost nothing
    deep = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if deep is None:
        raise ValueError("the file is broken or cut short")
    return cv2.cvtColor(deep, cv2.COLOR_BGR2RGB)


def _has_deep_colours(image: Image.Image, data: np.ndarray) -> bool:
    """Whether a PNG or TIFF holds 16 bits a sample of more than one channel."""
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(TIFF_BITS, ())
        return len(bits) > 1 and max(bits) == 16
    is_png = data[: len(PNG_SIGNATURE)].tobytes() == PNG_SIGNATURE and len(data) > PNG_COLOUR
    return is_png and data[PNG_DEPTH] == 16 and bool(data[PNG_COLOUR] & 2)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its format is unknown"
    return getattr(error, "strerror", None) or str(error)
