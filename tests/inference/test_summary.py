"""The summary of a prediction: counted by class, one row per object, safe in a terminal and in HTML."""

from __future__ import annotations

from toy import Toy, moving_patches
from tubelet.inference.predict import predict
from tubelet.inference.summary import Summary, SummaryRow
from tubelet.video.reader import open_video


def test_a_summary_counts_classes_and_says_when_objects_are_seen() -> None:
    frames = moving_patches(5)
    frames[:2] = moving_patches(2, colours=("red",))
    prediction = predict(Toy(shrink=1), open_video(frames, fps=10))
    summary = prediction.summary()
    assert summary.counts == {"red": 1, "blue": 1}
    assert summary.heading == "1 red, 1 blue in 5 frames"
    assert [(row.id, row.frames, row.first, row.last) for row in summary] == [(0, 5, 0.0, 0.4), (1, 3, 0.2, 0.4)]
    assert str(summary).splitlines()[2].split() == ["0", "red", "0.90", "5", "0.00", "s", "0.40", "s"]


def test_nothing_found_is_one_line() -> None:
    assert str(Summary((), frames=3)) == "no object in 3 frames"


def test_names_from_files_are_escaped() -> None:
    summary = Summary((SummaryRow(1, "<b>\x1b[2J", 0.9, 1, 0.0, 0.0),), frames=1)
    assert "\x1b" not in str(summary)
    assert "<b>" not in summary._repr_html_()
