"""What of a person's results is learned from, and what is held out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toy import Toy, moving_patches
from tubelet.apps.web import results
from tubelet.apps.web.jobs import lessons, teaching
from tubelet.apps.web.jobs.own_models import FILE
from tubelet.apps.web.jobs.trainings import LABELS, LESSONS, RUN
from tubelet.core.errors import ConfigError
from tubelet.formats.registry import open_set
from tubelet.inference.predict import predict
from tubelet.recipes.experiment import Experiment
from tubelet.video.writer import VideoWriter

SIZE, LENGTH = (48, 64), 10


def write(
    folder: Path,
    videos: Sequence[tuple[str, ...]],
    frames: list[int] | None = None,
    classes: Sequence[str] = Toy.classes,
    last: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Write the labels of videos with patches of these colours, and `last` in their last frame; returns the notes."""
    rows = []
    for number, colours in enumerate(videos):
        source = folder / f"{number}.mp4"
        with VideoWriter(source, SIZE, 10) as writer:
            for frame in [
                *moving_patches(LENGTH, SIZE, colours)[:-1],
                moving_patches(LENGTH, SIZE, (*colours, *last))[-1],
            ]:
                writer.write(frame)
        results.write(folder / f"{number}.json.gz", predict(Toy(shrink=1), source))
        lesson = lessons.Lesson(result=f"{number}.json.gz", source=str(source), name=f"film {number}", frames=frames)
        rows.append(asdict(lesson))
    (folder / LESSONS).write_text(json.dumps(rows))
    lessons.write_lessons(folder, 0.5, classes, lambda done, total: None)
    return json.loads((folder / LABELS / "notes.json").read_text())


def lengths(folder: Path, name: str) -> list[int]:
    return [len(video) for video in open_set(folder / LABELS / name).videos]


def test_a_whole_video_is_held_out_if_its_classes_are_in_others(tmp_path: Path) -> None:
    notes = write(tmp_path, [("red",), ("red", "blue"), ("blue",)])
    assert notes == {"held_out": "1 of 3 videos", "missing": [], "new": []}
    assert (lengths(tmp_path, "train.json"), lengths(tmp_path, "val.json")) == ([10, 10], [10])


def test_of_videos_with_classes_of_their_own_the_last_frames_of_each_are_held_out(tmp_path: Path) -> None:
    notes = write(tmp_path, [("red",), ("blue",), ("green",)])
    assert notes == {"held_out": "a fifth of the frames of each video", "missing": [], "new": []}
    assert (lengths(tmp_path, "train.json"), lengths(tmp_path, "val.json")) == ([8, 8, 8], [2, 2, 2])


def test_of_one_video_the_last_frames_are_held_out(tmp_path: Path) -> None:
    assert (
        write(tmp_path, [("red",)], frames=[0, 1, 2, 5, 7, 9])["held_out"] == "a fifth of the frames of the one video"
    )
    assert (lengths(tmp_path, "train.json"), lengths(tmp_path, "val.json")) == ([5], [1])


@pytest.mark.parametrize(
    ("length", "parts"),
    [(6, [[5]]), (10, [[8, 9]]), (90, [[24, 25, 26, 27, 28, 29], [54, 55, 56, 57, 58, 59], [84, 85, 86, 87, 88, 89]])],
)
def test_of_many_frames_the_last_of_each_third_are_held_out(length: int, parts: list[list[int]]) -> None:
    """What is wrong in the middle of a video alone must count too."""
    learned, held_out = lessons._cut(list(range(length)))
    assert held_out == parts
    assert sorted([*learned, *chain.from_iterable(held_out)]) == list(range(length))


def test_a_single_frame_is_learned_from() -> None:
    assert lessons._cut([7]) == ([7], [])


@pytest.mark.parametrize(("known", "new"), [(("red", "blue", "green"), []), (("red", "green"), ["blue"])])
def test_classes_that_the_model_lacks_are_named(tmp_path: Path, known: tuple[str, ...], new: list[str]) -> None:
    assert write(tmp_path, [("red",), ("red", "blue"), ("blue",)], classes=known)["new"] == new


def test_a_class_that_is_only_held_out_is_not_learned_as_new(tmp_path: Path) -> None:
    notes = write(tmp_path, [("red",)], classes=("red",), last=("blue",))
    assert (notes["missing"], notes["new"]) == (["blue"], [])


def test_classes_of_results_that_nobody_saw_are_not_learned(tmp_path: Path) -> None:
    write(tmp_path, [("red",), ("red", "blue"), ("blue",)], classes=("red",))
    assert Toy.classes != ("red", "blue")
    assert open_set(tmp_path / LABELS / "train.json").classes == ("red", "blue")


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


def test_a_few_frames_of_each_video_are_enough_together(tmp_path: Path) -> None:
    write(tmp_path, [("red",), ("blue",)], frames=[0, 2, 4, 9])
    assert (lengths(tmp_path, "train.json"), lengths(tmp_path, "val.json")) == ([3, 3], [1, 1])


def test_too_few_frames_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="4 frames are too few to learn from: look at more than 5"):
        write(tmp_path, [("red",), ("blue",)], frames=[0, 9])


@pytest.mark.parametrize(("before", "after", "gain"), [(0.2, 0.3, True), (0.3, 0.3, False), (0.9, 0.37, False)])
def test_only_what_is_better_on_what_was_held_out_is_a_gain(before: float, after: float, gain: bool) -> None:
    figures = {"before": {"AP50": 0.1, "mean": before}, "after": {"AP50": 0.9, "mean": after}}
    assert teaching.has_gained(figures) is gain


def test_the_model_before_is_computed_as_the_one_after_whatever_the_server_computes_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its truth is mostly the server's own result, which another engine does not give to the last pixel."""
    write(tmp_path, [("red",)])
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
    write(tmp_path, [("red",)])
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
