"""Masks as polygons, for formats that have no others. Read again, a mask without holes is the same to the pixel."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from tubelet.core import masks
from tubelet.core.masks import RLE


class Outline(NamedTuple):
    """The outer polygons of a mask, (x, y) [n, 2] each, and how many holes they cover."""

    parts: list[np.ndarray]
    holes: int


def outline(rle: RLE) -> Outline:
    """The polygons around the parts of a mask; they run a quarter of a pixel inside its rim.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.formats.outlines import outline
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> outline(rle).parts[0].tolist()
        [[0.25, 0.25], [0.25, 3.75], [5.75, 3.75], [5.75, 0.25]]
    """
    mask = np.ascontiguousarray(masks.decode([rle])[0])
    doubled = mask.repeat(2, 0).repeat(2, 1)  # so that single pixels have an area, too
    contours, levels = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    holes = 0
    for n, contour in enumerate(contours):
        if levels[0, n, 3] >= 0:  # it has a parent: the rim of a hole
            holes += 1
        else:
            parts.append((contour[:, 0].astype(np.float64) + 0.5) / 2)
    return Outline(parts, holes)
