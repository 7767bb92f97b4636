"""Validation while training: it changes nothing, keeps the best weights, and survives any kill."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from toy_training import Scores, ToyModel, closeness

from tubelet.core.errors import TubeletError
from tubelet.training import checkpoint
from tubelet.training.checkpoint import read_tensors
from tubelet.training.log import read_metrics
from tubelet.training.validation import interval


@pytest.mark.parametrize("ema", [None, 0.9])
def test_losses_and_model_are_the_same_with_and_without_validation(fit, metrics, tmp_path: Path, ema):
    fit("without", ToyModel(noise=0.3), ema=ema)
    fit("with", ToyModel(noise=0.3), ema=ema, validation=Scores(closeness))
    assert [line for line in metrics("with") if "lr" in line] == metrics("without")
    assert (tmp_path / "with/model.safetensors").read_bytes() == (tmp_path / "without/model.safetensors").read_bytes()


def test_the_best_weights_are_kept_and_named(fit, metrics, tmp_path: Path):
    scores = Scores([0.1, 0.3, 0.3, 0.2])
    outcome = fit("run", validation=scores, describe={"config": "{}", "classes": '["dog"]'})
    assert scores.steps == [2, 4, 6, 8]
    assert outcome.best == tmp_path / "run/best.safetensors"
    with safe_open(outcome.best, "pt") as file:
        about = file.metadata()
    assert (about["config"], about["classes"], about["tubelet"]) == ("{}", '["dog"]', "1")
    assert json.loads(about["validation"]) == {"step": 6, "AP": 0.3, "AP50": 0.5}
    best = read_tensors(outcome.best)
    assert all(torch.equal(best[name], tensor) for name, tensor in scores.seen[2].items())
    assert scores.sheets == {6, 8}
    lines = [line for line in metrics("run") if "validation_AP" in line]
    assert lines[1] == {"step": 4, "validation_AP": 0.3, "validation_AP50": 0.5}


def test_the_start_is_kept_where_no_later_weights_are_better(fit, metrics, tmp_path: Path):
    model = ToyModel()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    values = iter([0.5, 0.1, 0.3])
    scores = Scores(lambda model: next(values))
    scores.start = True
    fit("run", model, iterations=4, ema=0.9, validation=scores)

    assert scores.steps == [0, 2, 4]
    best = read_tensors(tmp_path / "run/best.safetensors")
    assert all(torch.equal(best[name], tensor) for name, tensor in start.items())
    assert [line["step"] for line in metrics("run") if "validation_AP" in line] == [0, 2, 4]

    fit("run", model, iterations=4, ema=0.9, validation=scores, resume=True)  # judges the start only once
    assert scores.steps == [0, 2, 4]


def test_the_moving_average_is_what_is_validated(fit, tmp_path: Path):
    scores = Scores([0.1], every=2)
    model = ToyModel()
    fit("run", model, iterations=2, ema=0.9, validation=scores)
    final = read_tensors(tmp_path / "run/model.safetensors")
    assert all(torch.equal(final[name], tensor) for name, tensor in scores.seen[0].items())
    assert not torch.equal(final["head.weight"], model.head.weight)


def test_by_default_a_training_is_validated_ten_times_and_at_its_end_a_short_one_less_often(fit):
    assert [interval(None, steps) for steps in (100, 1000, 45_000)] == [250, 250, 4500]
    scores = Scores(closeness, every=10)
    fit("run", iterations=25, validation=scores)
    assert scores.steps == [10, 20, 25]


def test_training_stops_when_patience_is_at_an_end(fit, tmp_path: Path):
    scores = Scores([0.1, 0.3, 0.2, 0.2, 0.9])
    outcome = fit("run", iterations=10, patience=2, validation=scores)
    assert (outcome.step, outcome.finished) == (8, True)
    again = Scores([0.1, 0.3, 0.2, 0.2, 0.9])
    assert fit("run", ToyModel(seed=4), iterations=10, patience=2, validation=again, resume=True).finished
    assert again.steps == []
    assert fit("run", iterations=10, patience=3, validation=again, resume=True).step == 10
    assert again.steps == [10]


def test_a_number_that_is_not_finite_is_never_the_best(fit):
    outcome = fit("run", validation=Scores([float("nan"), 0.1, float("nan"), float("inf")]))
    with safe_open(outcome.best, "pt") as file:
        assert json.loads(file.metadata()["validation"])["step"] == 4


class Killed(Exception):
    """As a kill would, it leaves everything where it is."""


@pytest.mark.parametrize("seed", range(3))
def test_killed_five_times_at_random_the_best_weights_and_the_log_are_the_same(fit, metrics, tmp_path: Path, seed):
    same = {"iterations": 20, "checkpoint_every": 3, "log_every": 2, "ema": 0.8}
    fit("whole", ToyModel(noise=0.2), validation=Scores(closeness), **same)
    kills = sorted(random.Random(seed).sample(range(2, 20), 5))

    class Mortal(ToyModel):
        def forward(self, clips):
            if kills and self.seen == kills[0]:
                kills.pop(0)
                raise Killed
            return super().forward(clips)

    for _ in range(5):
        with pytest.raises(Killed):
            fit("killed", Mortal(noise=0.2), validation=Scores(closeness), resume=True, **same)
    fit("killed", ToyModel(noise=0.2, seed=9), validation=Scores(closeness), resume=True, **same)
    assert metrics("killed") == metrics("whole")
    for name in ("best.safetensors", "model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_best_value_is_forgotten_where_it_was_measured_otherwise(fit, caplog: pytest.LogCaptureFixture):
    fit("run", iterations=2, validation=Scores([0.9]))
    other = Scores([0.9, 0.1, 0.2])
    other.settings = "other videos"
    outcome = fit("run", iterations=6, validation=other, resume=True)
    with safe_open(outcome.best, "pt") as file:
        assert json.loads(file.metadata()["validation"])["step"] == 6


def test_a_checkpoint_from_before_validation_is_resumed(fit, metrics):
    fit("whole", iterations=6)
    outcome = fit("old", iterations=3)
    progress = json.loads((outcome.checkpoint / "progress.json").read_text())
    for name in ("validations", "best", "best_step", "without_better", "validated_by", "advised", "clips_read"):
        del progress[name]
    (outcome.checkpoint / "progress.json").write_text(json.dumps(progress))
    settings = json.loads((outcome.checkpoint / "settings.json").read_text())
    settings["train"]["patience"] = 10  # what `most_skipped` was called
    del settings["train"]["most_skipped"]
    (outcome.checkpoint / "settings.json").write_text(json.dumps(settings))
    fit("old", iterations=6, resume=True, validation=Scores(closeness))
    assert [line for line in metrics("old") if "lr" in line] == metrics("whole")


def test_a_full_disk_at_the_best_weights_is_one_line_and_training_goes_on_from_there(
    fit, metrics, monkeypatch: pytest.MonkeyPatch
):
    fit("whole", validation=Scores(closeness))
    write = checkpoint.write_tensors

    def full(path: Path, *given: object) -> None:
        if path.name.endswith("best.safetensors"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *given)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_tensors", full)
        with pytest.raises(TubeletError, match=r"cannot write .*best\.safetensors: No space left .*--resume$"):
            fit("full", validation=Scores(closeness), checkpoint_every=1)
    fit("full", validation=Scores(closeness), checkpoint_every=1, resume=True)
    assert metrics("full") == metrics("whole")


def test_off_a_terminal_each_line_of_the_log_is_reported(fit, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "tubelet.progress")
    fit("run", iterations=4, log_every=2, validation=Scores([0.1, 0.05]))
    first, validated, second, last = [r.message for r in caplog.records if r.name == "tubelet.progress"]
    assert first.startswith("step 2/4  loss ")
    assert "clips/s" in first
    assert first.endswith(" left")
    assert validated == "step 2 validated: AP 10.0  AP50 50.0 (the best so far)"
    assert "AP 10.0  lr" in second
    assert last.endswith("(best 10.0 at step 2)")


def test_quiet_reports_nothing(fit, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "tubelet.progress")
    fit("run", iterations=4, validation=Scores(closeness), quiet=True)
    assert not [record for record in caplog.records if record.name == "tubelet.progress"]


def test_the_curve_shows_losses_and_validation(fit, tmp_path: Path):
    fit("run", validation=Scores(closeness), curve=True)
    assert (tmp_path / "run/curve.png").read_bytes().startswith(b"\x89PNG")
    assert any("validation_AP" in line for line in read_metrics(tmp_path / "run/metrics.jsonl"))
