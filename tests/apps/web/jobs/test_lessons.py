"""What of a person's results is learned from, and what is held out."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from lesson_fixtures import write_lessons
from toy import Toy
from tubelet.apps.web.jobs import lessons
from tubelet.apps.web.jobs.trainings import LABELS
from tubelet.core.errors import ConfigError
from tubelet.formats.registry import open_set


def lengths(folder: Path, name: str) -> list[int]:
    return [len(video) for video in open_set(folder / LABELS / name).videos]


def test_a_whole_video_is_held_out_if_its_classes_are_in_others(tmp_path: Path) -> None:
    notes = write_lessons(tmp_path, [("red",), ("red", "blue"), ("blue",)])
    assert notes == {"held_out": "1 of 3 videos", "missing": [], "new": []}
    assert (lengths(tmp_path, "train.json"), lengths(tmp_path, "val.json")) == ([10, 10], [10])


def test_of_videos_with_classes_of_their_own_the_last_frames_of_each_are_held_out(tmp_path: Path) -> None:
    notes = write_lessons(tmp_path, [("red",), ("blue",), ("green",)])
    assert notes == {"held_out": "a fifth of the frames of each video", "missing": [], "new": []}
    assert (lengths(tmp_path, "train.json"), lengths(tmp_path, "val.json")) == ([8, 8, 8], [2, 2, 2])


def test_of_one_video_the_last_frames_are_held_out(tmp_path: Path) -> None:
    assert (
        write_lessons(tmp_path, [("red",)], frames=[0, 1, 2, 5, 7, 9])["held_out"]
        == "a fifth of the frames of the one video"
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
    assert write_lessons(tmp_path, [("red",), ("red", "blue"), ("blue",)], classes=known)["new"] == new


def test_a_class_that_is_only_held_out_is_not_learned_as_new(tmp_path: Path) -> None:
    notes = write_lessons(tmp_path, [("red",)], classes=("red",), last=("blue",))
    assert (notes["missing"], notes["new"]) == (["blue"], [])


def test_classes_of_results_that_nobody_saw_are_not_learned(tmp_path: Path) -> None:
    write_lessons(tmp_path, [("red",), ("red", "blue"), ("blue",)], classes=("red",))
    assert Toy.classes != ("red", "blue")
    assert open_set(tmp_path / LABELS / "train.json").classes == ("red", "blue")


def test_a_few_frames_of_each_video_are_enough_together(tmp_path: Path) -> None:
    write_lessons(tmp_path, [("red",), ("blue",)], frames=[0, 2, 4, 9])
    assert (lengths(tmp_path, "train.json"), lengths(tmp_path, "val.json")) == ([3, 3], [1, 1])


def test_too_few_frames_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="4 frames are too few to learn from: look at more than 5"):
        write_lessons(tmp_path, [("red",), ("blue",)], frames=[0, 9])
