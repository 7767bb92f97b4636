"""Other programs that get the log, played by modules made up here, and what a missing one says."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from toy_training import Scores, ToyModel, closeness

from tubelet.core.errors import ConfigError


class Recorder:
    """Takes the part of all three programs."""

    def __init__(self) -> None:
        self.opened: list[dict[str, Any]] = []
        self.numbers: list[tuple[int, str, float]] = []
        self.closed = 0

    def open(self, *places: Any, **given: Any) -> Any:
        self.opened.append({"places": places, **given})
        return SimpleNamespace(
            id="run-1",
            info=SimpleNamespace(run_id="run-1"),
            log=self.write,
            finish=self.close,
            add_scalar=lambda name, value, step: self.write({name: value}, step=step),
            close=self.close,
        )

    def write(self, numbers: dict[str, float], *, step: int) -> None:
        self.numbers += [(step, name, value) for name, value in numbers.items()]

    def close(self) -> None:
        self.closed += 1


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    for member, value in members.items():
        setattr(made, member, value)
    return made


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    modules = {
        "wandb": module("wandb", init=recorder.open),
        "mlflow": module("mlflow", start_run=recorder.open, log_metrics=recorder.write, end_run=recorder.close),
        "torch.utils.tensorboard": module("torch.utils.tensorboard", SummaryWriter=recorder.open),
    }
    for name, made in modules.items():
        monkeypatch.setitem(sys.modules, name, made)
    return recorder


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_every_line_of_the_log_goes_there_too(fit, recorder: Recorder, metrics, name: str):
    fit("run", iterations=4, log_every=2, log=(name,), validation=Scores(closeness))
    losses = [(step, value) for step, what, value in recorder.numbers if what == "loss"]
    assert losses == [(line["step"], line["loss"]) for line in metrics("run") if "loss" in line]
    validation = "validation/AP" if name == "tensorboard" else "validation_AP"
    assert [step for step, what, _ in recorder.numbers if what == validation] == [2, 4]
    assert recorder.closed == 1


@pytest.mark.parametrize(("name", "field"), [("wandb", "id"), ("mlflow", "run_id")])
def test_a_resumed_training_goes_on_with_the_same_run(fit, recorder: Recorder, name: str, field: str):
    fit("run", iterations=2, log=(name,))
    fit("run", iterations=4, log=(name,), resume=True)
    assert [opened.get(field) for opened in recorder.opened] == [None, "run-1"]


def test_steps_that_are_made_again_are_hidden_in_tensorboard(fit, recorder: Recorder, tmp_path: Path):
    fit("run", iterations=2, log=("tensorboard",))
    fit("run", iterations=4, log=("tensorboard",), resume=True)
    assert [opened["purge_step"] for opened in recorder.opened] == [1, 3]
    assert recorder.opened[0]["places"] == (str(tmp_path / "run/tensorboard"),)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("tensorboard", r"pip install 'tubelet\[log\]'"),
        ("wandb", "pip install wandb"),
        ("mlflow", "pip install mlflow"),
    ],
)
def test_a_missing_package_is_one_line_that_says_what_to_install(
    fit, monkeypatch: pytest.MonkeyPatch, name: str, command: str
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
    with pytest.raises(ConfigError, match=rf"^train\.log={name} needs the package {name}: {command}$"):
        fit("run", ToyModel(), log=(name,))


def test_an_unknown_program_is_refused():
    from tubelet.training.loop import TrainConfig

    with pytest.raises(ConfigError, match=r"log\.0"):
        TrainConfig(log=("tensorbord",))
