"""Counting at lines and in zones, on paths whose counts are known."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from toy import Toy, moving_patches
from tubelet.core.errors import ConfigError
from tubelet.inference import results
from tubelet.inference.counting import Counting, ObjectCounter
from tubelet.inference.predict import predict
from tubelet.inference.results import VideoPrediction
from tubelet.video.reader import open_video

SIZE = (100, 100)
LEVEL = Counting(lines={"door": ((20, 50), (80, 50))})
SQUARE = Counting(zones={"lawn": ((30, 30), (70, 30), (70, 70), (30, 70))})


def walk(counting: Counting, points: Sequence[tuple[float, float] | None], period: float = 0.1) -> ObjectCounter:
    """Count one object whose centre is at these points, None where it is not seen."""
    counter = ObjectCounter(counting, SIZE, period)
    for t, point in enumerate(points):
        ids = [] if point is None else [7]
        x, y = point or (0.0, 0.0)
        boxes = np.array([[x - 2, y - 4, x + 2, y + 4]] * len(ids)).reshape(-1, 4)
        counter.add(t, t * period, ids, ["dog"] * len(ids), boxes)
    return counter


def directions(counter: ObjectCounter) -> list[str]:
    return [crossing.direction for crossing in counter.crossings]


def test_towards_the_left_hand_is_in_and_back_is_out() -> None:
    assert directions(walk(LEVEL, [(50, 60), (50, 40)])) == ["in"]
    assert directions(walk(LEVEL, [(50, 40), (50, 60)])) == ["out"]
    turned = Counting(lines={"door": ((80, 50), (20, 50))})
    assert directions(walk(turned, [(50, 60), (50, 40)])) == ["out"]
    upright = Counting(lines={"door": ((50, 20), (50, 80))})
    assert directions(walk(upright, [(40, 50), (60, 50), (40, 50)])) == ["in", "out"]


def test_a_crossing_tells_who_and_when() -> None:
    (crossing,) = walk(LEVEL, [(50, 70), (50, 60), (50, 40), (50, 30)]).crossings
    assert (crossing.frame, crossing.time, crossing.line, crossing.id, crossing.name) == (2, 0.2, "door", 7, "dog")


def test_who_passes_beside_the_line_does_not_cross_it() -> None:
    assert directions(walk(LEVEL, [(10, 60), (10, 40)])) == []
    assert directions(walk(LEVEL, [(90, 60), (90, 40), (50, 40), (50, 60)])) == ["out"]


def test_a_box_that_trembles_on_the_line_is_counted_once() -> None:
    trembling = [(50.0, 60.0)] + [(50.0, 50 + 0.6 * (-1) ** t) for t in range(20)] + [(50.0, 40.0)]
    assert directions(walk(LEVEL, trembling)) == ["in"]
    assert directions(walk(LEVEL, trembling[:-1])) == []


def test_who_is_hidden_while_crossing_is_counted() -> None:
    assert directions(walk(LEVEL, [(50, 60), None, None, (50, 40)])) == ["in"]


def test_the_bottom_of_a_box_can_be_what_counts() -> None:
    path = [(50.0, 52.0), (50.0, 48.0), (50.0, 44.0)]
    assert directions(walk(LEVEL, path[:2])) == ["in"]
    on_the_ground = LEVEL.but(anchor="bottom")  # 4 pixels lower
    assert directions(walk(on_the_ground, path[:2])) == []
    assert directions(walk(on_the_ground, path)) == ["in"]


def test_time_in_a_zone_is_that_of_the_frames_inside() -> None:
    counter = walk(SQUARE, [(10, 50), (40, 50), (50, 50), (60, 50), (90, 50), None, (50, 50)])
    visit = counter.visits["lawn", 7]
    assert visit.seconds == pytest.approx(0.4)
    assert (visit.entries, visit.first, visit.last) == (2, 0.1, pytest.approx(0.6))
    assert counter.occupied("lawn") == 1


def test_who_is_not_seen_for_a_moment_does_not_enter_again() -> None:
    counter = walk(SQUARE, [(50, 50), None, (50, 50)])
    assert counter.visits["lawn", 7].entries == 1


def test_an_endless_stream_forgets_who_is_gone() -> None:
    counter = ObjectCounter(SQUARE, SIZE, 0.1, memory=1.0)
    for t in range(100):
        counter.add(t, t / 10, [t], ["dog"], np.array([[48, 48, 52, 52]]))
    assert len(counter.visits) <= 12


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"lines": {"door": [[0, 0]]}}, "line 'door': a line needs two different points"),
        ({"zones": {"lawn": [[0, 0], [1, 1]]}}, "zone 'lawn': a polygon needs three points"),
        ({}, "expected a line or a zone"),
        ({"lines": {"door": [[0, 0], [9, 0]]}, "anchor": "top"}, "anchor"),
        ({"line": {}}, "line"),
    ],
)
def test_what_cannot_be_counted_is_an_error_that_says_why(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Counting(**fields)


@pytest.fixture(scope="module")
def prediction() -> VideoPrediction:
    """Red and blue drift to the right, each over the middle of the frame."""
    return predict(Toy(shrink=1), open_video(moving_patches(12), fps=10))


LEFT_HALF = ((0, 0), (32, 0), (32, 48), (0, 48))
MIDDLE = Counting(lines={"middle": ((32, 0), (32, 48))}, zones={"left": LEFT_HALF, "nowhere": ((0, 0), (1, 0), (1, 1))})


def test_a_prediction_is_counted_by_line_class_and_identity(prediction: VideoPrediction) -> None:
    counts = prediction.count(MIDDLE)
    assert [tuple(row) for row in counts.lines] == [("middle", "blue", 1, 0), ("middle", "red", 1, 0)]
    inside = {visit.id: visit.seconds for visit in counts.visits}
    for track in prediction:
        centres = track.boxes[:, [0, 2]].mean(1)
        assert inside[track.id] == pytest.approx((centres < 32).sum() / 10)
    assert "middle: 1 red in, 0 out" in str(counts)


def test_counts_are_written_beside_the_other_results(prediction: VideoPrediction, tmp_path: Path) -> None:
    prediction.save(tmp_path, video=False, counting=MIDDLE)
    names = ("counts.csv", "crossings.csv", "zones.csv")
    counts, crossings, zones = [list(csv.reader((tmp_path / name).open())) for name in names]
    assert counts == [["line", "class", "in", "out"], ["middle", "blue", "1", "0"], ["middle", "red", "1", "0"]]
    assert [row[2:] for row in crossings[1:]] == [["middle", "1", "blue", "in"], ["middle", "0", "red", "in"]]
    assert [row[:4] for row in zones[1:]] == [["left", "0", "red", "1"], ["left", "1", "blue", "1"]]


def test_lines_and_zones_are_drawn_on_the_overlay_with_the_numbers_so_far(
    prediction: VideoPrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []

    def note(picture: np.ndarray, points: object, text: str) -> np.ndarray:
        texts.append(text)
        return picture

    monkeypatch.setattr(results, "draw_shape", note)
    prediction.save(tmp_path, counting=MIDDLE)
    assert texts[:3] == ["left: 2", "nowhere: 0", "middle: 0 in, 0 out"]
    assert texts[-3:] == ["left: 0", "nowhere: 0", "middle: 2 in, 0 out"]


def test_counting_takes_no_other_argument(prediction: VideoPrediction) -> None:
    with pytest.raises(ConfigError, match=r"counting: expected a tubelet\.Counting"):
        prediction.count({"lines": {}})  # type: ignore[arg-type]
