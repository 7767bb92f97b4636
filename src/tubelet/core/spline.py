"""The quadratic B-spline: smooth paths of cameras and objects in generated videos and pseudo-videos."""

from __future__ import annotations

import numpy as np


def spline(points: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Evaluate the quadratic B-spline of P control points, float64 [T, D].

    The path stays within the range of its control points. It is computed with elementwise products
    and sums only, so that every machine gives the same bits.

    Args:
        points: The control points [P, D].
        positions: Where to evaluate [T], in control points, 0 <= position < P - 2.

    Example:
        >>> from tubelet.core.spline import spline
        >>> points = np.array([[0.0], [2.0], [4.0], [4.0]])
        >>> spline(points, np.array([0.0, 0.5, 1.0, 1.5])).ravel().tolist()
        [1.0, 2.0, 3.0, 3.75]
    """
    span = np.floor(positions).astype(np.int64)
    u = (positions - span)[:, None]  # position in the span, 0 to 1

    before = points[span]
    at = points[span + 1]
    after = points[span + 2]
    path: np.ndarray = (1 - u) * (1 - u) / 2 * before + (0.5 + u - u * u) * at + u * u / 2 * after
    return path
