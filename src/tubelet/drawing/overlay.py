"""Draw objects onto a frame: tinted masks with contours, and labels with class, id and score.

Only pixels within each mask's box are touched, so ten objects cost a few milliseconds at 720p. Lines and letters grow
with the frame, so that a picture looks the same at 360 lines and at 4K.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from tubelet.drawing.colours import Colour, colour
from tubelet.drawing.labels import label, text_height

TINT = 0.42  # opacity of the colour inside a mask
RIM = (0, 0, 0)  # around a contour, so that it is visible on a background of the same colour


class Box(NamedTuple):
    """A box in whole pixels, half-open.

    >>> from tubelet.drawing.overlay import Box
    >>> Box(0, 0, 10, 10).overlaps(Box(10, 0, 20, 10))
    False
    """

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: Box) -> bool:
        """Whether the boxes share a pixel."""
        in_x = self.left < other.right and other.left < self.right
        in_y = self.top < other.bottom and other.top < self.bottom
        return in_x and in_y


def draw(
    image: np.ndarray,
    masks: np.ndarray,
    ids: Sequence[int] | np.ndarray,
    names: Sequence[str],
    scores: Sequence[float] | np.ndarray,
    boxes: np.ndarray | None = None,
) -> np.ndarray:
    """Draw the objects of a frame on a copy of it, uint8 [H, W, 3] RGB.

    `image` is uint8 [H, W, 3] RGB, `masks` bool or uint8 0/1 [N, H, W]. `boxes` [N, 4], xyxy in pixels, are drawn as
    outlines if given. Objects with an empty mask and no box are skipped. Raises ValueError if shapes disagree.

    >>> from tubelet.drawing.overlay import draw
    >>> frame = np.full((90, 160, 3), 100, np.uint8)
    >>> masks = np.zeros((1, 90, 160), bool)
    >>> masks[0, 40:80, 60:100] = True
    >>> drawn = draw(frame, masks, ids=[1], names=["dog"], scores=[0.9])
    >>> drawn[60, 80].tolist() == frame[60, 80].tolist(), drawn[85, 5].tolist()
    (False, [100, 100, 100])
    """
    _check(image, masks, ids, names, scores, boxes)
    canvas = np.array(image, order="C")

    binary = masks.view(np.uint8)
    bounds = [_mask_box(mask) for mask in binary]
    for n in _largest_first(bounds):
        _paint_mask(canvas, binary[n], bounds[n], colour(int(ids[n])))

    if boxes is not None:
        bounds = [_pixel_box(box, canvas.shape) for box in boxes]
        for box, id in zip(bounds, ids, strict=True):
            _paint_box(canvas, box, colour(int(id)))

    letters = text_height(_size(canvas))
    labels: list[Box] = []
    for n in _largest_first(bounds):
        plate = _plate(names[n], int(ids[n]), float(scores[n]), letters)
        labels.append(_paint_label(canvas, plate, bounds[n], labels))
    return canvas


def _largest_first(boxes: Sequence[Box]) -> list[int]:
    """Positions of boxes that are not empty, the largest first, so that small objects are drawn on top."""
    areas = [(box.right - box.left) * (box.bottom - box.top) for box in boxes]
    present = [n for n, area in enumerate(areas) if area > 0]
    return sorted(present, key=lambda n: -areas[n])


def _mask_box(mask: np.ndarray) -> Box:
    left, top, width, height = cv2.boundingRect(mask)
    return Box(left, top, left + width, top + height)


def _pixel_box(box: np.ndarray, shape: tuple[int, ...]) -> Box:
    """A box rounded to pixels, and clipped to the frame."""
    height, width = shape[:2]
    clipped = np.clip(box, 0, [width, height, width, height])
    left, top, right, bottom = (int(side) for side in np.rint(clipped))
    return Box(left, top, right, bottom)


def _paint_mask(canvas: np.ndarray, mask: np.ndarray, box: Box, tint: Colour) -> None:
    region = canvas[box.top : box.bottom, box.left : box.right]
    inside = mask[box.top : box.bottom, box.left : box.right]
    cv2.copyTo(cv2.LUT(region, _tint_table(tint)), inside, region)

    offset = (box.left, box.top)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=offset)
    width = _line_width(canvas)
    rim = round(min(_size(canvas)) / 720)
    if rim:  # on a small frame it would hide the colour
        cv2.drawContours(canvas, contours, -1, RIM, width + 2 * rim)
    cv2.drawContours(canvas, contours, -1, tint, width)  # anti-aliased lines would cost more than all the rest


def _paint_box(canvas: np.ndarray, box: Box, tint: Colour) -> None:
    last = (box.right - 1, box.bottom - 1)
    cv2.rectangle(canvas, (box.left, box.top), last, tint, _line_width(canvas))


def _plate(name: str, id: int, score: float, height: int) -> np.ndarray:
    # two plates, since the score changes in every frame: the name's plate stays in the cache
    first = label(f"{name} {id}", height, colour(id))
    second = label(f"{score:.0%}", height, colour(id))
    return np.hstack([first, second])


def _paint_label(canvas: np.ndarray, plate: np.ndarray, box: Box, labels: list[Box]) -> Box:
    """Draw the plate of an object at `box` where it covers none of the `labels`; returns the plate's box."""
    height, width = _size(canvas)
    plate = plate[:height, :width]
    position = _label_box(plate.shape[0], plate.shape[1], box, (height, width), labels)
    canvas[position.top : position.bottom, position.left : position.right] = plate
    return position


def _label_box(height: int, width: int, box: Box, frame: tuple[int, int], labels: list[Box]) -> Box:
    """Above the object, else inside at its top, else below it, else further off: the first that covers no label."""
    left = min(max(box.left, 0), frame[1] - width)
    steps = (1, 2, 3, -2, -3)
    tops = [box.top - height, box.top, box.bottom, *(box.top + step * height for step in steps)]

    candidates = []
    for top in tops:
        top = min(max(top, 0), frame[0] - height)
        candidates.append(Box(left, top, left + width, top + height))

    for candidate in candidates:
        if not any(candidate.overlaps(other) for other in labels):
            return candidate
    return candidates[0]


def _line_width(canvas: np.ndarray) -> int:
    return max(round(min(_size(canvas)) / 360), 2)


def _size(canvas: np.ndarray) -> tuple[int, int]:
    return canvas.shape[0], canvas.shape[1]


@lru_cache(maxsize=1024)
def _tint_table(tint: Colour) -> np.ndarray:
    """The tinted value of each value of each channel, uint8 [1, 256, 3]: a table is faster than arithmetic."""
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

    is_stack = masks.ndim == 3 and masks.dtype in (bool, np.uint8)
    if not is_stack or (len(masks) and masks.shape[1:] != image.shape[:2]):
        expected = f"bool [N, {image.shape[0]}, {image.shape[1]}]"
        raise ValueError(f"expected masks of {expected}, got {masks.dtype} {list(masks.shape)}")

    counts = [len(masks), len(ids), len(names), len(scores)]
    if boxes is not None:
        counts.append(len(boxes))
    if len(set(counts)) > 1:
        raise ValueError(f"masks, ids, names, scores (and boxes) disagree on how many objects there are: {counts}")
