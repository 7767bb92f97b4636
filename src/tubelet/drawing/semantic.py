"""Draws a map of classes onto a frame: each class tinted in its colour, and a legend of those that are seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tubelet.drawing.labels import label, text_height

TINT = 0.5  # share of the class's colour


def tint(image: np.ndarray, classes: np.ndarray, palette: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """A copy of the frame in which every class but 0, the background, is tinted, uint8 [H, W, 3] RGB.

    `image` uint8 [H, W, 3] RGB, `classes` uint8 [H, W], `palette` uint8 [256, 3], `names` of the classes from 0 on.
    Raises ValueError where sizes disagree.
    """
    if image.shape[:2] != classes.shape:
        raise ValueError(f"expected classes of {list(image.shape[:2])}, got {list(classes.shape)}")
    canvas = np.array(image, order="C")
    seen = classes > 0
    canvas[seen] = np.rint((1 - TINT) * image[seen] + TINT * palette[classes[seen]]).astype(np.uint8)
    top = 0
    for k in np.unique(classes[seen]).tolist():
        top = _paint_plate(canvas, names[k], tuple(palette[k].tolist()), top)
    return canvas


def _paint_plate(canvas: np.ndarray, name: str, colour: tuple[int, int, int], top: int) -> int:
    """One line of the legend at the left edge; returns where the next one begins."""
    height, width = canvas.shape[:2]
    plate = label(name, text_height((height, width)), colour)[: height - top, :width]
    canvas[top : top + plate.shape[0], : plate.shape[1]] = plate
    return top + plate.shape[0]
