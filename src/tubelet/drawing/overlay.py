"""Draws objects onto a frame: tinted masks with contours, and a label that says class, identity and score.

Work is done only within each mask's box, so ten objects cost a few milliseconds at 720p. Lines and letters grow with
the frame, so that a picture reads the same at 360 lines and at 4K.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from tubelet.drawing.colours import Colour, colour
from tubelet.drawing.labels import label, text_height

TINT = 0.42  # share of the identity's colour within a mask
RIM = (0, 0, 0)  # keeps a contour visible on a background of its own colour


class Box(NamedTuple):
    """Whole pixels, half-open."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: Box) -> bool:
        """Whether both share a pixel."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def draw(
    image: np.ndarray,
    masks: np.ndarray,
    ids: Sequence[int] | np.ndarray,
    names: Sequence[str],
    scores: Sequence[float] | np.ndarray,
    boxes: np.ndarray | None = None,
) -> np.ndarray:
    """A copy of the frame with its objects drawn in, uint8 [H, W, 3] RGB.

    `image` uint8 [H, W, 3] RGB, `masks` bool or uint8 0/1 [N, H, W], `boxes` [N, 4] xyxy in pixels, drawn as outlines
    where given. Objects with an empty mask and no box are left out. Raises ValueError where shapes disagree.
    """
    _check(image, masks, ids, names, scores, boxes)
    canvas = np.array(image, order="C")
    binary = masks.view(np.uint8)
    places = [_bounds(mask) for mask in binary]
    for n in _largest_first(places):
        _paint_mask(canvas, binary[n], places[n], colour(int(ids[n])))
    if boxes is not None:
        places = [_whole(box, canvas.shape) for box in boxes]
        for place, id in zip(places, ids, strict=True):
            _paint_box(canvas, place, colour(int(id)))
    taken: list[Box] = []
    for n in _largest_first(places):
        _paint_label(
            canvas, _plate(names[n], int(ids[n]), float(scores[n]), text_height(_size(canvas))), places[n], taken
        )
    return canvas


def _largest_first(places: Sequence[Box]) -> list[int]:
    """Objects that are there; small ones last, so that they lie on top of what is behind them."""
    areas = [(box.right - box.left) * (box.bottom - box.top) for box in places]
    return sorted((n for n, area in enumerate(areas) if area > 0), key=lambda n: -areas[n])


def _bounds(mask: np.ndarray) -> Box:
    left, top, width, height = cv2.boundingRect(mask)
    return Box(left, top, left + width, top + height)


def _whole(box: np.ndarray, shape: tuple[int, ...]) -> Box:
    height, width = shape[:2]
    left, top, right, bottom = (int(v) for v in np.rint(np.clip(box, 0, [width, height, width, height])))
    return Box(left, top, right, bottom)


def _paint_mask(canvas: np.ndarray, mask: np.ndarray, at: Box, tint: Colour) -> None:
    region = canvas[at.top : at.bottom, at.left : at.right]
    inside = mask[at.top : at.bottom, at.left : at.right]
    cv2.copyTo(cv2.LUT(region, _tinted(tint)), inside, region)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(at.left, at.top))
    width, rim = _line_width(canvas), round(min(_size(canvas)) / 720)
    if rim:  # on a small frame it would hide the colour
        cv2.drawContours(canvas, contours, -1, RIM, width + 2 * rim)
    cv2.drawContours(canvas, contours, -1, tint, width)  # smoothed lines would cost more than all the rest


def _paint_box(canvas: np.ndarray, at: Box, tint: Colour) -> None:
    cv2.rectangle(canvas, (at.left, at.top), (at.right - 1, at.bottom - 1), tint, _line_width(canvas))


def _plate(name: str, id: int, score: float, height: int) -> np.ndarray:
    # two plates, because the score changes from frame to frame and would have every name rendered anew
    return np.hstack([label(text, height, colour(id)) for text in (f"{name} {id}", f"{score:.0%}")])


def _paint_label(canvas: np.ndarray, plate: np.ndarray, at: Box, taken: list[Box]) -> None:
    height, width = _size(canvas)
    plate = plate[:height, :width]
    place = _free_place(plate.shape[0], plate.shape[1], at, (height, width), taken)
    canvas[place.top : place.bottom, place.left : place.right] = plate
    taken.append(place)


def _free_place(height: int, width: int, at: Box, frame: tuple[int, int], taken: list[Box]) -> Box:
    """Above the object, else in its top, else below it, else further down: the first that covers no other label."""
    left = min(max(at.left, 0), frame[1] - width)
    tops = [at.top - height, at.top, at.bottom, *(at.top + step * height for step in (1, 2, 3, -2, -3))]
    places = [Box(left, top, left + width, top + height) for top in (min(max(t, 0), frame[0] - height) for t in tops)]
    return next((place for place in places if not any(place.overlaps(other) for other in taken)), places[0])


def _line_width(canvas: np.ndarray) -> int:
    return max(round(min(_size(canvas)) / 360), 2)


def _size(canvas: np.ndarray) -> tuple[int, int]:
    return canvas.shape[0], canvas.shape[1]


@lru_cache(maxsize=1024)
def _tinted(tint: Colour) -> np.ndarray:
    """What each value of each channel becomes under a tint, uint8 [1, 256, 3]: a table is faster than arithmetic."""
    values = np.arange(256)[:, None] * (1 - TINT) + np.array(tint)[None] * TINT
    return np.rint(values).astype(np.uint8)[None]


def _check(
    image: np.ndarray,
    masks: np.ndarray,
    ids: Sequence[int] | np.ndarray,
    names: Sequence[str],
    scores: Sequence[float] | np.ndarray,
    boxes: np.ndarray | None,
) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected an image of uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if masks.ndim != 3 or masks.dtype not in (bool, np.uint8) or (len(masks) and masks.shape[1:] != image.shape[:2]):
        expected = f"bool [N, {image.shape[0]}, {image.shape[1]}]"
        raise ValueError(f"expected masks of {expected}, got {masks.dtype} {list(masks.shape)}")
    counts = [len(masks), len(ids), len(names), len(scores)] + ([] if boxes is None else [len(boxes)])
    if len(set(counts)) > 1:
        raise ValueError(f"masks, ids, names, scores (and boxes) disagree on how many objects there are: {counts}")
