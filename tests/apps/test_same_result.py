"""One video has one result, whichever way it is asked for: the bundled model on frames of the bundled video."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tubelet
from tubelet.apps.cli import call
from tubelet.apps.web import documents
from tubelet.apps.web.jobs import work
from tubelet.apps.web.limits import BASE_THRESHOLD
from tubelet.core import masks
from tubelet.core.masks import RLE
from tubelet.core.protocol import VideoSegmenter
from tubelet.inference.results import VideoPrediction
from tubelet.video.reader import open_video
from tubelet.video.writer import VideoWriter

FRAMES = (0, 8, 16, 24)
THRESHOLD = 0.2
OPTIONS = ("--device", "cpu", "--threshold", str(THRESHOLD))
Masks = dict[tuple[int, int], RLE]  # by track and frame


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films of the same four frames, the second of them backwards, and a short one."""
    folder = tmp_path_factory.mktemp("films")
    video = open_video(Path(tubelet.__file__).parent / "apps" / "demo.mp4")
    frames = [video.frames[t].permute(1, 2, 0).numpy()[::2, ::2] for t in FRAMES]
    for name, images in (("dogs", frames), ("backwards", frames[::-1]), ("short", frames[:1])):
        with VideoWriter(folder / f"{name}.mp4", frames[0].shape[:2], 10) as writer:
            for image in images:
                writer.write(np.ascontiguousarray(image))
    return folder


@pytest.fixture(scope="module")
def model() -> VideoSegmenter[Any]:
    return tubelet.load("default", device="cpu")


@pytest.fixture(scope="module")
def prediction(model: VideoSegmenter[Any], films: Path) -> VideoPrediction:
    result = tubelet.predict(model, films / "dogs.mp4", threshold=THRESHOLD)
    assert len(result.tracks) >= 2
    return result


def masks_of(prediction: tubelet.Prediction) -> Masks:
    return {(track.id, t): rle for track in prediction.tracks for t, rle in enumerate(track.rles) if rle is not None}


def test_twice_gives_the_same_scores_and_masks(
    model: VideoSegmenter[Any], prediction: VideoPrediction, films: Path
) -> None:
    for before in ("backwards", "dogs"):  # nothing of an earlier video is left in a model
        tubelet.predict(model, films / f"{before}.mp4")
    again = tubelet.predict(model, films / "dogs.mp4", threshold=THRESHOLD)
    assert [track.score for track in again.tracks] == [track.score for track in prediction.tracks]
    assert masks_of(again) == masks_of(prediction)


def test_a_stream_has_the_masks_and_ids_of_predict(
    model: VideoSegmenter[Any], prediction: VideoPrediction, films: Path
) -> None:
    expected = masks_of(prediction)
    seen = masks_of_stream(tubelet.stream(model, films / "dogs.mp4", threshold=0))
    assert {key: seen[key] for key in expected} == expected


def masks_of_stream(frames: Iterator[tubelet.Frame]) -> Masks:
    return {
        (int(id), frame.index): masks.encode(mask.numpy()[None])[0]
        for frame in frames
        for id, mask in zip(frame.ids, frame.masks, strict=True)
        if mask.any()
    }


def test_a_job_of_the_page_has_the_masks_of_predict(
    model: VideoSegmenter[Any], prediction: VideoPrediction, films: Path, tmp_path: Path
) -> None:
    order = {
        "out": str(tmp_path), "source": str(films / "dogs.mp4"), "has_play": False, "playable": True, "length": None,
        "classes": None,
    }  # fmt: skip
    work.segment(model, order, check=lambda: None, send=lambda message: None)
    stored = documents.prediction_of(documents.read(tmp_path / documents.RESULT), "dogs")
    expected = masks_of(prediction)
    assert THRESHOLD >= BASE_THRESHOLD
    assert {key: rle for key, rle in masks_of(stored).items() if key in expected} == expected


def test_the_commands_write_the_same_bytes_whatever_came_before(
    prediction: VideoPrediction, films: Path, tmp_path: Path
) -> None:
    prediction.save(tmp_path / "saved", video=False)
    assert call(["predict", str(films / "dogs.mp4"), "--out", str(tmp_path / "predict"), "--no-video", *OPTIONS]) == 0
    sources = [str(films / f"{name}.mp4") for name in ("short", "backwards", "dogs")]
    assert call(["batch", *sources, "--out", str(tmp_path / "batch"), "--workers", "1", "--no-video", *OPTIONS]) == 0

    whole = (tmp_path / "saved" / "predictions.json").read_bytes()
    assert len(json.loads(whole)["annotations"]) == len(prediction.tracks)
    assert (tmp_path / "predict" / "predictions.json").read_bytes() == whole
    assert (tmp_path / "batch" / "dogs" / "predictions.json").read_bytes() == whole
