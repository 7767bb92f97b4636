"""`tubelet edit` and `tubelet data label`: results mended on the command line, and labelled data made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tubelet
from tubelet.apps.cli import call
from tubelet.core import masks
from tubelet.core.records import Prediction, Track
from tubelet.formats.registry import open_set
from tubelet.formats.ytvis import write_predictions
from tubelet.video.writer import VideoWriter

SIZE = (32, 48)
LENGTH = 6


def square(x: int) -> masks.RLE:
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 8:20, x : x + 10] = True
    return masks.encode(mask)[0]


def track(id: int, frames: range, x: int) -> Track:
    return Track(id=id, label=0, score=0.9, rles=tuple(square(x) if t in frames else None for t in range(LENGTH)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tracks = (track(1, range(3), 2), track(2, range(4, 6), 4), track(3, range(6), 30))
    prediction = Prediction(video="pets", size=SIZE, length=LENGTH, tracks=tracks, classes=("dog", "cat"))
    (tmp_path / "run").mkdir()
    write_predictions(tmp_path / "run" / "predictions.json", [prediction])
    return tmp_path / "run"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "pets.mp4"
    with VideoWriter(path, size=SIZE, fps=10) as writer:
        for t in range(LENGTH):
            writer.write(np.full((*SIZE, 3), 40 * t, np.uint8))
    return path


def test_edits_are_done_in_the_order_of_the_command_line(folder: Path) -> None:
    before = (folder / "predictions.json").read_bytes()
    done = ["--split", "3@2", "--rename", "4=goat", "--merge=1,2", "--split", "4@4", "--delete", "5@4-4"]
    assert call(["edit", str(folder), *done]) == 0

    edited = tubelet.open_prediction(folder / "edited")
    assert {t.id: (edited.classes[t.label], t.frames.tolist()) for t in edited} == {
        1: ("dog", [0, 1, 2, 4, 5]),
        3: ("dog", [0, 1]),
        4: ("goat", [2, 3]),
        5: ("goat", [5]),
    }
    assert (folder / "predictions.json").read_bytes() == before


def test_a_list_of_edits_is_done_again_and_continued(folder: Path) -> None:
    assert call(["edit", str(folder), "--merge", "1,2"]) == 0
    again = ["--edits", str(folder / "edited" / "edits.json"), "--swap", "1,3@4", "--delete-alike", "3"]
    assert call(["edit", str(folder), *again, "--out", str(folder / "more")]) == 0
    kinds = [edit["kind"] for edit in json.loads((folder / "more" / "edits.json").read_text())["edits"]]
    assert kinds == ["merge", "swap", "delete_alike"]
    assert tubelet.open_prediction(folder / "more").ids == (1,)


def test_an_edited_result_is_drawn_on_its_video(folder: Path, video: Path) -> None:
    done = ["--redraw", "3@0=5,5,20,5,20,20", "--add", "big dog@1=5,5,20,5,20,20"]
    assert call(["edit", str(folder), *done, "--video", str(video)]) == 0
    names = sorted(path.name for path in (folder / "edited").iterdir())
    assert names == ["contact_sheet.png", "edits.json", "overlay.mp4", "predictions.json"]
    edited = tubelet.open_prediction(folder / "edited", video)
    assert edited.at(1).names == ("dog", "dog", "big dog")


def test_without_an_edit_the_places_to_look_at_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["edit", str(folder)]) == 0
    assert "frame 4: same object? (1, 2)" in capsys.readouterr().out
    assert not (folder / "edited").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--merge", "1"], "--merge: expected two ids such as 3,7 or 3,7:3, got '1'"),
        (["--split", "9@2"], "--split 9@2: no track with the id 9; ids: [1, 2, 3]"),
        (["--merge", "1,3"], "say whose masks stay there"),
        (["--redraw", "1@0=1,1,5,5"], "a polygon needs three points"),
        (["--edits", "nothing.json"], "nothing.json: no such file"),
        (["--name", "dogs"], "expected one of its videos, pets; got 'dogs'"),
    ],
)
def test_an_edit_that_does_not_fit_is_one_line_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert call(["edit", str(folder), "--rename", "1=cat", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (folder / "edited").exists()


def test_a_video_of_another_length_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with VideoWriter(tmp_path / "short.mp4", size=SIZE, fps=10) as writer:
        writer.write(np.zeros((*SIZE, 3), np.uint8))
    assert call(["edit", str(folder), "--merge", "1,2", "--video", str(tmp_path / "short.mp4")]) == 2
    assert "short has 32x48 pixels (height, width) and 1 frames" in capsys.readouterr().err


# labelled data


def test_only_the_frames_that_were_seen_become_labelled_data(folder: Path, video: Path, tmp_path: Path) -> None:
    assert call(["edit", str(folder), "--merge", "1,2", "--seen", "2-4"]) == 0
    assert call(["data", "label", str(tmp_path / "set"), f"{folder / 'edited'}={video}"]) == 0
    (labelled,) = open_set(tmp_path / "set").videos
    assert len(labelled) == 3
    assert [t.frames.tolist() for t in labelled.tracks or ()] == [[0, 2], [0, 1, 2]]
    assert labelled.frames[0].float().mean() == pytest.approx(80, abs=3)


@pytest.mark.parametrize("form", ["davis", "coco-video", "cvat", "yolo-seg"])
def test_labelled_data_is_written_in_any_form(folder: Path, video: Path, tmp_path: Path, form: str) -> None:
    assert call(["data", "label", str(tmp_path / "set"), f"{folder}={video}", "--all-frames", "--to", form]) == 0
    assert sum(len(found) for found in open_set(tmp_path / "set").videos) == LENGTH


def test_labelled_data_needs_frames_that_were_seen(
    folder: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["data", "label", str(tmp_path / "set"), f"{folder}={video}"]) == 2
    assert "no frame of it has been looked at" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


# following


def test_the_model_follows_a_drawn_object(folder: Path, tmp_path: Path) -> None:
    """A disc over noise, drawn in its first frame."""
    path = tmp_path / "disc.mp4"
    random = np.random.default_rng(0)
    ground = random.integers(60, 120, (120, 160, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:120, :160]
    with VideoWriter(path, size=(120, 160), fps=10) as writer:
        for t in range(4):
            picture = ground.copy()
            picture[(rows - 60) ** 2 + (columns - 60 - 3 * t) ** 2 < 24**2] = (230, 60, 40)
            writer.write(picture)
    write_predictions(
        folder / "predictions.json",
        [Prediction(video="disc", size=(120, 160), length=4, tracks=(), classes=("dog",))],
    )
    corners = ",".join(f"{60 + 24 * np.cos(a):.1f},{60 + 24 * np.sin(a):.1f}" for a in np.linspace(0, 6.1, 24))
    done = ["--add", f"disc@0={corners}", "--follow", "1@0"]
    assert call(["edit", str(folder), *done, "--video", str(path), "--device", "cpu"]) == 0
    assert tubelet.open_prediction(folder / "edited")[1].frames.tolist() == [0, 1, 2, 3]


def test_following_needs_the_video(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["edit", str(folder), "--follow", "1@0"]) == 2
    assert "--follow 1@0: following needs the video: --video SOURCE" in capsys.readouterr().err
