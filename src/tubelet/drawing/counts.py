"""Draw counting lines and zones with their numbers onto a frame."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from tubelet.drawing.colours import Colour
from tubelet.drawing.labels import label, text_height

COLOUR: Colour = (255, 200, 0)
DARK: Colour = (24, 26, 30)


def draw_shape(image: np.ndarray, points: Sequence[Sequence[float]] | np.ndarray, text: str) -> np.ndarray:
    """Draw a line (two points) or a closed polygon (more) and its text on a copy of a frame, uint8 [H, W, 3] RGB.

    An arrow on a line shows the direction that counts as "in".

    >>> from tubelet.drawing.counts import draw_shape
    >>> drawn = draw_shape(np.zeros((90, 160, 3), np.uint8), [(0, 60), (159, 60)], "door: 1 in")
    >>> drawn[60, 5].tolist()
    [255, 200, 0]
    """
    canvas = np.array(image, order="C")
    corners = np.rint(np.asarray(points, np.float64)).astype(np.int32)
    width = max(round(min(canvas.shape[:2]) / 240), 2)
    cv2.polylines(canvas, [corners.reshape(-1, 1, 2)], len(corners) > 2, COLOUR, width)
    if len(corners) == 2:
        _draw_arrow(canvas, np.asarray(points, np.float64), width)

    middle = corners.mean(0) if len(corners) == 2 else corners[0]
    plate = label(text, text_height(canvas.shape[:2]), DARK)
    height, room = canvas.shape[:2]
    plate = plate[:height, :room]
    left = int(np.clip(middle[0] + width, 0, room - plate.shape[1]))
    top = int(np.clip(middle[1] + width, 0, height - plate.shape[0]))
    canvas[top : top + plate.shape[0], left : left + plate.shape[1]] = plate
    return canvas


def _draw_arrow(canvas: np.ndarray, ends: np.ndarray, width: int) -> None:
    """An arrow from the middle of a line towards the left hand of who walks along it."""
    along = ends[1] - ends[0]
    left = np.array([along[1], -along[0]]) / max(float(np.hypot(*along)), 1.0)  # y points down
    middle = ends.mean(0)
    tip = middle + left * min(canvas.shape[:2]) / 12
    start, end = (tuple(np.rint(point).astype(int).tolist()) for point in (middle, tip))
    cv2.arrowedLine(canvas, start, end, COLOUR, width, tipLength=0.4)
