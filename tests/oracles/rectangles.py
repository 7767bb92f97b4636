"""Tracks of rectangles as the package's own types, for tests of identity and diagnosis."""

from __future__ import annotations

from typing import Any

import numpy as np

from tubelet.core import masks
from tubelet.core.types import Prediction, Track, Video

SIZE = (60, 80)
Boxes = list[Any]  # of each frame: (x, y, width, height), a list of such, or None


def track(number: int, boxes: Boxes, *, score: float = 0.9, label: int = 0, ignore: bool = False) -> Track:
    """A track whose mask in each frame is a rectangle, or several."""
    return Track(id=number, label=label, score=score, rles=tuple(map(_rle, boxes)), ignore=ignore)


def scene(truths: list[Track], guesses: list[Track], name: str = "v") -> tuple[list[Video], list[Prediction]]:
    """One video and what was predicted of it."""
    length = len(truths[0].rles)
    video = Video(id=name, size=SIZE, frames=[None] * length, tracks=tuple(truths))
    return [video], [Prediction(video=name, size=SIZE, length=length, tracks=tuple(guesses))]


def _rle(boxes: Any) -> masks.RLE | None:
    if boxes is None:
        return None
    mask = np.zeros(SIZE, bool)
    for x, y, width, height in boxes if isinstance(boxes, list) else [boxes]:
        mask[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = True
    return masks.encode(mask[None])[0]
