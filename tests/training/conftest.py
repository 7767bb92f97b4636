"""The toy model lies beside the tests, importable as `toy` and runnable as a script."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toy_training import SGD_TOY, ToyClips, ToyModel

from tubelet.drawing.curves import training_curve
from tubelet.training import loop
from tubelet.training.log import read_metrics
from tubelet.training.loop import TrainConfig, TrainingOutcome, train

Fit = Callable[..., TrainingOutcome]


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """Train the toy into a folder of tmp_path; config fields by keyword, loop arguments by their own names.

    The curve, which takes longer than the rest, is drawn on request only.
    """

    def run(out: str, model: ToyModel | None = None, curve: bool = False, **given: Any) -> TrainingOutcome:
        # another test of this process may have replaced the function for good
        draw = training_curve if curve else lambda metrics, out: None
        monkeypatch.setattr(loop, "training_curve", draw)
        own = {name: given.pop(name) for name in ("resume", "describe", "validation", "quiet") if name in given}
        optim, clips = given.pop("optim", SGD_TOY), given.pop("clips", ToyClips())
        config = TrainConfig(**{"iterations": 8, "workers": 0, "log_every": 1, **given})
        return train(model or ToyModel(), clips, config, optim, tmp_path / out, device="cpu", **own)

    return run


@pytest.fixture
def metrics(tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """The log of a folder of tmp_path without the fields that tell of time."""

    def read(out: str) -> list[dict[str, Any]]:
        lines = read_metrics(tmp_path / out / "metrics.jsonl")
        return [{k: v for k, v in line.items() if k not in ("samples_per_second", "waiting")} for line in lines]

    return read
