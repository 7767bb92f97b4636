"""A comparison: trials are done once, in processes of their own; the summary and its tables say what they found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tubelet.bench import video_sets
from tubelet.bench.runner import Plan, chosen_images, compare, comparison_tables, prepare, runs, summarise
from tubelet.bench.trial import FIGURES, PREDICTIONS, TRIAL
from tubelet.core.errors import InputError, TubeletError
from tubelet.core.types import Prediction, VideoSet
from tubelet.evaluation.measures import measure
from tubelet.formats import ytvis
from tubelet.models.weights import start_from
from tubelet.recipes.small import SYSTEMS

PARTS: tuple[video_sets.SplitName, ...] = ("train", "test")
PLAN = Plan(train=1, test=2, times=0.002, seeds=(0, 1))


@pytest.fixture
def short_grades(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = video_sets.PLAIN.override("frames=3", "objects=[2, 2]")
    monkeypatch.setattr(video_sets, "GRADES", {"plain": plain, "blur": plain.override("shakes=0.5")})


def shifted(videos: VideoSet, skill: float) -> list[Prediction]:
    """The truth with a share of its objects left out, from the last one on."""
    answers = []
    for video in videos.videos:
        tracks = [replace(t, score=0.9) for t in video.tracks or () if not t.ignore]
        kept = tuple(tracks[: round(skill * len(tracks))])
        answers.append(
            Prediction(video=video.id, size=video.size, length=len(video), tracks=kept, classes=videos.classes)
        )
    return answers


def finished(out: Path, row: str, seed: int, test: VideoSet, skill: float) -> None:
    """A trial folder as `run_trial` leaves it."""
    place = out / "generated" / f"{row}-{seed}"
    place.mkdir(parents=True)
    guesses = shifted(test, skill)
    ytvis.write_predictions(place / PREDICTIONS, guesses)
    cost = {"fps": 10.0 + seed, "peak_mb": 900.0, "parameters": 2e6, "train_s": 88.0}
    (place / TRIAL).write_text(json.dumps(measure(test.videos, guesses, FIGURES) | cost))


@pytest.fixture
def summary(tmp_path: Path, short_grades: None) -> dict[str, Any]:
    sets = prepare(tmp_path, "generated", PLAN)
    test = ytvis.read(sets.test / "instances.json")
    for seed in PLAN.seeds:
        finished(tmp_path, "masktrack", seed, test, 0.5)
        finished(tmp_path, "sta", seed, test, 1.0)
    (tmp_path / "generated" / "ifr-0").mkdir()  # one that is not finished
    return summarise(tmp_path, "generated", PLAN)


def test_the_summary_holds_every_finished_trial_and_survives_json(summary: dict[str, Any]) -> None:
    assert list(summary["rows"]) == ["masktrack", "sta"]
    assert [trial["seed"] for trial in summary["rows"]["sta"]["trials"]] == [0, 1]
    assert summary["test"] == {"videos": 4, "frames": 12, "objects": 8}
    assert json.loads(json.dumps(summary)) == summary
    assert summary["plan"]["seeds"] == [0, 1]


def test_the_gain_is_the_difference_of_mean_ap_and_the_base_has_none(summary: dict[str, Any]) -> None:
    rows = summary["rows"]
    value, low, high = rows["sta"]["gain"]
    difference = [rows["sta"]["trials"][n]["AP"] - rows["masktrack"]["trials"][n]["AP"] for n in (0, 1)]
    assert value == pytest.approx(sum(difference) / 2)
    assert low <= value <= high
    assert rows["masktrack"]["gain"] is None


def test_failures_and_grades_are_told_apart(summary: dict[str, Any]) -> None:
    assert summary["rows"]["masktrack"]["failures"][0]["missed"] == 4
    assert summary["rows"]["sta"]["failures"][0] == {}
    assert summary["rows"]["sta"]["trials"][0]["AP, any class"] == 1.0
    assert summary["rows"]["sta"]["grades"][0] == {"plain": 1.0, "blur": 1.0}


def test_oracles_say_which_stage_ap_was_lost_in(summary: dict[str, Any]) -> None:
    half, whole = (summary["rows"][row]["ceilings"][0] for row in ("masktrack", "sta"))
    assert half["true masks"] == pytest.approx(summary["rows"]["masktrack"]["trials"][0]["AP"])
    assert half["nothing missed"] == pytest.approx(1)
    assert list(whole.values()) == pytest.approx([1] * len(whole))
    told = comparison_tables(summary, ["masktrack"])
    assert "| AP with | prediction | true classes | true identities |" in told


def test_tables_show_means_deviations_gains_and_the_papers_figures(summary: dict[str, Any]) -> None:
    told = comparison_tables(summary, ["masktrack", "sta"])
    assert "| STA | 100.0 ± 0.0 |" in told
    assert "10.5 ± 0.7" in told  # frames a second
    assert "40.0" in told  # AP of the paper
    assert "**+" in told  # a gain whose interval leaves 0 out
    assert "AP of | plain | blur" in told


def test_a_folder_begun_with_another_plan_is_refused(tmp_path: Path, short_grades: None) -> None:
    prepare(tmp_path, "generated", PLAN)
    prepare(tmp_path, "generated", PLAN.but(seeds=(5,)))
    with pytest.raises(InputError, match="choose another --out"):
        prepare(tmp_path, "generated", PLAN.but(times=1.0))


def test_an_image_in_both_lists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(json.dumps({"train": [1, 2], "val": [2]}))
    with pytest.raises(InputError, match="both lists"):
        chosen_images("train", tmp_path / "instances.json", tmp_path / "split.json")


def test_lists_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text("{}")
    for lists in ({"train": [{}], "val": [[]]}, {"train": 1, "val": "x"}):
        (tmp_path / "split.json").write_text(json.dumps(lists))
        with pytest.raises(TubeletError):
            chosen_images("train", tmp_path / "instances.json", tmp_path / "split.json")


def test_a_folder_without_trials_is_refused(tmp_path: Path, short_grades: None) -> None:
    prepare(tmp_path, "generated", PLAN)
    with pytest.raises(InputError, match="no finished trial"):
        summarise(tmp_path, "generated", PLAN)


def test_the_pasted_set_needs_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--coco"):
        prepare(tmp_path, "pasted", PLAN)
    assert not (tmp_path / "sets").exists() or not any((tmp_path / "sets").iterdir())


def test_images_held_out_are_in_no_training_video(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 8, "width": 8} for n in range(10, 17)]
    instances, split = tmp_path / "instances.json", tmp_path / "split.json"
    instances.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "dog"}]}))
    (tmp_path / "images").mkdir()
    train, test = ({v.id for v in chosen_images(part, instances, None).videos} for part in PARTS)
    assert test == {"10", "15"}
    assert train == {str(n) for n in range(10, 17)} - test
    split.write_text(json.dumps({"train": [12], "val": [11, 14]}))
    assert [[v.id for v in chosen_images(part, instances, split).videos] for part in PARTS] == [["12"], ["11", "14"]]


def test_a_trial_runs_in_a_process_of_its_own_and_only_once(tmp_path: Path, short_grades: None) -> None:
    plan = PLAN.but(seeds=(0,), test=1)
    wanted = runs(tmp_path, "generated", prepare(tmp_path, "generated", plan), plan, ["masktrack"], "cpu")
    told: list[str] = []
    compare(wanted, 1, lambda run, _: told.append(run.row))
    compare(wanted, 1, lambda run, _: told.append(run.row))
    assert told == ["masktrack"]
    assert summarise(tmp_path, "generated", plan)["rows"]["masktrack"]["trials"][0]["parameters"] > 1e6


def test_every_row_starts_from_the_bundled_trunk() -> None:
    for row in SYSTEMS.values():
        assert row.init == "ssdlite"
        model = row.model.build(("a", "b"))
        random = [key for key in start_from(model, row.init) if ".body." in key]
        assert [key for key in random if not key.startswith("network.backbone.body.") or ".trunk." in key] == []
