"""Which recipe learns, what is compared with what, and what counts as a gain."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lesson_fixtures import write_lessons
from toy import Toy
from tubelet.apps.web.jobs import teaching
from tubelet.apps.web.jobs.own_models import FILE
from tubelet.apps.web.jobs.trainings import LABELS, RUN
from tubelet.recipes.experiment import Experiment


@pytest.mark.parametrize(("new", "moves"), [([], {"detector.heads", "detector.classes"}), (["blue"], None)])
def test_only_the_class_scores_learn_where_all_classes_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: list[str], moves: set[str] | None
) -> None:
    (tmp_path / LABELS).mkdir()
    (tmp_path / LABELS / "notes.json").write_text(json.dumps({"new": new}))
    asked: list[Experiment] = []

    def run(recipe: Experiment, *_: Any, **__: Any) -> Any:
        asked.append(recipe)
        return SimpleNamespace(finished=True)

    monkeypatch.setattr(Experiment, "run", run)
    teaching.train(tmp_path, {"init": "default", "steps": 3}, "cpu", lambda: None, lambda message: None)
    parts = asked[0].optim.parts
    assert ({name for name, rate in parts.items() if rate} or None) == moves
    if moves is not None:
        stay = {name for name, rate in parts.items() if not rate}
        trained = {
            name for name, parameter in asked[0].model.build(("red",)).named_parameters() if parameter.requires_grad
        }
        assert {name.split(".")[0] for name in trained} == stay


@pytest.mark.parametrize(("before", "after", "gain"), [(0.2, 0.3, True), (0.3, 0.3, False), (0.9, 0.37, False)])
def test_only_what_is_better_on_what_was_held_out_is_a_gain(before: float, after: float, gain: bool) -> None:
    figures = {"before": {"AP50": 0.1, "mean": before}, "after": {"AP50": 0.9, "mean": after}}
    assert teaching.has_gained(figures) is gain


def test_the_model_before_is_computed_as_the_one_after_whatever_the_server_computes_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its truth is mostly the server's own result, which another engine does not give to the last pixel."""
    write_lessons(tmp_path, [("red",)])
    (tmp_path / RUN).mkdir()
    (tmp_path / RUN / FILE).touch()
    loaded: list[tuple[str, str]] = []

    def load(name: str | Path, *, device: Any, engine: str) -> Toy:
        loaded.append((Path(name).name, engine))
        return Toy(shrink=1)

    monkeypatch.setattr(teaching.weights, "load", load)
    monkeypatch.setattr(teaching, "train", lambda *_: None)
    order = {"folder": str(tmp_path), "init": "default", "steps": 1, "threshold": 0.5}
    answer = teaching.teach(Toy(shrink=1), order, lambda: None, lambda message: None)
    assert loaded == [("default", "torch"), (FILE, "torch")]
    assert answer["summary"]["gain"] is False


def test_a_training_that_an_older_version_began_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recipe was another, and its labels do not say which classes are new."""
    write_lessons(tmp_path, [("red",)])
    (tmp_path / LABELS / "notes.json").write_text('{"held_out": "the last frames of the one video", "missing": []}')
    (tmp_path / RUN).mkdir()
    (tmp_path / RUN / "settings").touch()

    def train(*_: Any) -> None:
        assert not (tmp_path / RUN).exists()
        (tmp_path / RUN).mkdir()
        (tmp_path / RUN / FILE).touch()

    monkeypatch.setattr(teaching.weights, "load", lambda *_, **__: Toy(shrink=1))
    monkeypatch.setattr(teaching, "train", train)
    order = {"folder": str(tmp_path), "init": "default", "steps": 1, "threshold": 0.5}
    answer = teaching.teach(Toy(shrink=1), order, lambda: None, lambda message: None)
    assert (answer["summary"]["held_out"], answer["summary"]["new"]) == ("a fifth of the frames of the one video", [])
