"""Frames as programs hold them: one image or many, as arrays, tensors, Pillow images, in a list or from a generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.video.frames import ArrayFrames, LazyFrames

MOST_BYTES = 8 << 30  # of the frames of a generator, which are all held; a longer one is a stream

Picture = np.ndarray | Tensor | Image.Image  # one frame: [H, W, 3], [3, H, W], or Pillow's


class FrameList(LazyFrames):
    """A list of frames in memory, uint8 [3, H, W] each.

    Example:
        >>> from tubelet.video.in_memory import FrameList
        >>> frames = FrameList([torch.zeros(3, 4, 6, dtype=torch.uint8)])
        >>> frames.size
        (4, 6)
    """

    def __init__(self, frames: Sequence[Tensor]) -> None:
        self._frames = frames
        height, width = frames[0].shape[1:]
        self.size = (int(height), int(width))

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, t: int) -> Tensor:
        return self._frames[t]


def is_picture(value: object) -> bool:
    """Whether this is one frame: an array, tensor or Pillow image.

    Example:
        >>> from tubelet.video.in_memory import is_picture
        >>> is_picture(np.zeros((4, 6, 3), np.uint8)), is_picture("dog.png")
        (True, False)
    """
    return isinstance(value, np.ndarray | Tensor | Image.Image)


def as_frames(source: Picture) -> LazyFrames:
    """One image as a video of one frame, or an array [T, H, W, 3] or tensor [T, 3, H, W] as one of T.

    Raises InputError, with what to do, for anything but uint8 RGB.

    Example:
        >>> from tubelet.video.in_memory import as_frames
        >>> len(as_frames(np.zeros((4, 6, 3), np.uint8))), len(as_frames(np.zeros((5, 4, 6, 3), np.uint8)))
        (1, 5)
    """
    if isinstance(source, Image.Image):
        return FrameList([_of_pillow(source)])
    if source.ndim == 3:
        return ArrayFrames(source[None])
    return ArrayFrames(source)


def collect(pictures: Iterable[Any], name: str = "frame") -> FrameList:
    """Hold the frames of a list or generator.

    Raises InputError for a frame of another size than the first, for none, or for more than MOST_BYTES.

    Example:
        >>> from tubelet.video.in_memory import collect
        >>> len(collect(np.zeros((4, 6, 3), np.uint8) for _ in range(3)))
        3
    """
    frames = []
    size = 0
    for frame in tensors(pictures, name):
        size += frame.numel()
        if size > MOST_BYTES:
            limit = f"{MOST_BYTES >> 30} GiB"
            raise InputError(f"more than {limit} of frames; tubelet.stream reads them without keeping them")
        frames.append(frame)
    if not frames:
        raise InputError("expected at least one frame, got an empty list or generator")
    return FrameList(frames)


def tensors(pictures: Iterable[Any], name: str = "frame") -> Iterator[Tensor]:
    """Frames as uint8 [3, H, W], each checked when it comes. Raises InputError for a frame of another size.

    Example:
        >>> from tubelet.video.in_memory import tensors
        >>> next(tensors([np.zeros((4, 6, 3), np.uint8)])).shape
        torch.Size([3, 4, 6])
    """
    first: Tensor | None = None
    for number, picture in enumerate(pictures):
        if not is_picture(picture):
            expected = "an array [H, W, 3], a tensor [3, H, W] or a Pillow image"
            raise InputError(f"{name} {number}: expected {expected}, got {type(picture).__name__}")

        frames = as_frames(picture)
        if len(frames) != 1:
            raise InputError(f"{name} {number}: expected one image, got {len(frames)}; give their array alone")
        frame = frames[0]
        first = frame if first is None else first
        if frame.shape != first.shape:
            sizes = f"{_size(frame)} pixels where the first has {_size(first)}"
            raise InputError(f"{name} {number} is {sizes}; resize all frames to one size")
        yield frame


def _of_pillow(image: Image.Image) -> Tensor:
    """Upright RGB. Raises InputError if the file behind it is broken."""
    try:
        rgb = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"this Pillow image cannot be read ({str(error).lower()})") from None
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def _size(frame: Tensor) -> str:
    return f"{frame.shape[2]}x{frame.shape[1]}"
