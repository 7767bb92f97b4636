from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pair_training as pair
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed import TCPStore

from tubelet.core.errors import ConfigError
from tubelet.training.checkpoint import saved
from tubelet.training.log import read_metrics
from tubelet.training.parallel import units_of

TOGETHER = 7  # trainings and tries of pair_training.together


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All trainings, by two processes and, in `alone`, by one: one launch, because each takes seconds."""
    folder = tmp_path_factory.mktemp("pair")
    pair.BEGUN_ALONE.run(folder, steps=3)
    launch_two(folder)
    for job in (pair.TOY_SLICED, pair.REAL_SLICED, pair.BEGUN_ALONE):
        job.run(folder / "alone")
    pair.BEGUN_TOGETHER.run(folder, resume=True)
    return folder


def launch_two(folder: Path) -> None:
    """Start both; this process holds the meeting places, so that no port can be lost to another program before use."""
    places = [TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in range(TOGETHER)]
    command = [sys.executable, pair.__file__, str(folder), *(str(place.port) for place in places)]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    group = {**os.environ, "OMP_NUM_THREADS": "1", **group}
    other = subprocess.Popen(command, env={**group, "RANK": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        first = subprocess.run(command, env={**group, "RANK": "0"}, capture_output=True, text=True, timeout=300)
        assert first.returncode == 0, first.stderr
    finally:
        other.kill()
        other.communicate()


def log(out: Path) -> list[dict[str, Any]]:
    lines = read_metrics(out / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in ("samples_per_second", "waiting")} for line in lines]


def assert_same_training(one: Path, other: Path) -> None:
    """Losses, norms and final weights; 1e-5 of the largest, because sums are taken in another order."""
    assert len(log(one)) == len(log(other)) > 0
    for ours, theirs in zip(log(one), log(other), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-7)
    ours, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"mean", "seen"}:  # buffers are those of process 0, which saw its own clips
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("job", [pair.TOY_SLICED, pair.TOY_COPIED], ids=lambda job: job.out)
def test_two_processes_train_as_one_with_the_same_clips(runs: Path, job: pair.Job):
    """With bounded gradients, an average of the weights, parts of a step, and a head that few clips use."""
    assert_same_training(runs / job.out, runs / "alone" / pair.TOY_SLICED.out)


def test_all_refuse_a_step_that_is_not_finite_in_one(runs: Path):
    for job in (pair.TOY_SLICED, pair.TOY_COPIED):
        assert [line["skipped"] for line in log(runs / job.out) if "skipped" in line] == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("job", [pair.REAL_SLICED, pair.REAL_COPIED], ids=lambda job: job.out)
def test_two_processes_train_a_real_model_as_one(runs: Path, job: pair.Job):
    assert all(line["loss_rpn_box"] > 0 for line in log(runs / job.out))
    assert_same_training(runs / job.out, runs / "alone" / pair.REAL_SLICED.out)


@pytest.mark.parametrize("job", [pair.TOY_SLICED, pair.TOY_COPIED], ids=lambda job: job.out)
def test_two_processes_validate_the_whole_average_and_keep_the_best(runs: Path, job: pair.Job):
    lines = [line for line in log(runs / job.out) if "validation_AP" in line]
    assert [line["step"] for line in lines] == [3, 6]
    best = load_file(runs / job.out / "best.safetensors")
    alone = load_file(runs / "alone" / pair.TOY_SLICED.out / "best.safetensors")
    for name in best.keys() - {"mean", "seen"}:
        torch.testing.assert_close(best[name], alone[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_parameter_that_no_clip_uses_is_not_decayed(runs: Path):
    trained = load_file(runs / pair.TOY_SLICED.out / "model.safetensors")
    torch.testing.assert_close(trained["idle.weight"], pair.GatedModel().idle.weight.detach())


def test_each_process_holds_about_half_of_the_model(runs: Path):
    held = json.loads((runs / "told.json").read_text())["held"]
    assert {name for name, own, size in held if own < size} >= {"body.4.weight", "body.0.bias", "head.weight"}
    assert sum(own for _, own, _ in held) < 0.6 * sum(size for _, _, size in held)


def test_checkpoints_of_slices_are_whole(runs: Path):
    sliced = saved(runs / pair.TOY_SLICED.out / "checkpoints")[-1]
    alone = saved(runs / "alone" / pair.TOY_SLICED.out / "checkpoints")[-1]
    for file in ("model.safetensors", "optimizer.safetensors", "average.safetensors"):
        ours, theirs = load_file(sliced / file), load_file(alone / file)
        assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}, file


@pytest.mark.parametrize("job", [pair.BEGUN_ALONE, pair.BEGUN_TOGETHER], ids=lambda job: job.out)
def test_one_process_goes_on_where_two_with_slices_stopped_and_the_other_way_round(runs: Path, job: pair.Job):
    assert_same_training(runs / job.out, runs / "alone" / pair.BEGUN_ALONE.out)


def test_a_fellow_that_is_silent_counts_as_gone_after_the_timeout(runs: Path):
    told = json.loads((runs / "told.json").read_text())
    assert "process 0 of 2 stops because another process of this run has not answered for 3 seconds" in told["said"]
    assert told["after"] < 6


def test_units_are_chosen_by_pattern_inner_ones_first():
    model = nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), nn.Linear(1, 1))
    assert units_of(model, ("0", "0.?")) == [model[0][0], model[0][1], model[0]]


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [("bod.*", "no module is called 'bod.*'"), ("head", "head shares parameters with tied.weight: leave it out")],
)
def test_a_unit_that_cannot_be_is_named(pattern: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint.replace("*", r"\*")):
        units_of(pair.GatedModel(), (pattern,))
