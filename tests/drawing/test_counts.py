"""Lines and zones on a frame: drawn where they are, with an arrow that points in, and their text inside the frame."""

from __future__ import annotations

import numpy as np
import pytest

from tubelet.drawing.counts import COLOUR, draw_shape

BLANK = np.zeros((180, 320, 3), np.uint8)


def is_drawn(image: np.ndarray, x: int, y: int) -> bool:
    return image[y, x].tolist() == list(COLOUR)


def test_a_line_is_drawn_with_an_arrow_to_the_side_that_is_in() -> None:
    image = draw_shape(BLANK, [(20, 90), (300, 90)], "door")
    assert is_drawn(image, 25, 90)
    assert is_drawn(image, 160, 82), "upwards, on the left hand of who walks to the right"
    turned = draw_shape(BLANK, [(300, 90), (20, 90)], "door")
    assert not is_drawn(turned, 160, 82)


def test_a_zone_is_closed() -> None:
    image = draw_shape(BLANK, [(100, 50), (200, 50), (200, 150)], "lawn")
    assert is_drawn(image, 125, 75), "from the last corner back to the first"
    assert not BLANK.any(), "the given picture stays"


@pytest.mark.parametrize("points", [[(-500, -500), (-400, -300)], [(310, 170), (900, 900)], [(0, 0), (1, 0), (1, 1)]])
def test_shapes_beyond_the_frame_are_no_error(points: list[tuple[int, int]]) -> None:
    assert draw_shape(np.zeros((8, 8, 3), np.uint8), points, "a long name for a small frame").shape == (8, 8, 3)
