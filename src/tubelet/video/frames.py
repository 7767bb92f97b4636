"""Lazy sequences of frames: `frames[t]` reads one uint8 [3, H, W] RGB tensor, iterating reads in order."""

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
    header = images.check_header(path, str(path))
    # only a camera's JPEG is stored lying on its side
    turned = header.form == "JPEG" and images.lies_on_its_side(path)
    return header.size[::-1] if turned else header.size


def read_image(path: Path) -> Tensor:
    """An image file -> uint8 [3, H, W] RGB, turned as its camera was held; raises InputError where it is broken."""
    samples = read_samples(path)
    return torch.from_numpy(to_eight_bits(samples, bits_held(samples))).permute(2, 0, 1)


def read_samples(path: Path) -> np.ndarray:
    """An image file -> RGB [H, W, 3], upright, uint8 or, where it has 16 bits, uint16; raises InputError."""
    return images.decode_samples(images.read_image_file(path), str(path))


def bits_held(samples: np.ndarray) -> int:
    """The bits a sample that the largest one needs, as far as cameras give such: 8, 10, 12, 14 or 16.

    A PNG can say so itself, but where it does, its samples were stretched to 16 bits already.
    """
    largest = int(samples.max(initial=0))
    return next(bits for bits in DEPTHS if largest < 1 << bits)


def to_eight_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples of so many bits -> uint8; larger ones become white."""
    return samples if samples.dtype == np.uint8 else np.minimum(samples >> (bits - 8), 255).astype(np.uint8)
