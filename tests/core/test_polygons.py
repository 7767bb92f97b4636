"""Polygons: what encloses no area is refused, and points are inside or not as a raster says."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import jaxtyping
import numpy as np
import pytest

from tubelet.core.errors import ConfigError
from tubelet.core.polygons import inside, line, points_of, polygon


@pytest.fixture(autouse=True)
def as_shipped() -> Iterator[None]:
    """Without the tests' own checker of types, which would refuse wrong arguments first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_points_inside_are_those_that_opencv_calls_so() -> None:
    rng = np.random.default_rng(0)
    for corners in (3, 4, 7):
        shape = rng.uniform(0, 100, (corners, 2))
        points = rng.uniform(-10, 110, (200, 2))
        contour = shape.astype(np.float32)[:, None]
        expected = [cv2.pointPolygonTest(contour, (float(x), float(y)), False) > 0 for x, y in points]
        assert inside(points, shape).tolist() == expected


def test_a_concave_polygon_has_no_inside_in_its_notch() -> None:
    notched = np.array([[0, 0], [10, 0], [10, 10], [5, 2], [0, 10]])
    assert inside(np.array([[5, 1], [5, 6], [1, 6]]), notched).tolist() == [True, False, True]


@pytest.mark.parametrize("text", ["0,0,100,0,100,50", "0,0 100,0 100,50", "0,0; 100,0; 100,50"])
def test_points_are_read_in_every_common_spelling(text: str) -> None:
    assert points_of("--roi", text) == [(0, 0), (100, 0), (100, 50)]


@pytest.mark.parametrize("text", ["", "a,b", "1,2,3", "1;nan,2,"])
def test_text_that_holds_no_points_says_what_was_expected(text: str) -> None:
    with pytest.raises(ConfigError, match="--roi: expected points in pixels as x1,y1,x2,y2"):
        points_of("--roi", text)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([(0, 0), (9, 9)], "needs three points"),
        ([(0, 0), (9, 0), (5, 0)], "enclose no area"),
        ([(0, 0), (float("nan"), 0), (5, 5)], "expected points"),
        ([(0, 0), (1e9, 0), (5, 5)], "expected points"),
        ([(0, 0, 1), (9, 0, 1), (5, 5, 1)], "expected points"),
        ([(0, 0), (9,), (5, 5)], "expected points"),
        ("0,0,9,9", "expected points"),
        (None, "expected points"),
    ],
)
def test_what_is_no_polygon_is_an_error_that_says_why(points: object, said: str) -> None:
    with pytest.raises(ConfigError, match=f"roi: .*{said}"):
        polygon("roi", points)  # type: ignore[arg-type]


@pytest.mark.parametrize("points", [[(0, 0)], [(3, 3), (3, 3)], [(0, 0), (1, 1), (2, 2)]])
def test_a_line_has_two_ends(points: list[tuple[int, int]]) -> None:
    with pytest.raises(ConfigError, match="a line needs two different points"):
        line("door", points)
