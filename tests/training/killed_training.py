"""Run as a script: a toy training that is killed at each of its writes in turn, resumed, and compared with one that ran
through. A line for each that differs; the last line counts the kills.

Each training is a fork of this process, which has imported torch once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from toy_training import SGD_TOY, Scores, ToyClips, ToyModel, closeness

from tubelet.training import loop
from tubelet.training.log import read_metrics
from tubelet.training.loop import TrainConfig, train

CONFIG = TrainConfig(iterations=3, log_every=1, checkpoint_every=2, keep=1, workers=0, ema=0.9)
WRITES = ("replace", "rename", "rmdir", "fsync")  # of the module os: a kill may come before each call
KILLED = 137


def train_in_a_fork(out: Path, *, resume: bool, seed: int = 0, kill_at: int = -1) -> int:
    """The exit code of a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            train_into(out, resume=resume, seed=seed, kill_at=kill_at)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train_into(out: Path, *, resume: bool, seed: int, kill_at: int) -> None:
    writes = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes == kill_at:
                os._exit(KILLED)
            return real(*arguments, **named)

        return call

    for name in WRITES:
        setattr(os, name, counted(getattr(os, name)))
    train_toy(ToyModel(noise=0.2, seed=seed), out, resume=resume)


def train_toy(model: ToyModel, out: Path, *, resume: bool = False) -> None:
    validation = Scores(closeness, every=1)
    train(model, ToyClips(), CONFIG, SGD_TOY, out, resume=resume, device="cpu", validation=validation)


def results(out: Path) -> tuple[list[dict[str, Any]], list[bytes], list[str]]:
    """What must be equal: the log, the models, the names of files."""
    losses = [
        {key: value for key, value in line.items() if key not in ("samples_per_second", "waiting")}
        for line in read_metrics(out / "metrics.jsonl")
    ]
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    models = [(out / f"{name}.safetensors").read_bytes() for name in ("model", "best")]
    return losses, models, names


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    loop.training_curve = lambda metrics, out: out.write_text("drawn")  # type: ignore[assignment]
    train_toy(ToyModel(noise=0.2), folder / "whole")  # imports what torch needs
    whole = results(folder / "whole")
    kills = 0
    while True:
        out = folder / f"killed-{kills + 1}"
        code = train_in_a_fork(out, resume=False, kill_at=kills + 1)
        if code != KILLED:
            break
        kills += 1
        # the initial weights are the caller's to give again, which Experiment.run does: same seed before a checkpoint
        seed = 9 if any(out.glob("checkpoints/step-*")) else 0
        again = train_in_a_fork(out, resume=True, seed=seed)
        if again != 0 or results(out) != whole:
            sys.stdout.write(f"kill {kills}: resumed with exit code {again}, and differs\n")
    sys.stdout.write(f"{kills} kills, the last run ended with {code}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
