"""Draw a map of classes onto a frame: each class tinted in its colour, and a legend of the classes present."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tubelet.drawing.labels import label, text_height

TINT = 0.5  # opacity of the class's colour


def tint(image: np.ndarray, classes: np.ndarray, palette: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Tint every class but 0, the background, on a copy of a frame, and add a legend: uint8 [H, W, 3] RGB.

    `image` is uint8 [H, W, 3] RGB, `classes` uint8 [H, W], `palette` uint8 [256, 3] RGB, `names` those of the classes
    from 0 on. Raises ValueError if sizes disagree.

    >>> from tubelet.drawing.semantic import tint
    >>> frame = np.full((60, 80, 3), 100, np.uint8)
    >>> classes = np.zeros((60, 80), np.uint8)
    >>> classes[40:, 40:] = 1
    >>> palette = np.full((256, 3), 200, np.uint8)
    >>> tint(frame, classes, palette, ["background", "road"])[[30, 50], [70, 70]].tolist()
    [[100, 100, 100], [150, 150, 150]]
    """
    if image.shape[:2] != classes.shape:
        raise ValueError(f"expected classes of {list(image.shape[:2])}, got {list(classes.shape)}")

    canvas = np.array(image, order="C")
    foreground = classes > 0
    colours = palette[classes[foreground]]
    canvas[foreground] = np.rint((1 - TINT) * image[foreground] + TINT * colours).astype(np.uint8)

    top = 0
    for k in np.unique(classes[foreground]).tolist():
        top = _paint_plate(canvas, names[k], tuple(palette[k].tolist()), top)
    return canvas


def _paint_plate(canvas: np.ndarray, name: str, colour: tuple[int, int, int], top: int) -> int:
    """Draw one line of the legend at the left edge; returns the top of the next line."""
    height, width = canvas.shape[:2]
    plate = label(name, text_height((height, width)), colour)[: height - top, :width]
    canvas[top : top + plate.shape[0], : plate.shape[1]] = plate
    return top + plate.shape[0]
