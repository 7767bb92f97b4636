"""What of a person's results is learned from, and what is held out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from toy import Toy, moving_patches
from tubelet.apps.web import results
from tubelet.apps.web.jobs import teaching
from tubelet.apps.web.jobs.own_models import FILE
from tubelet.apps.web.jobs.trainings import LABELS, LESSONS, RUN
from tubelet.core.errors import ConfigError
from tubelet.formats.registry import open_set
from tubelet.inference.predict import predict
from tubelet.video.writer import VideoWriter

SIZE, LENGTH = (48, 64), 10


def write(folder: Path, videos: Sequence[tuple[str, ...]], frames: list[int] | None = None) -> dict[str, Any]:
    """Write the labels of videos with patches of these colours; returns what is said of them."""
    lessons = []
    for number, colours in enumerate(videos):
        source = folder / f"{number}.mp4"
        with VideoWriter(source, SIZE, 10) as writer:
            for frame in moving_patches(LENGTH, SIZE, colours):
                writer.write(frame)
        results.write(folder / f"{number}.json.gz", predict(Toy(shrink=1), source))
        lesson = teaching.Lesson(result=f"{number}.json.gz", source=str(source), name=f"film {number}", frames=frames)
        lessons.append(asdict(lesson))
    (folder / LESSONS).write_text(json.dumps(lessons))
    teaching._write_labels(folder, 0.5, Toy.classes, lambda done, total: None)
    return json.loads((folder / LABELS / "notes.json").read_text())


def lengths(folder: Path, name: str) -> list[int]:
    return [len(video) for video in open_set(folder / LABELS / name).videos]


def test_a_whole_video_is_held_out_if_its_classes_are_in_others(tmp_path: Path) -> None:
    notes = write(tmp_path, [("red",), ("red", "blue"), ("blue",)])
    assert notes == {"held_out": "1 of 3 videos", "missing": []}
    assert (lengths(tmp_path, "train.json"), lengths(tmp_path, "val.json")) == ([10, 10], [10])


def test_of_videos_with_classes_of_their_own_the_last_frames_of_each_are_held_out(tmp_path: Path) -> None:
    notes = write(tmp_path, [("red",), ("blue",), ("green",)])
    assert notes == {"held_out": "the last frames of each video", "missing": []}
    assert (lengths(tmp_path, "train.json"), lengths(tmp_path, "val.json")) == ([8, 8, 8], [2, 2, 2])


def test_of_one_video_the_last_frames_are_held_out(tmp_path: Path) -> None:
    assert write(tmp_path, [("red",)], frames=[0, 1, 2, 5, 7, 9])["held_out"] == "the last frames of the one video"
    assert (lengths(tmp_path, "train.json"), lengths(tmp_path, "val.json")) == ([5], [1])


def test_a_few_frames_of_each_video_are_enough_together(tmp_path: Path) -> None:
    write(tmp_path, [("red",), ("blue",)], frames=[0, 2, 4, 9])
    assert (lengths(tmp_path, "train.json"), lengths(tmp_path, "val.json")) == ([3, 3], [1, 1])


def test_too_few_frames_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="4 frames are too few to learn from: look at more than 5"):
        write(tmp_path, [("red",), ("blue",)], frames=[0, 9])


@pytest.mark.parametrize(("before", "after", "gain"), [(0.2, 0.3, True), (0.3, 0.3, False), (0.9, 0.37, False)])
def test_only_what_is_better_on_what_was_held_out_is_a_gain(before: float, after: float, gain: bool) -> None:
    figures = {"before": {"AP": before, "IDF1": 0.1}, "after": {"AP": after, "IDF1": 0.9}}
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
