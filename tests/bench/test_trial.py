"""A trial trains, predicts and measures; its figures are those of the evaluators, and it is not done twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tubelet.bench.trial import TRIAL, measure, run_trial, spread, table
from tubelet.core.types import Prediction, Track, VideoSet
from tubelet.recipes import find
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate

WORLD = Synthetic(height=72, width=96, frames=4, objects=(2, 2), look_alikes=0, occluders=(0, 0), leaving=0)


@pytest.fixture(scope="module")
def test_set() -> VideoSet:
    return generate(WORLD, 5, 3)


def answers(videos: VideoSet, score: float = 0.9) -> list[Prediction]:
    """The truth itself as predictions."""
    return [
        Prediction(
            video=video.id,
            size=video.size,
            length=len(video),
            tracks=tuple(replace(track, score=score) for track in video.tracks or ()),
            classes=videos.classes,
        )
        for video in videos.videos
    ]


def test_the_truth_is_worth_everything(test_set: VideoSet) -> None:
    figures = measure(test_set, answers(test_set))
    assert {figures[name] for name in ("AP", "AP50", "AP75", "AR10", "J&F", "J", "F", "IDF1", "MOTA", "HOTA")} == {1.0}
    assert figures["IDs"] == 0


def test_objects_below_the_score_threshold_do_not_count_for_identities_but_for_the_best_threshold(
    test_set: VideoSet,
) -> None:
    figures = measure(test_set, answers(test_set, score=0.2))
    assert figures["IDF1"] == 0
    assert figures["IDF1_best"] == 1
    assert figures["AP"] == 1


def test_exchanged_identities_are_switches(test_set: VideoSet) -> None:
    swapped = []
    for guess in answers(test_set):
        first, second, *rest = guess.tracks
        half = guess.length // 2
        crossed = (
            replace(first, rles=(*first.rles[:half], *second.rles[half:])),
            replace(second, rles=(*second.rles[:half], *first.rles[half:])),
        )
        swapped.append(replace(guess, tracks=(*crossed, *rest)))
    figures = measure(test_set, swapped)
    assert figures["IDs"] == 6
    assert figures["IDF1"] < 1


def test_the_best_of_two_proposals_takes_the_disputed_pixels(test_set: VideoSet) -> None:
    doubled = []
    for guess in answers(test_set):
        everything = Track(id=99, label=0, score=0.1, rles=guess.tracks[0].rles)
        doubled.append(replace(guess, tracks=(everything, *guess.tracks)))
    assert measure(test_set, doubled)["J"] == 1


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
