"""A toy model and toy clips; run as a script, they train in a process of their own, which a test may kill."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tubelet.core.errors import TubeletError
from tubelet.core.types import Clip, Losses
from tubelet.training import loop
from tubelet.training.distributed import Processes
from tubelet.training.loop import TrainConfig, train
from tubelet.training.optim import SGD
from tubelet.training.validation import Judgement

SGD_TOY = SGD(lr=0.02, warmup=4)


class ToyClips:
    """Sample n is one random 8 x 8 frame that follows from n alone."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, n: int) -> Clip:
        frame = np.random.default_rng([7, n]).integers(0, 256, (1, 3, 8, 8), dtype=np.uint8)
        return Clip(frames=torch.from_numpy(frame), index=torch.tensor([n % 5]), key=torch.tensor([True]))


class ToyModel(nn.Module):
    """Dropout, a norm with its buffers, tied weights, and a second loss and head that only some batches use."""

    def __init__(self, *, noise: float = 0.0, seed: int | None = 0) -> None:
        super().__init__()
        if seed is not None:
            torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8))
        self.drop = nn.Dropout(noise)
        self.head, self.tied, self.rare = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        self.tied.weight = self.head.weight
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(8))
        self.seen: torch.Tensor
        self.mean: torch.Tensor

    def forward(self, clips: list[Clip]) -> Losses:
        self.seen += 1
        features = self.drop(self.body(torch.cat([clip.frames for clip in clips]).float() / 255))
        self.mean.lerp_(features.detach().float().mean(0), 0.1)
        losses = {"class": (self.tied(self.head(features)) - 1).square().mean()}
        odd = torch.tensor([float(clip.index[0] % 2) for clip in clips])
        if odd.any():
            losses["rare"] = (self.rare(features)[:, 0] - 2).square().mul(odd).mean()
        return losses


class Scores:
    """Gives the scores of a list, by step, and notes what it was asked to judge; draws random numbers in between."""

    def __init__(self, scores: Sequence[float] | Callable[[nn.Module], float], every: int | None = 2) -> None:
        self.scores = scores
        self.every = every
        self.start = False
        self.settings = "these"
        self.seen: list[dict[str, torch.Tensor]] = []
        self.steps: list[int] = []
        self.sheets: set[int] = set()

    def judge(self, model: nn.Module, step: int, world: Processes) -> Judgement:
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(3)
        self.steps.append(step)
        self.seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        score = self.scores(model) if callable(self.scores) else self.scores[step // 2 - 1]
        return Judgement(numbers={"AP": score, "AP50": 0.5})

    def keep_sheets(self, steps: set[int]) -> None:
        self.sheets = steps


def closeness(model: nn.Module) -> float:
    """A number that rises and falls with the weights."""
    return float(model.get_parameter("head.weight").detach().double().sin().sum())


class MortalModel(ToyModel):
    """Takes TOY_SLEEP seconds a step; the process of rank TOY_DIES kills itself in its ninth batch."""

    def forward(self, clips: list[Clip]) -> Losses:
        time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
        if self.seen == 8 and os.environ.get("TOY_DIES") == os.environ.get("RANK"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(clips)


def main(out: str, *assignments: str) -> int:
    torch.set_num_threads(1)
    loop.training_curve = lambda metrics, out: None  # matplotlib alone would double the time
    model = MortalModel(noise=float(os.environ.get("TOY_NOISE", "0")))
    config = TrainConfig().override(*assignments)
    try:
        train(model, ToyClips(), config, SGD_TOY, Path(out), device="cpu")
    except TubeletError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
