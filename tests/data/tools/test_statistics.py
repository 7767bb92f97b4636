from __future__ import annotations

import numpy as np
import pytest
import torch

from tubelet.core import masks
from tubelet.core.types import Track, Video, VideoSet
from tubelet.data.tools.statistics import draw, measure


def square(x: int, side: int) -> masks.RLE:
    mask = np.zeros((1, 20, 40), bool)
    mask[0, 2 : 2 + side, x : x + side] = True
    return masks.encode(mask)[0]


@pytest.fixture
def videos() -> VideoSet:
    tracks = (
        Track(id=1, label=1, score=1.0, rles=(square(0, 8), None, square(0, 8), square(3, 8))),
        Track(id=2, label=1, score=1.0, rles=(square(4, 8), square(8, 8), None, None)),
        Track(id=3, label=0, score=1.0, rles=(square(0, 8), None, None, None), ignore=True),
    )
    frames = [torch.zeros(3, 20, 40, dtype=torch.uint8)] * 4
    return VideoSet(videos=[Video(id="v", size=(20, 40), frames=frames, tracks=tracks)], classes=("a", "b"))


def test_numbers_are_those_of_the_annotations(videos):
    found = measure(videos)
    assert found.lengths == [4]
    assert found.objects == [2]
    assert found.at_once == [2]
    assert found.ignored == 1
    assert found.classes == {"a": 0, "b": 2}
    assert found.presence == [0.75, 0.5]
    assert found.gaps == 1
    assert found.areas == pytest.approx([(64 / 800) ** 0.5] * 5)
    diagonal = np.hypot(20, 40)
    assert found.motion == pytest.approx([3 / diagonal, 4 / diagonal])
    assert found.overlap == pytest.approx([32 / 96])  # frame 0: boxes of 8 x 8 that share 4 x 8


def test_an_empty_set_has_numbers_too():
    found = measure(VideoSet(videos=[], classes=("a",)))
    assert dict(found.rows())["videos"] == "0"


def test_the_picture_is_a_png(videos, generated, tmp_path):
    draw(measure(generated), tmp_path / "stats.png")
    assert (tmp_path / "stats.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["stats.png"]
