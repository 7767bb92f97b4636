from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_training as toy
from toy_training import ToyModel

from tubelet.core.errors import TubeletError
from tubelet.training.checkpoint import saved
from tubelet.training.distributed import Processes, join


def torchrun(out: Path, **given: object) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOY_DIES": "1"}
    command = [*launch, toy.__file__, str(out), *(f"{k}={v}" for k, v in given.items())]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_two_processes_give_one_processs_losses_one_dies_with_all_and_another_number_resumes(
    fit, metrics, tmp_path: Path
):
    """One launch, because each takes seconds: process 1 kills itself in its ninth batch, in the middle of step 5."""
    same = {"iterations": 6, "log_every": 1, "checkpoint_every": 1, "workers": 0}
    fit("one", batch_size=8, **same)
    finished = torchrun(tmp_path / "two", batch_size=2, accumulate=2, **same)
    assert finished.returncode != 0
    (said,) = (line for line in finished.stderr.splitlines() if "process 0 of 2" in line)
    told = "stops because another process of this run has stopped: look there for the cause, then start all again with"
    assert re.search(rf"{told} --resume \([^()]+\)$", said), said
    assert ".cc" not in said
    assert [path.name for path in saved(tmp_path / "two/checkpoints")] == ["step-000003", "step-000004"]
    assert_close(metrics("two"), metrics("one")[:4])
    fit("two", ToyModel(seed=9), batch_size=4, accumulate=2, resume=True, **same)
    assert_close(metrics("two"), metrics("one"))


def assert_close(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    for one, two in zip(some, others, strict=True):
        assert two == pytest.approx({**one, "grad_norm": two["grad_norm"]}, rel=1e-5, abs=1e-6)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


def test_a_group_of_one_trains_as_a_process_alone_and_is_left_at_the_end(fit, metrics, monkeypatch: pytest.MonkeyPatch):
    fit("alone", accumulate=2)
    group = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in group.items():
        monkeypatch.setenv(name, value)
    fit("group", accumulate=2)
    assert metrics("group") == metrics("alone")
    assert not torch.distributed.is_initialized()


def test_alone_there_is_one_world(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    with join("cpu") as world:
        assert (world.rank, world.size, world.main) == (0, 1, True)
        assert world.gather({"a": 1}) == [{"a": 1}]
        model = ToyModel()
        assert world.spread(model, "full").model is model
        assert {type(parameter) for parameter in model.parameters()} == {torch.nn.Parameter}


def test_processes_that_disagree_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Processes, "gather", lambda self, value: [3, 4])
    with pytest.raises(TubeletError, match=r"disagree on the step \(\[3, 4\]\)"):
        Processes(device=torch.device("cpu"), size=2).same(3, "the step")


def test_fellows_that_do_not_come_are_one_clear_error(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(TubeletError, match=r"process 0 of 2 did not find the others at 127\.0\.0\.1:0 within 1 second"),
        join("cpu", patience=1),
    ):
        pass
