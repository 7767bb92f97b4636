"""Lazy sequences of frames: `frames[t]` reads one frame as uint8 [3, H, W] RGB; iterating reads them in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.core.untrusted import images

DEPTHS = (8, 10, 12, 14, 16)  # bits per sample of cameras; a 16-bit file may have any of them
LOOKED_AT = 8  # images of a folder from which its bit depth is inferred


class LazyFrames(Sequence[Tensor], ABC):
    """Base class of all frame sources; adds negative indices, slices (a list) and a clear IndexError.

    Example:
        >>> from tubelet.video.frames import LazyFrames
        >>> class Black(LazyFrames):
        ...     def __len__(self):
        ...         return 10
        ...     def read(self, t):
        ...         return torch.zeros(3, 4, 6, dtype=torch.uint8)
        >>> Black()[-1].shape, len(Black()[2:5])
        (torch.Size([3, 4, 6]), 3)
    """

    @abstractmethod
    def read(self, t: int) -> Tensor:
        """Read frame t, 0 <= t < len, as uint8 [3, H, W] RGB."""

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
    """Frames in memory: a uint8 array [T, H, W, 3] or tensor [T, 3, H, W], RGB.

    A frame is a view of them, not a copy, where torch allows it. Raises InputError for another shape
    or type, and for no frames.

    Example:
        >>> from tubelet.video.frames import ArrayFrames
        >>> frames = ArrayFrames(np.zeros((5, 4, 6, 3), np.uint8))
        >>> frames[0].shape, frames.size
        (torch.Size([3, 4, 6]), (4, 6))
    """

    def __init__(self, frames: np.ndarray | Tensor) -> None:
        is_array = isinstance(frames, np.ndarray)
        shape, channels = ("[T, H, W, 3]", 3) if is_array else ("[T, 3, H, W]", 1)
        given = f"{type(frames).__name__} of {frames.dtype} {list(frames.shape)}"
        if frames.ndim != 4 or frames.shape[channels] != 3 or frames.dtype not in (np.uint8, torch.uint8):
            raise InputError(f"frames in memory: expected uint8 {shape} RGB, got {given}{_remedy(frames)}")

        if isinstance(frames, Tensor) and (frames.layout != torch.strided or frames.device.type == "meta"):
            raise InputError(f"frames in memory: expected a dense tensor that holds values, got {given}")
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
        # torch supports neither read-only memory (a memory-mapped file) nor negative strides (a flipped view)
        if not frame.flags.writeable or min(frame.strides) < 0:
            frame = np.array(frame)
        return torch.from_numpy(frame).permute(2, 0, 1)


def _remedy(frames: np.ndarray | Tensor) -> str:
    """What makes frames of these, if it is known."""
    if frames.ndim != 4:
        return ""
    first, last = frames.shape[1], frames.shape[3]
    is_array = isinstance(frames, np.ndarray)
    channels, other = (last, first) if is_array else (first, last)
    if channels == 3:
        return "; scale values to 0 to 255 and convert them to uint8"
    if other == 3:
        return f"; {'frames.transpose(0, 2, 3, 1)' if is_array else 'frames.permute(0, 3, 1, 2)'} moves the channels"
    if channels == 4:
        return "; leave out the fourth channel"
    return ""


class ImageFrames(LazyFrames):
    """Image files as frames, read on access.

    A 16-bit file may have only 10 or 12 bits of content. The bit depth of all images is inferred
    from a few of them, so that brightness does not flicker.

    Args:
        paths: The files, in time order.
        size: Height and width that every image must have.

    Raises:
        InputError: when reading, names the file, if an image is missing, broken or of another size.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tubelet.video.frames import ImageFrames
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "0.png")
        ...     Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
        ...     ImageFrames([path], size=(4, 6))[0].shape
        torch.Size([3, 4, 6])
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
        """Bit depth of the images, inferred from a few of them, spread from the first to the last."""
        positions = np.linspace(0, len(self) - 1, min(len(self), LOOKED_AT)).round().astype(int)
        return max(bits_held(read_samples(self._paths[position])) for position in positions)


def check_size(path: Path, size: tuple[int, int], *, expected_by: str) -> None:
    """Raise InputError, with both sizes, unless the image has this `size` (height, width).

    Args:
        path: The image file.
        size: Expected height and width.
        expected_by: What has that size, for the message.
    """
    actual = image_size(path)
    if actual != size:
        raise InputError(f"{path}: is {actual[1]}x{actual[0]} pixels where {expected_by} has {size[1]}x{size[0]}")


def image_size(path: Path) -> tuple[int, int]:
    """Read the height and width of an image, as displayed, from its header.

    Raises InputError if the header is broken.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tubelet.video.frames import image_size
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "0.png")
        ...     Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
        ...     image_size(path)
        (4, 6)
    """
    header = images.check_header(path, str(path))
    # only JPEGs of cameras are stored sideways
    is_sideways = header.form == "JPEG" and images.lies_on_its_side(path)
    return header.size[::-1] if is_sideways else header.size


def read_image(path: Path) -> Tensor:
    """Read an image file as uint8 [3, H, W] RGB, upright.

    Raises InputError if the file is missing or broken.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tubelet.video.frames import read_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "0.png")
        ...     Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
        ...     read_image(path).shape
        torch.Size([3, 4, 6])
    """
    samples = read_samples(path)
    return torch.from_numpy(to_eight_bits(samples, bits_held(samples))).permute(2, 0, 1)


def read_samples(path: Path) -> np.ndarray:
    """Read an image file as RGB [H, W, 3], upright; uint8, or uint16 if the file has 16 bits.

    Raises InputError if the file is missing or broken.
    """
    return images.decode_samples(images.read_image_file(path), str(path))


def bits_held(samples: np.ndarray) -> int:
    """Infer the bit depth of samples from the largest one: 8, 10, 12, 14 or 16.

    A PNG can state its bit depth, but then its samples are already scaled to 16 bits.

    Example:
        >>> from tubelet.video.frames import bits_held
        >>> bits_held(np.array([0, 1023], np.uint16))
        10
    """
    largest = int(samples.max(initial=0))
    return next(bits for bits in DEPTHS if largest < 1 << bits)


def to_eight_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    """Reduce samples of this bit depth to uint8; larger values become 255.

    Example:
        >>> from tubelet.video.frames import to_eight_bits
        >>> to_eight_bits(np.array([0, 512, 1023, 4095], np.uint16), bits=10).tolist()
        [0, 128, 255, 255]
    """
    return samples if samples.dtype == np.uint8 else np.minimum(samples >> (bits - 8), 255).astype(np.uint8)
