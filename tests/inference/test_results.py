"""Saving: three files that appear together or not at all."""

from __future__ import annotations

import base64
import errno
import io
import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from toy import Toy, moving_patches
from tubelet.core import masks
from tubelet.core.errors import ConfigError, InputError
from tubelet.drawing.style import OverlayStyle
from tubelet.inference import results
from tubelet.inference.notebook import played
from tubelet.inference.predict import predict
from tubelet.inference.results import VideoPrediction, render
from tubelet.video.reader import open_video


@pytest.fixture(scope="module")
def prediction() -> VideoPrediction:
    return predict(Toy(shrink=1), moving_patches(7))


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_saved_prediction_holds_its_three_files(prediction: VideoPrediction, tmp_path: Path) -> None:
    prediction.save(tmp_path / "a" / "b")
    assert listing(tmp_path / "a" / "b") == ["contact_sheet.png", "overlay.mp4", "predictions.json"]


def test_the_json_holds_the_tracks_that_were_predicted(prediction: VideoPrediction, tmp_path: Path) -> None:
    prediction.save(str(tmp_path), video=False)
    document = json.loads((tmp_path / "predictions.json").read_text())
    assert [category["name"] for category in document["categories"]] == list(Toy.classes)
    assert document["videos"][0]["length"] == 7
    for annotation, track in zip(document["annotations"], prediction.tracks, strict=True):
        assert annotation["score"] == track.score
        assert annotation["category_id"] == track.label + 1
        size = (document["videos"][0]["height"], document["videos"][0]["width"])
        assert [masks.from_json(code, size) for code in annotation["segmentations"]] == list(track.rles)


def test_the_overlay_has_every_frame_at_its_time(prediction: VideoPrediction, tmp_path: Path) -> None:
    prediction.save(tmp_path)
    with av.open(str(tmp_path / "overlay.mp4")) as file:
        times = [frame.time for frame in file.decode(video=0)]
    assert times == pytest.approx([t / 25 for t in range(7)])


def test_pixels_that_are_not_square_stay_so_in_what_is_drawn(prediction: VideoPrediction, tmp_path: Path) -> None:
    wide = replace(prediction, source=replace(prediction.source, pixel_aspect=Fraction(2)))
    wide.save(tmp_path / "wide")
    prediction.save(tmp_path / "square")
    overlay = open_video(tmp_path / "wide" / "overlay.mp4")
    assert (overlay.size, overlay.pixel_aspect) == (prediction.size, 2)
    # fewer columns of wider cells, so another shape of the whole sheet
    sheets = [cv2.imread(str(tmp_path / name / "contact_sheet.png")) for name in ("wide", "square")]
    assert sheets[0].shape != sheets[1].shape


def test_without_a_video_the_contact_sheet_is_the_same(prediction: VideoPrediction, tmp_path: Path) -> None:
    prediction.save(tmp_path / "with")
    prediction.save(tmp_path / "without", video=False)
    assert listing(tmp_path / "without") == ["contact_sheet.png", "predictions.json"]
    sheets = [cv2.imread(str(tmp_path / name / "contact_sheet.png")) for name in ("with", "without")]
    assert np.array_equal(*sheets)


def test_one_frame_and_all_frames_agree(prediction: VideoPrediction) -> None:
    for t, frame in enumerate(prediction.frames()):
        assert np.array_equal(frame.masks, prediction.at(t).masks)
        assert frame.index == t
        assert frame.names == ("red", "blue")


def test_a_drawn_frame_differs_only_near_its_objects() -> None:
    video = moving_patches(1, size=(360, 640), patch=80)
    changed = (render(predict(Toy(), video).at(0)) != video[0]).any(-1)
    near = cv2.dilate((video[0] != 90).any(-1).astype(np.uint8), np.ones((81, 161), np.uint8)) > 0
    assert changed.any()
    assert not changed[~near].any()


def test_progress_counts_drawn_frames(prediction: VideoPrediction, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    prediction.save(tmp_path, progress=lambda *now: told.append(now))
    assert told == [(t, 7) for t in range(1, 8)]


@pytest.mark.parametrize(
    ("error", "told"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.ENOSPC, "No space left on device"), InputError)],
)
@pytest.mark.parametrize("exists", [True, False])
def test_an_interruption_leaves_the_folder_as_it_was(
    prediction: VideoPrediction, tmp_path: Path, error: BaseException, told: type[BaseException], exists: bool
) -> None:
    folder = tmp_path / "made" / "here"
    if exists:
        prediction.save(folder)
    before = {name: (folder / name).read_bytes() for name in listing(folder) if exists}

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise error

    with pytest.raises(told):
        prediction.save(folder, progress=stop)
    assert {name: (folder / name).read_bytes() for name in listing(folder) if exists} == before
    assert (tmp_path / "made").exists() == exists


def test_a_file_that_cannot_be_written_is_called_by_its_own_name(
    prediction: VideoPrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, predictions: object) -> None:
        raise InputError(f"{path}: cannot be written (no space left on device)")

    monkeypatch.setattr(results, "write_predictions", refuse)
    with pytest.raises(InputError) as told:
        prediction.save(tmp_path / "out")
    assert str(told.value) == f"{tmp_path / 'out' / 'predictions.json'}: cannot be written (no space left on device)"
    assert listing(tmp_path) == []


def test_an_interruption_removes_no_file_of_others(prediction: VideoPrediction, tmp_path: Path) -> None:
    def add_and_stop(done: int, total: int) -> None:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "notes.txt").write_text("mine")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prediction.save(tmp_path / "new", progress=add_and_stop)
    assert listing(tmp_path) == ["new", "new/notes.txt"]


def test_a_file_where_the_folder_should_be_is_an_error(prediction: VideoPrediction, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "inside"):
        with pytest.raises(InputError, match="taken: expected a folder to write to, found a file"):
            prediction.save(folder)


def test_a_prediction_of_one_image_is_saved_too(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), moving_patches(1)[0][..., ::-1])
    predict(Toy(), tmp_path / "one.png").save(tmp_path / "out")
    assert len(listing(tmp_path / "out")) == 3


# verbs


def test_tracks_know_their_names_and_times(prediction: VideoPrediction) -> None:
    assert [track.name for track in prediction] == ["red", "blue"]
    assert prediction[1].times.tolist() == pytest.approx([t / 25 for t in range(7)])


def test_a_drawn_frame_is_the_overlay_s(prediction: VideoPrediction) -> None:
    assert np.array_equal(prediction.draw(3), render(prediction.at(3)))
    bare = prediction.draw(3, OverlayStyle(masks=False, outlines=False, labels=False))
    assert np.array_equal(bare, prediction.source.frames[3].permute(1, 2, 0))
    with pytest.raises(ConfigError, match=r"style: expected a tubelet\.OverlayStyle"):
        prediction.draw(3, "bold")  # type: ignore[arg-type]


def test_trails_of_one_frame_and_of_the_whole_video_agree(prediction: VideoPrediction) -> None:
    style = OverlayStyle(trails=0.1, labels=False)
    for frame, picture in prediction._drawn(prediction.frames(), style):
        assert np.array_equal(prediction.draw(frame.index, style), picture)


def test_crops_are_boxes_in_a_folder_for_each_identity(prediction: VideoPrediction, tmp_path: Path) -> None:
    assert prediction.crops(tmp_path / "crops", every=3) == 6
    assert listing(tmp_path / "crops")[:2] == ["blue-1", "blue-1/00000.png"]
    left, top, right, bottom = prediction[1].boxes[3].astype(int)
    image = cv2.imread(str(tmp_path / "crops" / "blue-1" / "00003.png"))[..., ::-1]
    assert np.array_equal(image, prediction.source.frames[3][:, top:bottom, left:right].permute(1, 2, 0))


def test_transparent_crops_are_clear_outside_the_mask(prediction: VideoPrediction, tmp_path: Path) -> None:
    prediction.crops(tmp_path / "crops", transparent=True, every=7)
    image = cv2.imread(str(tmp_path / "crops" / "red-0" / "00000.png"), cv2.IMREAD_UNCHANGED)
    left, top, right, bottom = prediction[0].boxes[0].astype(int)
    assert np.array_equal(image[..., 3] > 0, prediction[0].mask(0)[top:bottom, left:right])


def test_crops_replace_no_files_of_others(prediction: VideoPrediction, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError):
        prediction.crops(tmp_path)
    assert listing(tmp_path) == ["notes.txt"]


def test_a_notebook_shows_a_player_and_the_table(prediction: VideoPrediction) -> None:
    html = prediction._repr_html_()
    data = re.search(r'src="data:video/mp4;base64,([^"]+)"', html)
    assert data
    with av.open(io.BytesIO(base64.b64decode(data[1]))) as file:
        assert len(list(file.decode(video=0))) == 7
    assert "<td>red</td>" in html


def test_a_long_video_is_played_in_steps() -> None:
    assert len(played(10_000)) <= 300
    assert played(7) == range(7)


def test_a_prediction_without_objects_is_shown_too() -> None:
    nothing = predict(Toy(shrink=1), np.zeros((2, 48, 64, 3), np.uint8))
    assert "no object in 2 frames" in nothing._repr_html_()


def test_ids_in_the_file_in_the_table_and_on_the_overlay_are_one_number(
    prediction: VideoPrediction, tmp_path: Path
) -> None:
    prediction.save(tmp_path, video=False)
    document = json.loads((tmp_path / "predictions.json").read_text())
    written = [(annotation["id"], annotation["track_id"]) for annotation in document["annotations"]]
    assert written == [(track.id, track.id) for track in prediction]
    assert [row.id for row in prediction.summary()] == list(prediction.ids) == prediction.at(0).ids.tolist()
