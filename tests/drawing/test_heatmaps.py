"""Heat over a frame: bright where the weights are, and the frame still to be seen elsewhere."""

from __future__ import annotations

import numpy as np

from tubelet.drawing.heatmaps import heat, mark

IMAGE = np.full((40, 60, 3), 120, np.uint8)


def test_the_brightest_place_is_where_the_weight_is() -> None:
    weights = np.zeros((4, 6))
    weights[3, 5] = 0.2
    drawn = heat(IMAGE, weights).astype(int).sum(-1)
    assert tuple(np.unravel_index(drawn.argmax(), drawn.shape) >= np.array([34, 52])) == (True, True)
    assert drawn[:20, :30].max() < drawn[36, 56]


def test_without_weights_the_frame_is_dimmed_and_no_more() -> None:
    for weights in (np.zeros((4, 6)), np.full((4, 6), np.nan)):
        drawn = heat(IMAGE, weights)
        assert len(np.unique(drawn)) == 1
        assert 0 < drawn[0, 0, 0] < 120


def test_the_scale_of_the_weights_does_not_matter() -> None:
    weights = np.random.default_rng(0).random((5, 7))
    assert np.array_equal(heat(IMAGE, weights), heat(IMAGE, weights * 1e-6))


def test_a_mark_surrounds_its_point_and_leaves_the_image_alone() -> None:
    drawn = mark(IMAGE, (30.0, 20.0))
    assert (IMAGE == 120).all()
    changed = np.argwhere((drawn != 120).any(-1))
    assert abs(changed.mean(0) - (20, 30)).max() < 1.5
