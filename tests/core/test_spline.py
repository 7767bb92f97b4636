"""The quadratic B-spline against a loop over its basis."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tubelet.core.spline import spline


def weight(distance: float) -> float:
    """The basis function of a control point, by the distance of a position from the middle of its support."""
    distance = abs(distance)
    if distance <= 0.5:
        return 0.75 - distance**2
    return (1.5 - distance) ** 2 / 2 if distance <= 1.5 else 0.0


@given(seed=st.integers(0, 1000), num=st.integers(3, 9))
def test_every_point_is_the_weighted_mean_of_the_control_points(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (num, 2))
    positions = rng.uniform(0, num - 2, 20)
    path = spline(points, positions)
    for point, position in zip(path, positions, strict=True):
        weights = [weight(position + 0.5 - n) for n in range(num)]
        assert np.isclose(sum(weights), 1)
        assert np.allclose(point, np.array(weights) @ points)


def test_constant_control_points_give_a_constant_path() -> None:
    assert np.allclose(spline(np.full((5, 1), 3.0), np.linspace(0, 2.9, 30)), 3)
