"""Polygons and lines in pixels of the frame: reading them from text, and which points lie inside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tubelet.core.arguments import short
from tubelet.core.errors import ConfigError

Points = Sequence[Sequence[float | int]] | np.ndarray  # (x, y) each, in pixels
MOST_POINTS = 10_000
FARTHEST = 1e6  # pixels from the frame's corner


def polygon(name: str, points: Points) -> np.ndarray:
    """Check a polygon; float64 [n, 2], (x, y) in pixels.

    Raises ConfigError, with `name`, for fewer than three points, or points that enclose no area.

    Example:
        >>> from tubelet.core.polygons import polygon
        >>> polygon("roi", [(0, 0), (10, 0), (10, 10)]).shape
        (3, 2)
        >>> polygon("roi", [(0, 0), (10, 0)])
        Traceback (most recent call last):
        ...
        tubelet.core.errors.ConfigError: roi: a polygon needs three points (x, y) or more, got 2
    """
    checked = _points(name, points)
    if len(checked) < 3:
        raise ConfigError(f"{name}: a polygon needs three points (x, y) or more, got {len(checked)}")
    if np.ptp(checked, axis=0).min() == 0:
        raise ConfigError(f"{name}: the points {short(checked.tolist())} enclose no area")
    return checked


def line(name: str, points: Points) -> np.ndarray:
    """Check a line; float64 [2, 2], its two ends (x, y) in pixels.

    Raises ConfigError, with `name`, if there are not two different points.

    Example:
        >>> from tubelet.core.polygons import line
        >>> line("door", [(0, 5), (10, 5)]).tolist()
        [[0.0, 5.0], [10.0, 5.0]]
    """
    checked = _points(name, points)
    if len(checked) != 2 or (checked[0] == checked[1]).all():
        raise ConfigError(f"{name}: a line needs two different points (x, y), got {short(checked.tolist())}")
    return checked


def points_of(name: str, text: str) -> list[tuple[float, float]]:
    """Read points from text such as "0,0,100,0,100,50" or "0,0 100,0 100,50".

    Raises ConfigError, with `name`, if it is something else.

    Example:
        >>> from tubelet.core.polygons import points_of
        >>> points_of("roi", "0,0 100,0 100,50")
        [(0.0, 0.0), (100.0, 0.0), (100.0, 50.0)]
    """
    words = [word for word in re.split(r"[,;\s]+", text) if word]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if not numbers or len(numbers) % 2:
        raise ConfigError(f"{name}: expected points in pixels as x1,y1,x2,y2,..., got {short(text)}")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def inside(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Whether points (x, y) [n, 2] lie inside a polygon [k, 2], by the even-odd rule; bool [n].

    Example:
        >>> from tubelet.core.polygons import inside
        >>> triangle = np.array([[0, 0], [10, 0], [0, 10]])
        >>> inside(np.array([[2, 2], [8, 8]]), triangle).tolist()
        [True, False]
    """
    x, y = points[:, None, 0], points[:, None, 1]  # [n, 1]
    x1, y1 = corners[:, 0], corners[:, 1]  # [k]
    x2, y2 = np.roll(x1, -1), np.roll(y1, -1)

    spans = (y1 > y) != (y2 > y)  # the edge crosses the point's row
    rise = np.where(y2 == y1, 1.0, y2 - y1)  # level edges span no row
    crossing = x1 + (y - y1) * (x2 - x1) / rise
    right = spans & (x < crossing)  # crossings to the right of the point
    return np.asarray(right.sum(1) % 2 == 1)


def centres(boxes: np.ndarray) -> np.ndarray:
    """Centres (x, y) of boxes (x1, y1, x2, y2) [n, 4]; float64 [n, 2].

    Example:
        >>> from tubelet.core.polygons import centres
        >>> centres(np.array([[0, 0, 4, 6]])).tolist()
        [[2.0, 3.0]]
    """
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    return (corners[:, :2] + corners[:, 2:]) / 2


def _points(name: str, points: Any) -> np.ndarray:
    expected = f"{name}: expected points (x, y) in pixels such as [(0, 0), (100, 0), (100, 50)]"
    if isinstance(points, str | bytes) or not isinstance(points, Sequence | np.ndarray):
        raise ConfigError(f"{expected}, got {short(points)}")
    try:
        array = np.asarray(points, np.float64)
    except (ValueError, TypeError):
        raise ConfigError(f"{expected}, got {short(points)}") from None

    is_list = array.ndim == 2 and array.shape[1] == 2 and len(array) <= MOST_POINTS
    if not is_list or not (np.abs(array) <= FARTHEST).all():  # NaN is not, either
        raise ConfigError(f"{expected}, got {short(array.tolist())}")
    return array
