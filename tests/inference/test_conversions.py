"""Results in other programs' forms, each read back and compared with the masks themselves."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from toy import Toy, moving_patches
from tubelet.core import masks
from tubelet.core.errors import InputError
from tubelet.formats import ytvis
from tubelet.formats.coco import videos as coco_video
from tubelet.inference.predict import predict
from tubelet.inference.results import VideoPrediction
from tubelet.video.reader import open_video

LENGTH = 5


@pytest.fixture(scope="module")
def prediction() -> VideoPrediction:
    """Red throughout, blue from the third frame on."""
    frames = moving_patches(LENGTH)
    frames[:2] = moving_patches(2, colours=("red",))
    return predict(Toy(shrink=1), open_video(frames, id="squares", fps=10))


def binary(prediction: VideoPrediction, t: int) -> np.ndarray:
    return prediction.at(t).masks.numpy()


@dataclass
class Detections:
    """The fields that supervision documents."""

    xyxy: np.ndarray
    mask: np.ndarray
    confidence: np.ndarray
    class_id: np.ndarray
    tracker_id: np.ndarray
    data: dict[str, Any]


def test_supervision_gets_masks_boxes_and_identities_of_every_frame(
    prediction: VideoPrediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("supervision")
    module.Detections = Detections  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", module)
    frames = prediction.to_supervision()
    assert len(frames) == LENGTH
    told = list(frames)
    assert np.array_equal(frames[-1].mask, told[-1].mask)
    assert len(frames[1:3]) == 2
    assert [len(frame.tracker_id) for frame in told] == [1, 1, 2, 2, 2]
    for t, frame in enumerate(told):
        expected = prediction.at(t)
        assert frame.mask.dtype == bool
        np.testing.assert_array_equal(frame.mask, expected.masks.numpy())
        np.testing.assert_array_equal(frame.xyxy, expected.boxes.numpy())
        np.testing.assert_array_equal(frame.tracker_id, expected.ids.numpy())
        np.testing.assert_allclose(frame.confidence, expected.scores.numpy())
        assert tuple(frame.data["class_name"]) == expected.names


def test_a_missing_program_is_one_clear_line(prediction: VideoPrediction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match=r"needs supervision: pip install supervision"):
        prediction.to_supervision()


def test_coco_annotations_hold_each_object_in_each_frame(prediction: VideoPrediction) -> None:
    told = prediction.to_coco()
    assert len(told["images"]) == LENGTH
    assert len(told["annotations"]) == sum(len(binary(prediction, t)) for t in range(LENGTH))
    for entry in told["annotations"]:
        shown = prediction.at(entry["image_id"] - 1)
        row = shown.ids.tolist().index(entry["track_id"])
        mask = shown.masks[row].numpy()
        np.testing.assert_array_equal(coco.decode(entry["segmentation"]).astype(bool), mask)
        x, y, width, height = (int(side) for side in entry["bbox"])
        assert mask[y : y + height, x : x + width].sum() == mask.sum() == entry["area"]
        assert told["categories"][entry["category_id"] - 1]["name"] == shown.names[row]


def test_coco_is_read_back_by_our_own_reader(prediction: VideoPrediction, tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text(json.dumps(prediction.to_coco()))
    (tmp_path / "images").mkdir()
    (video,) = coco_video.read(tmp_path / "instances.json").videos
    assert [(t.id, t.label, tuple(t.rles)) for t in video.tracks or ()] == [
        (t.id, t.label, tuple(t.rles)) for t in prediction.tracks
    ]


def test_ytvis_is_what_predictions_json_holds(prediction: VideoPrediction, tmp_path: Path) -> None:
    ytvis.write_predictions(tmp_path / "p.json", [prediction])
    assert prediction.to_ytvis() == json.loads((tmp_path / "p.json").read_text())


def test_davis_maps_number_the_tracks_from_one(prediction: VideoPrediction, tmp_path: Path) -> None:
    losses = prediction.to_davis(tmp_path / "davis")
    maps = sorted((tmp_path / "davis" / "Annotations" / "squares").glob("*.png"))
    assert len(maps) == LENGTH
    assert "scores of objects" in losses.counts
    for t, path in enumerate(maps):
        labels = np.asarray(Image.open(path))
        expected = np.zeros(prediction.size, np.uint8)
        for number, track in enumerate(prediction.tracks, start=1):
            if (rle := track.rles[t]) is not None:
                expected[masks.decode([rle])[0] == 1] = number
        np.testing.assert_array_equal(labels, expected)


def test_davis_does_not_write_over_what_is_there(prediction: VideoPrediction, tmp_path: Path) -> None:
    (tmp_path / "davis").mkdir()
    cv2.imwrite(str(tmp_path / "davis" / "mine.png"), np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="something already"):
        prediction.to_davis(tmp_path / "davis")


def test_pandas_has_a_row_for_each_object_and_frame(prediction: VideoPrediction) -> None:
    pytest.importorskip("pandas")
    table = prediction.to_pandas()
    assert len(table) == len(prediction.to_coco()["annotations"])
    assert table.groupby("class")["frame"].agg(["min", "max"]).to_dict("index") == {
        "red": {"min": 0, "max": 4},
        "blue": {"min": 2, "max": 4},
    }
    first = table.iloc[0]
    x, y, width, height = (int(first[name]) for name in ("x", "y", "width", "height"))
    assert binary(prediction, 0)[0, y : y + height, x : x + width].all()
    assert first["area"] == width * height == 14 * 14
    assert table["time"].iloc[-1] == pytest.approx(0.4)
