"""Draw attention weights onto a frame: brighter and warmer where the weight is larger."""

from __future__ import annotations

import cv2
import numpy as np

MARK = (255, 255, 255)  # colour of a marked point
DIM = 0.45  # brightness of the frame where the weight is zero


def heat(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Colour a frame, uint8 [H, W, 3] RGB, by weights [h, w] of any resolution -> uint8 [H, W, 3] RGB.

    The largest weight is the brightest; negative weights and NaN count as zero.

    >>> from tubelet.drawing.heatmaps import heat
    >>> frame = np.full((4, 4, 3), 100, np.uint8)
    >>> heat(frame, np.array([[0.0, 1.0]]))[0, [0, 3], 0].tolist()  # red: dark where zero, warm where largest
    [45, 214]
    """
    height, width = image.shape[:2]
    values = np.nan_to_num(weights.astype(np.float32)).clip(min=0)
    values = values / max(float(values.max(initial=0)), 1e-12)
    values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    levels = np.rint(values * 255).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]

    dimmed = image * (DIM + (1 - DIM) * values)
    opacity = np.sqrt(values) * 0.75
    return np.rint(dimmed * (1 - opacity) + colours * opacity).clip(0, 255).astype(np.uint8)


def mark(image: np.ndarray, at: tuple[float, float]) -> np.ndarray:
    """Draw a ring around the point `at` (x, y in pixels) on a copy of a frame, uint8 [H, W, 3] RGB.

    >>> from tubelet.drawing.heatmaps import mark
    >>> frame = np.zeros((40, 40, 3), np.uint8)
    >>> bool(mark(frame, (20, 20)).any()), bool(frame.any())
    (True, False)
    """
    canvas = np.ascontiguousarray(image).copy()
    centre = (round(at[0]), round(at[1]))
    radius = max(round(min(image.shape[:2]) * 0.03), 3)
    cv2.circle(canvas, centre, radius, (0, 0, 0), radius // 2 + 2, cv2.LINE_AA)
    cv2.circle(canvas, centre, radius, MARK, max(radius // 3, 1), cv2.LINE_AA)
    return canvas
