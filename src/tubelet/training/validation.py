"""Validation while training: judge the weights every so many steps, and keep the best ones.

The loop knows nothing of videos or metrics. It hands a copy of the model to a `Validation`, which
returns numbers; `recipes/validation.py` is the one for videos. The first number decides: the weights
for which it is highest are kept in best.safetensors.
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from tubelet.training.checkpoint import TrainingProgress, TrainingState, save_model
from tubelet.training.distributed import Processes
from tubelet.training.seeds import seed_everything
from tubelet.training.sharded_tensors import whole

BEST = "best.safetensors"
LEAST_STEPS = 250  # from one validation to the next, where nothing else is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one validation says.

    Example:
        >>> from tubelet.training.validation import Judgement
        >>> Judgement(numbers={"AP": 0.25, "AP50": 0.5}).deciding
        0.25
    """

    numbers: Mapping[str, float]  # by name; the first one decides which weights are best
    objects: int | None = None  # objects that were found, those with a score worth showing; None: not counted
    classes: int | None = None  # different classes among them
    true_classes: int | None = None  # different classes in the truth

    @property
    def deciding(self) -> float:
        """The first number."""
        return next(iter(self.numbers.values()))


class Validation(Protocol):
    """Judges a model between two steps of a training."""

    @property
    def every(self) -> int | None:
        """Steps from one validation to the next; None: see `interval`."""

    @property
    def start(self) -> bool:
        """Whether the weights before the first step are judged too: they are kept if no later ones are better."""

    @property
    def settings(self) -> str:
        """A text that differs where numbers of two validations cannot be compared."""

    def judge(self, model: nn.Module, step: int, world: Processes) -> Judgement:
        """Judge a model with the weights of `step`; all processes call it, and all get the same result."""

    def keep_sheets(self, steps: set[int]) -> None:
        """Remove what was drawn at other steps than these."""


def interval(every: int | None, iterations: int) -> int:
    """Steps from one validation to the next: by default a tenth of the training, but at least 250 steps.

    So that it costs less than a tenth of the time of a short training too.

    Example:
        >>> from tubelet.training.validation import interval
        >>> interval(None, iterations=10_000)
        1000
        >>> interval(20, iterations=10_000)
        20
    """
    return every or max(iterations // 10, LEAST_STEPS)


def remember(progress: TrainingProgress, value: float) -> bool:
    """Note the deciding number of a validation; returns whether it is the best so far.

    A number that is not finite is never the best. Of equal ones, as the zeros of the first
    validations, the last is the best, but it does not count as a better one.

    Example:
        >>> from tubelet.training.checkpoint import TrainingProgress
        >>> from tubelet.training.validation import remember
        >>> progress = TrainingProgress()
        >>> [remember(progress, value) for value in (0.1, 0.3, 0.3, 0.2)]
        [True, True, True, False]
        >>> progress.best, progress.without_better
        (0.3, 2)
    """
    progress.validations += 1
    is_better = math.isfinite(value) and (progress.best is None or value > progress.best)
    progress.without_better = 0 if is_better else progress.without_better + 1
    if not is_better and value != progress.best:
        return False
    progress.best = value
    progress.best_step = progress.step
    return True


class Validator:
    """Validates a copy of the model, so that nothing of the training changes, and writes the best weights.

    It must be made before the model is spread over processes. The moving average of the weights is
    judged where the training keeps one.
    """

    def __init__(self, model: nn.Module, validation: Validation, out: Path, world: Processes, seed: int) -> None:
        self.model = copy.deepcopy(model)
        self.validation = validation
        self.out = out
        self.world = world
        self.seed = seed

    def run(self, state: TrainingState, metadata: Mapping[str, str]) -> Judgement:
        """Judge the present weights; the step's best value goes into `state.progress`."""
        progress = state.progress
        average = None if state.average is None else state.average.weights
        weights = whole(state.model.state_dict() if average is None else average, keep=self.world.main)
        if self.world.main:
            self.model.load_state_dict(weights)
        self.world.share(self.model)

        with undisturbed(self.world.device):
            seed_everything(self.seed, progress.step, 0, self.world.rank)
            judgement = self.validation.judge(self.model, progress.step, self.world)

        is_best = remember(progress, judgement.deciding)
        if self.world.main:
            if is_best:
                verdict = json.dumps({"step": progress.step, **judgement.numbers})
                save_model(self.out / BEST, weights, {**metadata, "validation": verdict})
            self.validation.keep_sheets({progress.step, progress.best_step})
        return judgement


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Give all global random generators their state back at the end.

    Example:
        >>> from tubelet.training.validation import undisturbed
        >>> _ = torch.manual_seed(0)
        >>> with undisturbed(torch.device("cpu")):
        ...     inside = torch.rand(1)
        >>> bool(inside == torch.rand(1))
        True
    """
    python = random.getstate()
    numpy = np.random.get_state()  # noqa: NPY002  # a model from outside may draw from the global generator
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
