"""Results that are written as frames are finished: equal to those in memory, and whole up to where a run was ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toy import Seen, Toy, moving_patches
from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Window
from tubelet.core.types import Clip, Prediction, Tracks, VideoSet
from tubelet.formats import results_files, ytvis
from tubelet.formats.frame_lines import StoredMasks
from tubelet.inference.predict import predict
from tubelet.inference.results import VideoPrediction

COLOURS = ("red", "blue", "yellow")


def video() -> np.ndarray:
    """Three objects; red leaves after frame 3, blue comes in frame 6."""
    frames = moving_patches(9, colours=COLOURS, patch=10)
    frames[4:, :16] = 90
    frames[:6, 16:32] = 90
    return frames


def read(path: Path, prediction: VideoPrediction) -> Prediction:
    (found,) = ytvis.read_predictions(path, VideoSet(videos=[prediction.source], classes=prediction.classes))
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": Window(length=4, stride=2)},
        {"top": 8},
        {"distinct": 0.5},
        {"unknown": 0.95},
        {"classes": ["blue", "yellow"]},
        {"roi": [(0, 0), (34, 0), (34, 48), (0, 48)]},
        {"top": 8, "roi": [(0, 0), (34, 0), (34, 48), (0, 48)]},
    ],
    ids=str,
)
def test_results_in_a_file_are_those_in_memory(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "out.jsonl"
    expected = predict(Toy(), video(), **options)
    found = predict(Toy(), video(), results=path, **options)
    assert found == expected
    assert found.to_ytvis() == expected.to_ytvis()
    assert found.to_coco() == expected.to_coco()
    for t in range(9):
        assert torch.equal(found.at(t).masks, expected.at(t).masks)

    stored = read(path, found)
    assert (stored.tracks, stored.length, stored.size) == (expected.tracks, 9, (48, 64))
    assert stored.shots == expected.shots


def test_masks_are_not_kept_in_memory(tmp_path: Path) -> None:
    found = predict(Toy(), video(), results=tmp_path / "out.jsonl")
    assert found.tracks
    assert {type(track.entries.present) for track in found} == {StoredMasks}


class Interrupted(Toy):
    """Ends the run at frame 7."""

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        if 7 in clip.index.tolist():
            raise KeyboardInterrupt
        return super().step(state, clip)


def test_a_run_that_is_ended_leaves_every_finished_frame(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        predict(Interrupted(), video(), results=path)
    whole = predict(Toy(), video())
    with pytest.warns(UserWarning, match=r"out\.jsonl: ends early, after frame 6 of 9"):
        left = read(path, whole)
    assert left.ids == whole.ids
    for track in left:
        assert track.rles == whole[track.id].entries.between(0, 7)
        assert track.label == whole[track.id].label
        assert track.score == pytest.approx(whole[track.id].score, abs=1e-4)


def test_what_was_there_before_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("an earlier file\n")
    found = predict(Toy(), video(), results=path)
    assert read(path, found).tracks == found.tracks


def test_another_ending_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"results: expected a file that ends in \.jsonl, got 'out\.json'"):
        predict(Toy(), video(), results=tmp_path / "out.json")


# saving


@pytest.mark.parametrize(
    ("form", "name"), [("json", "predictions.json"), ("jsonl", "predictions.jsonl"), ("auto", "predictions.json")]
)
def test_a_folder_has_the_results_in_one_form(tmp_path: Path, form: results_files.ResultsForm, name: str) -> None:
    prediction = predict(Toy(), video())
    for before in ("json", "jsonl"):
        prediction.save(tmp_path, video=False, results=before)  # type: ignore[arg-type]
    prediction.save(tmp_path, video=False, results=form)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contact_sheet.png", name]
    assert read(tmp_path / name, prediction).tracks == prediction.tracks


def test_a_long_video_is_saved_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_files, "LONG_VIDEO", 8)
    predict(Toy(), video()).save(tmp_path, video=False)
    assert (tmp_path / "predictions.jsonl").exists()


def test_results_may_be_saved_over_the_file_that_they_are_read_from(tmp_path: Path) -> None:
    expected = predict(Toy(), video())
    found = predict(Toy(), video(), results=tmp_path / "predictions.jsonl")
    found.save(tmp_path, video=False, results="jsonl")
    assert found == expected
    assert read(tmp_path / "predictions.jsonl", found).tracks == expected.tracks


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="results: expected one of json, jsonl, auto, got 'xml'"):
        results_files.results_name("xml", 9)  # type: ignore[arg-type]
