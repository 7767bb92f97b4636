"""Training curves: drawn from what a run logged, whatever a kill left of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tubelet.core.errors import FormatError, InputError
from tubelet.drawing.curves import smoothed, training_curve


def log(path: Path, steps: range, **more: float) -> Path:
    with path.open("a") as file:
        for step in steps:
            row = {"step": step, "lr": 0.01, "loss": 2.0 / (step + 1), "loss_mask": 1.0 / (step + 1), **more}
            file.write(json.dumps(row) + "\n")
    return path


def test_a_curve_is_a_picture_with_something_on_it(tmp_path: Path) -> None:
    training_curve(log(tmp_path / "metrics.jsonl", range(50)), tmp_path / "new" / "curve.png")
    with Image.open(tmp_path / "new" / "curve.png") as image:
        assert image.size == (1200, 720)
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["curve.png"]


def test_a_line_cut_short_by_a_kill_and_steps_logged_twice_do_no_harm(tmp_path: Path) -> None:
    metrics = log(log(tmp_path / "metrics.jsonl", range(20)), range(10, 15))
    plain = log(tmp_path / "plain.jsonl", range(20))
    with metrics.open("a") as file:
        file.write('\n{"step": 15, "lo')
    for source in (metrics, plain):
        training_curve(source, source.with_suffix(".png"))
    first, second = (np.asarray(Image.open(source.with_suffix(".png"))) for source in (metrics, plain))
    assert np.array_equal(first, second)


def test_one_step_without_a_rate_and_losses_that_exploded_can_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"step": 0, "loss": 0.0}\n')
    (tmp_path / "b.jsonl").write_text(
        '{"step": 0, "loss": 1}\n{"step": 1, "loss": NaN}\n{"step": 2, "loss": Infinity}\n'
    )
    for name in ("a", "b"):
        training_curve(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("text", "error", "expected"),
    [
        (None, InputError, "no such file"),
        ("", InputError, "no step is logged yet"),
        ("hello\n{}\n", FormatError, "line 1: expected one JSON object"),
        ('{"loss": 1}\n', FormatError, "line 1: expected an object with a step"),
        ('{"step": 1}\n{"step": 2}\n', FormatError, "no line holds a loss"),
        (f'{{"step": 1, "loss": 1{"0" * 400}}}\n', FormatError, "line 1: expected numbers that can be drawn"),
    ],
)
def test_what_is_no_log_is_said(text: str | None, error: type[Exception], expected: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(error, match=expected):
        training_curve(tmp_path / "metrics.jsonl", tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 20))
def test_smoothing_stays_between_the_least_and_the_greatest_value(values: list[float], span: float) -> None:
    means = smoothed(np.array(values), span)
    assert means.shape == (len(values),)
    assert means.min() >= min(values) - 1e-6
    assert means.max() <= max(values) + 1e-6
    assert means[0] == pytest.approx(values[0])


def test_no_smoothing_changes_nothing_and_a_constant_stays() -> None:
    values = np.array([3.0, -1.0, 4.0])
    assert smoothed(values, 0) == pytest.approx(values)
    assert smoothed(np.full(9, 2.5), 5) == pytest.approx([2.5] * 9)
    assert smoothed(np.array([1.0, np.nan, 1.0]), 2) == pytest.approx([1.0] * 3)


def test_the_room_does_not_import_matplotlib() -> None:
    program = "import sys, tubelet.drawing.curves, tubelet.drawing.overlay; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
