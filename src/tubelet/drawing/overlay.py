"""Draw objects onto a frame: tinted masks with contours, and labels with class, id and score.

Only pixels within each mask's box are touched, so ten objects cost a few milliseconds at 720p. Lines and letters grow
with the frame, so that a picture looks the same at 360 lines and at 4K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from tubelet.drawing.colours import Colour, colour
from tubelet.drawing.labels import label, text_height
from tubelet.drawing.style import OverlayStyle

PLAIN = OverlayStyle()
BLOCKS = 6  # an object that is made unrecognisable keeps so many blocks along its longer side
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
    *,
    style: OverlayStyle = PLAIN,
    trails: Mapping[int, np.ndarray] | None = None,
) -> np.ndarray:
    """Draw the objects of a frame on a copy of it, uint8 [H, W, 3] RGB.

    `image` is uint8 [H, W, 3] RGB, `masks` bool or uint8 0/1 [N, H, W]. `boxes` [N, 4], xyxy in pixels, are drawn as
    outlines if given. `style` says what else is drawn. `trails` are paths of ids, points (x, y) [k, 2] each. Objects
    with an empty mask and no box are skipped. Raises ValueError if shapes disagree.

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
    order = _largest_first(bounds)
    for n in order:
        if names[n] in style.blur:
            _pixelate(canvas, binary[n], bounds[n])

    style = style.in_crowd(len(order))
    for n in order:
        _paint_mask(canvas, binary[n], bounds[n], colour(int(ids[n])), style)
    for id, points in (trails or {}).items():
        _paint_trail(canvas, points, colour(id))

    if boxes is not None:
        bounds = [_pixel_box(box, canvas.shape) for box in boxes]
        order = _largest_first(bounds)
    if boxes is not None or style.boxes:
        for n in order:
            _paint_box(canvas, bounds[n], colour(int(ids[n])))
    if style.labels:
        texts = [f"{score:.0%}" if style.scores else "" for score in scores]
        plates = {n: _plate(names[n], int(ids[n]), texts[n], text_height(_size(canvas))) for n in order}
        _paint_labels(canvas, plates, bounds)
    return canvas


def _paint_labels(canvas: np.ndarray, plates: Mapping[int, np.ndarray], bounds: Sequence[Box]) -> None:
    """Draw the plates of objects where they cover neither each other nor, if it can be, a small object."""
    small = [bounds[n] for n, plate in plates.items() if _is_small(bounds[n], plate)]
    labels: list[Box] = []
    for n, plate in plates.items():
        labels.append(_paint_label(canvas, plate, bounds[n], labels, small))


def _is_small(box: Box, plate: np.ndarray) -> bool:
    """Whether a plate would hide most of an object."""
    return (box.right - box.left) * (box.bottom - box.top) < 2 * plate.shape[0] * plate.shape[1]


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


def _paint_mask(canvas: np.ndarray, mask: np.ndarray, box: Box, tint: Colour, style: OverlayStyle) -> None:
    inside = mask[box.top : box.bottom, box.left : box.right]
    if style.masks:
        region = canvas[box.top : box.bottom, box.left : box.right]
        cv2.copyTo(cv2.LUT(region, _tint_table(tint, style.opacity)), inside, region)
    if not style.outlines:
        return

    offset = (box.left, box.top)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=offset)
    width = _line_width(canvas)
    rim = round(min(_size(canvas)) / 720)
    if rim:  # on a small frame it would hide the colour
        cv2.drawContours(canvas, contours, -1, RIM, width + 2 * rim)
    cv2.drawContours(canvas, contours, -1, tint, width)  # anti-aliased lines would cost more than all the rest


def _pixelate(canvas: np.ndarray, mask: np.ndarray, box: Box) -> None:
    """Replace an object, and a margin around it, by a few blocks of its mean colours."""
    height, width = _size(canvas)
    margin = max(box.right - box.left, box.bottom - box.top) // 10 + 1  # hair and hands reach beyond a mask
    left, top = max(box.left - margin, 0), max(box.top - margin, 0)
    region = canvas[top : min(box.bottom + margin, height), left : min(box.right + margin, width)]
    inside = mask[top : top + region.shape[0], left : left + region.shape[1]]
    covered = cv2.dilate(inside, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))

    block = max(region.shape[:2]) / BLOCKS
    blocks = (max(round(region.shape[1] / block), 1), max(round(region.shape[0] / block), 1))
    coarse = cv2.resize(region, blocks, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(coarse, (region.shape[1], region.shape[0]), interpolation=cv2.INTER_NEAREST)
    cv2.copyTo(coarse, covered, region)


def _paint_trail(canvas: np.ndarray, points: np.ndarray, tint: Colour) -> None:
    path = np.rint(points).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(canvas, [path], False, tint, _line_width(canvas), cv2.LINE_AA)


def _paint_box(canvas: np.ndarray, box: Box, tint: Colour) -> None:
    last = (box.right - 1, box.bottom - 1)
    cv2.rectangle(canvas, (box.left, box.top), last, tint, _line_width(canvas))


def _plate(name: str, id: int, score: str, height: int) -> np.ndarray:
    # two plates, since the score changes in every frame: the name's plate stays in the cache
    first = label(f"{name} {id}", height, colour(id))
    return np.hstack([first, label(score, height, colour(id))]) if score else first


def _paint_label(canvas: np.ndarray, plate: np.ndarray, box: Box, labels: list[Box], small: list[Box]) -> Box:
    """Draw the plate of an object at `box`, beside the other labels and small objects; returns the plate's box."""
    height, width = _size(canvas)
    plate = plate[:height, :width]
    position = _label_box(plate.shape[0], plate.shape[1], box, (height, width), labels, small)
    canvas[position.top : position.bottom, position.left : position.right] = plate
    return position


def _label_box(height: int, width: int, box: Box, frame: tuple[int, int], labels: list[Box], small: list[Box]) -> Box:
    """Above the object, else inside at its top, else below it, else further off.

    The first that covers neither a label nor a small object; if there is none, the first that covers no label.
    """
    left = min(max(box.left, 0), frame[1] - width)
    steps = (1, 2, 3, -2, -3)
    tops = [box.top - height, box.top, box.bottom, *(box.top + step * height for step in steps)]

    candidates = []
    for top in tops:
        top = min(max(top, 0), frame[0] - height)
        candidates.append(Box(left, top, left + width, top + height))

    for avoided in ([*labels, *small], labels):
        for candidate in candidates:
            if not any(candidate.overlaps(other) for other in avoided):
                return candidate
    return candidates[0]


def _line_width(canvas: np.ndarray) -> int:
    return max(round(min(_size(canvas)) / 360), 2)


def _size(canvas: np.ndarray) -> tuple[int, int]:
    return canvas.shape[0], canvas.shape[1]


@lru_cache(maxsize=1024)
def _tint_table(tint: Colour, opacity: float) -> np.ndarray:
    """The tinted value of each value of each channel, uint8 [1, 256, 3]: a table is faster than arithmetic."""
    values = np.arange(256)[:, None] * (1 - opacity) + np.array(tint)[None] * opacity
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
