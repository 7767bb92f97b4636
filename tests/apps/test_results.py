"""Results as a line per frame: written on demand or for long videos, and taken by every command that takes results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tubelet
from tubelet.apps import cli
from tubelet.core import masks
from tubelet.core.records import Prediction, Track, Video, VideoSet
from tubelet.formats import results_files, ytvis
from tubelet.video.writer import VideoWriter

SIZE, CLASSES = (16, 24), ("cow", "dog")


def rle(left: int, width: int = 8) -> masks.RLE:
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 4:12, left : left + width] = True
    return masks.encode(mask)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A truth, and predictions of it in both forms."""
    first = Track(id=1, label=0, score=1.0, rles=(rle(0), rle(2), None, rle(4)))
    second = Track(id=2, label=1, score=1.0, rles=(None, rle(12), rle(13), rle(14)))
    video = Video(id="1", size=SIZE, frames=[None] * 4, tracks=(first, second))  # type: ignore[list-item]
    ytvis.write_set(tmp_path / "truth.json", VideoSet(videos=[video], classes=CLASSES))

    found = (
        Track(id=4, label=0, score=0.75, rles=(rle(1), rle(2), rle(3), None)),
        Track(id=9, label=1, score=0.5, rles=(None, None, rle(13), rle(13, 9))),
    )
    prediction = Prediction(video="1", size=SIZE, length=4, tracks=found, classes=CLASSES)
    for name in ("predictions.json", "predictions.jsonl"):
        (tmp_path / Path(name).suffix).mkdir()
        ytvis.write_predictions(tmp_path / Path(name).suffix / name, [prediction])
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def commands(results: str, out: str) -> Iterator[list[str]]:
    for measure in ("ytvis", "identity", "failures", "oracles", "semantic"):
        yield ["evaluate", measure, "truth.json", results, "--json", f"{out}/{measure}.json"]
    yield ["submission", results, "--truth", "truth.json", "--out", f"{out}/results.zip"]
    yield ["report", "truth.json", results, "--out", f"{out}/report"]
    for form in ("ytvis", "davis", "cvat", "mots", "coco-video", "png"):
        yield ["data", "convert", results, f"{out}/{form}", "--to", form, "--no-frames"]
    yield ["data", "stats", results]
    yield ["edit", results, "--delete", "4", "--out", f"{out}/edited"]
    yield ["edit", results]


def test_every_command_takes_both_forms_and_does_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "out").mkdir()
    told = []
    for form in (".json", ".jsonl"):
        codes = [cli.call(command) for command in commands(f"{form}/predictions{form}", "out")]
        captured = capsys.readouterr()
        said = (captured.out + captured.err).replace(".jsonl", ".json")
        told.append((codes, said, contents(folder / "out")))
        for path in sorted((folder / "out").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    first, second = told
    assert first[0] == second[0]
    assert first[1] == second[1]
    assert first[2].keys() == second[2].keys()
    assert [name for name in first[2] if first[2][name] != second[2][name]] == []
    assert first[0] == [0] * len(first[0]), first[1]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    with VideoWriter(path, (48, 64), 10) as writer:
        for t in range(4):
            writer.write(np.full((48, 64, 3), 40 * t, np.uint8))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_predict_writes_the_form_that_is_asked_for(film: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for form, name in (("json", "predictions.json"), ("jsonl", "predictions.jsonl"), ("auto", "predictions.json")):
        assert cli.call(["predict", str(film), "--out", str(out), "--no-video", "--results", form]) == 0
        assert names(out) == ["contact_sheet.png", name]
        assert tubelet.open_prediction(out).length == 4


def test_a_long_video_is_written_line_by_line_and_that_is_said(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results_files, "LONG_VIDEO", 3)
    out = tmp_path / "out"
    assert cli.call(["predict", str(film), "--out", str(out), "--no-video"]) == 0
    assert names(out) == ["contact_sheet.png", "predictions.jsonl"]
    captured = capsys.readouterr()
    assert f"each finished frame is added to {out / 'predictions.jsonl'} at once (--results json" in captured.err
    assert str(out / "predictions.jsonl") in captured.out


def test_a_part_of_a_long_video_may_be_short(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_files, "LONG_VIDEO", 3)
    out = tmp_path / "out"
    assert cli.call(["predict", str(film), "--out", str(out), "--no-video", "--every", "2"]) == 0
    assert names(out) == ["contact_sheet.png", "predictions.json"]


def test_a_form_that_does_not_exist_is_refused(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["predict", str(film), "--results", "xml"]) == 2
    assert "--results: expected one of auto, json, jsonl, got 'xml'" in capsys.readouterr().err


def test_batch_writes_long_videos_line_by_line(film: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["batch", str(film), "--out", str(out), "--no-video", "--workers", "1", "--results", "jsonl"]
    assert cli.call(arguments) == 0
    assert names(out / "film") == ["contact_sheet.png", "finished.json", "predictions.jsonl"]


def test_results_of_a_run_that_was_ended_are_evaluated_with_one_line_about_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / ".jsonl" / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-150])
    assert cli.call(["evaluate", "ytvis", str(folder / "truth.json"), str(path)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "ends early, after frame" in line] == said
    assert len(said) == 1
