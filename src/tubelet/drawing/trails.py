"""The paths of objects over the last seconds: the centres of their boxes, frame by frame."""

from __future__ import annotations

from collections import defaultdict, deque

import numpy as np


class Trails:
    """Remembers where each object was during the last `seconds`.

    >>> from tubelet.drawing.trails import Trails
    >>> trails = Trails(seconds=1.0)
    >>> trails.add(0.0, [7], np.array([[0, 0, 4, 6]]))
    >>> trails.add(0.5, [7], np.array([[10, 0, 14, 6]]))
    >>> trails.paths()[7].tolist()
    [[2.0, 3.0], [12.0, 3.0]]
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._points: dict[int, deque[tuple[float, float, float]]] = defaultdict(deque)

    def add(self, time: float, ids: list[int], boxes: np.ndarray) -> None:
        """Add a frame: its time in seconds, its objects' ids, and their boxes (x1, y1, x2, y2) [N, 4]."""
        for id, (left, top, right, bottom) in zip(ids, boxes.tolist(), strict=True):
            self._points[id].append((time, (left + right) / 2, (top + bottom) / 2))

        for id, points in list(self._points.items()):
            while points and points[0][0] < time - self.seconds:
                points.popleft()
            if not points:
                del self._points[id]

    def paths(self) -> dict[int, np.ndarray]:
        """The path of each object, points (x, y) [k, 2], oldest first."""
        return {id: np.array([point[1:] for point in points]) for id, points in self._points.items()}
