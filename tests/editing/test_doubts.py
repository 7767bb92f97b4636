"""The places at which an editor looks first."""

from __future__ import annotations

import numpy as np
import pytest

from tubelet.core import masks
from tubelet.core.records import Prediction, Track
from tubelet.editing.doubts import Doubt, doubts

SIZE = (20, 60)
LENGTH = 40


def moving(id: int, xs: dict[int, int], label: int = 0, score: float = 0.9) -> Track:
    """A square of 10 x 10 pixels whose left side is at xs[t] in frame t."""
    rles: list[masks.RLE | None] = [None] * LENGTH
    for t, x in xs.items():
        mask = np.zeros((1, *SIZE), bool)
        mask[0, 5:15, x : x + 10] = True
        (rles[t],) = masks.encode(mask)
    return Track(id=id, label=label, score=score, rles=tuple(rles))


def found(*tracks: Track) -> list[Doubt]:
    return doubts(Prediction(video="v", size=SIZE, length=LENGTH, tracks=tracks, classes=("dog", "cat")))


def test_a_sure_object_seen_all_the_time_is_no_doubt() -> None:
    assert found(moving(1, dict.fromkeys(range(LENGTH), 5))) == []


def test_a_low_score_is_looked_at_where_the_object_begins() -> None:
    assert found(moving(1, dict.fromkeys(range(3, 20), 5), score=0.5)) == [Doubt(3, (1,), "low score")]


def test_the_frame_after_a_gap_is_looked_at() -> None:
    assert found(moving(1, dict.fromkeys([*range(10), *range(20, 30), *range(33, 40)], 5))) == [Doubt(20, (1,), "gap")]


@pytest.mark.parametrize(("label", "reason", "frame"), [(0, "meeting", 4), (1, "twice", 5)])
def test_two_objects_that_meet_are_looked_at_once(label: int, reason: str, frame: int) -> None:
    still = moving(1, dict.fromkeys(range(LENGTH), 20))
    passing = moving(2, {t: 4 * t for t in range(12)}, label=label)
    assert found(still, passing) == [Doubt(frame, (1, 2), reason)]


def test_an_object_that_ends_where_another_begins_may_be_the_same() -> None:
    first = moving(1, dict.fromkeys(range(10), 5))
    near = moving(2, dict.fromkeys(range(14, LENGTH), 9))
    assert found(first, near) == [Doubt(14, (1, 2), "same object?")]
    assert found(first, moving(2, dict.fromkeys(range(14, LENGTH), 9), label=1)) == []
    assert found(first, moving(2, dict.fromkeys(range(14, LENGTH), 40))) == []
    assert found(first, moving(2, dict.fromkeys(range(30, LENGTH), 9))) == []


def test_an_empty_result_has_no_doubts() -> None:
    assert found() == []
