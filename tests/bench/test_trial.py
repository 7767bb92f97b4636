"""A trial trains, predicts and measures, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tubelet.bench.trial import TRIAL, run_trial, spread, table
from tubelet.core.types import VideoSet
from tubelet.recipes import find
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate

WORLD = Synthetic(height=72, width=96, frames=4, objects=(2, 2), look_alikes=0, occluders=(0, 0), leaving=0)


@pytest.fixture(scope="module")
def test_set() -> VideoSet:
    return generate(WORLD, 5, 3)


def test_a_trial_is_run_once_and_its_figures_are_kept(test_set: VideoSet, tmp_path: Path) -> None:
    recipe = find("masktrack/generated").override(
        "data.videos=2",
        "data.world.frames=3",
        "data.world.height=72",
        "data.world.width=96",
        "model.detector.input.resize.long=96",
        "model.detector.input.resize.short=72",
        "train.iterations=2",
        "train.batch_size=1",
        "train.workers=0",
    )
    figures = run_trial(recipe, test_set, tmp_path / "run")
    assert json.loads((tmp_path / "run" / TRIAL).read_text()) == figures
    assert figures["parameters"] > 1e6
    assert figures["fps"] > 0
    written = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert run_trial(recipe, test_set, tmp_path / "run") == figures
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == written


def test_a_table_shows_mean_and_deviation() -> None:
    trials = [{"AP": 0.2, "IDs": 3.0}, {"AP": 0.4, "IDs": 5.0}]
    assert spread(trials)["AP"] == pytest.approx((0.3, 0.1414), abs=1e-4)
    assert table({"one": trials, "two": trials[:1]}, ["AP", "IDs"]).splitlines()[2:] == [
        "| one | 30.0 ± 14.1 | 4.0 ± 1.4 |",
        "| two | 20.0 ± 0.0 | 3.0 ± 0.0 |",
    ]
