"""Weights over a frame, drawn onto it: the brighter and warmer, the more is looked at."""

from __future__ import annotations

import cv2
import numpy as np

MARK = (255, 255, 255)
DIM = 0.45  # how much of the picture is left where nothing is looked at


def heat(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A frame, uint8 [H, W, 3] RGB, under weights [h, w] of any resolution; the largest weight is the brightest."""
    height, width = image.shape[:2]
    values = np.nan_to_num(weights.astype(np.float32)).clip(min=0)
    values = values / max(float(values.max(initial=0)), 1e-12)
    values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    colours = cv2.applyColorMap(np.rint(values * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    shade = image * (DIM + (1 - DIM) * values)
    share = np.sqrt(values) * 0.75
    return np.rint(shade * (1 - share) + colours * share).clip(0, 255).astype(np.uint8)


def mark(image: np.ndarray, at: tuple[float, float]) -> np.ndarray:
    """A ring around the point (x, y in pixels) that the weights belong to, on a copy."""
    drawn = np.ascontiguousarray(image).copy()
    radius = max(round(min(image.shape[:2]) * 0.03), 3)
    place = round(at[0]), round(at[1])
    for colour, thickness in (((0, 0, 0), radius // 2 + 2), (MARK, max(radius // 3, 1))):
        cv2.circle(drawn, place, radius, colour, thickness, cv2.LINE_AA)
    return drawn
