"""Early words: each once, one line, with what to try; and the batch of a loss that is not finite."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from toy_training import Scores, ToyClips, ToyModel

from tubelet.core.types import Clip, Losses, Tracks
from tubelet.training import advice
from tubelet.training.advice import Adviser
from tubelet.training.checkpoint import TrainingProgress
from tubelet.training.validation import Judgement


def judgement(objects: int = 5, classes: int = 2, true_classes: int = 3) -> Judgement:
    return Judgement(numbers={"AP": 0.1}, objects=objects, classes=classes, true_classes=true_classes)


def clip(objects: int) -> Clip:
    index = torch.tensor([0])
    masks = torch.ones(objects, 1, 4, 4, dtype=torch.bool)
    tracks = Tracks(ids=torch.arange(objects), scores=torch.ones(objects, 2), masks=masks, index=index)
    frames = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    return Clip(frames=frames, index=index, key=torch.tensor([True]), tracks=tracks)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_no_object_in_three_validations_is_said_once(caplog: pytest.LogCaptureFixture):
    adviser = Adviser(TrainingProgress(step=30), main=True)
    for objects in (0, 0, 4, 0, 0):
        adviser.after_validation(judgement(objects))
    assert said(caplog) == []
    for _ in range(3):
        adviser.after_validation(judgement(0, classes=0))
    (line,) = said(caplog)
    assert line.startswith("step 30: the last 3 validations found no object")
    assert "\n" not in line


def test_one_class_alone_is_said_where_the_truth_has_several(caplog: pytest.LogCaptureFixture):
    adviser = Adviser(TrainingProgress(), main=True)
    for _ in range(4):
        adviser.after_validation(judgement(classes=1, true_classes=1))
    assert said(caplog) == []
    for _ in range(4):
        adviser.after_validation(judgement(classes=1))
    (line,) = said(caplog)
    assert "of one class, where the truth has 3" in line


def test_objects_that_vanish_in_the_transforms_are_said(caplog: pytest.LogCaptureFixture):
    adviser = Adviser(TrainingProgress(), main=True)
    adviser.after_reading([clip(1)] * 30)
    adviser.after_reading([clip(0)] * 30)
    assert said(caplog) == []
    adviser.after_reading([clip(0)])
    (line,) = said(caplog)
    assert "31 of the first 61 training clips have no object left" in line


def test_a_loss_that_falls_is_not_flat_and_one_that_rises_is():
    assert advice.flat_loss([3.0 - 0.02 * n for n in range(30)], step=600) is None
    assert advice.flat_loss([1.0] * 30, step=100) is None
    assert advice.flat_loss([1.0] * 10, step=600) is None
    assert advice.flat_loss([1.0 + 0.02 * n for n in range(30)], step=600) is not None
    assert advice.flat_loss([float("nan")] * 30, step=600) is None


@pytest.mark.parametrize(
    ("rate", "clips", "far"),
    [(0.005, 16, False), (0.000625, 2, False), (0.005, 2, True), (0.005, 8, False), (0.0001, 16, True)],
)
def test_a_rate_far_from_the_recipes_is_said(rate: float, clips: int, far: bool):
    assert (advice.far_rate(rate, clips, recipe_rate=0.005, recipe_clips=16) is not None) == far


def test_advice_is_given_once_over_a_kill(fit, caplog: pytest.LogCaptureFixture):
    class Blind(Scores):
        def judge(self, model, step, world):
            return judgement(objects=0)

    fit("run", iterations=6, validation=Blind([]))
    fit("run", iterations=10, validation=Blind([]), resume=True)
    assert len([line for line in said(caplog) if "found no object" in line]) == 1


def test_the_batch_of_a_loss_that_is_not_finite_is_saved_once(fit, caplog: pytest.LogCaptureFixture, tmp_path: Path):
    class Sick(ToyModel):
        def forward(self, clips: list[Clip]) -> Losses:
            losses = super().forward(clips)
            return {**losses, "sick": losses["class"] * (float("nan") if self.seen in (3, 4) else 0.0)}

    fit("run", Sick(), iterations=5, seed=7, batch_size=2)
    (path,) = (tmp_path / "run/not-finite").iterdir()
    assert path.name == "step-000003-rank-0.safetensors"
    assert f"its clips are saved in {path}" in caplog.text
    with safe_open(path, "pt") as file:
        about = {name: json.loads(text) for name, text in file.metadata().items()}
        assert about["clips"] == [4, 5]
        assert (about["step"], about["seed"], about["rank"]) == (3, 7, 0)
        assert set(about["losses"]) >= {"class", "sick"}
        assert torch.equal(file.get_tensor("5/frames"), ToyClips()[5].frames)
