"""Trails: centres of boxes, oldest first, for so many seconds."""

from __future__ import annotations

import numpy as np

from tubelet.drawing.trails import Trails


def test_a_trail_forgets_what_is_older_than_its_seconds() -> None:
    trails = Trails(seconds=1.0)
    for time in (0.0, 0.5, 1.0, 1.5):
        trails.add(time, [1], np.array([[10 * time, 0, 10 * time + 2, 2]]))
    assert trails.paths()[1].tolist() == [[6, 1], [11, 1], [16, 1]]


def test_an_object_that_left_loses_its_trail_in_time() -> None:
    trails = Trails(seconds=1.0)
    trails.add(0.0, [1, 2], np.array([[0, 0, 2, 2], [4, 4, 6, 6]]))
    trails.add(0.5, [2], np.array([[4, 4, 6, 6]]))
    assert list(trails.paths()) == [1, 2]
    trails.add(1.4, [2], np.array([[4, 4, 6, 6]]))
    assert list(trails.paths()) == [2]
