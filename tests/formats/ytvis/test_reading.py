from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.types import Prediction, Track, Video, VideoSet
from tubelet.formats import ytvis
from tubelet.formats.ytvis.document import Faults

SIZE = (4, 6)
BLOCK = np.zeros(SIZE, bool)
BLOCK[1:3, 2:5] = True
RLE = masks.encode(BLOCK[None])[0]
JSON_RLE = {"size": [4, 6], "counts": RLE.counts.decode()}


def truth(**changes: Any) -> dict[str, Any]:
    tree = {
        "videos": [
            {"id": 905, "height": 4, "width": 6, "length": 2, "file_names": ["cow/0.jpg", "cow/1.jpg"]},
            {"id": 7, "height": 4, "width": 6, "length": 3, "file_names": ["dog/0.jpg", "dog/1.jpg", "dog/2.jpg"]},
        ],
        "categories": [{"id": 40, "name": "dog"}, {"id": 3, "name": "cow"}],
        "annotations": [
            {"id": 0, "video_id": 905, "category_id": 3, "iscrowd": 0, "segmentations": [JSON_RLE, None]},
            {"id": 12, "video_id": 7, "category_id": 40, "iscrowd": 1, "segmentations": [None, JSON_RLE, JSON_RLE]},
        ],
    }
    return tree | changes


def result(**changes: Any) -> dict[str, Any]:
    return {"video_id": 7, "category_id": 40, "score": 0.5, "segmentations": [None, JSON_RLE, None]} | changes


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(tree: Any, name: str = "file.json") -> Path:
        path = tmp_path / name
        path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
        return path

    return write


@pytest.fixture
def videos(written: Any) -> ytvis.AnnotatedSet:
    return ytvis.read(written(truth(), "truth.json"))


def test_ids_of_the_file_are_carried_and_order_videos_and_classes(videos: ytvis.AnnotatedSet) -> None:
    assert [video.id for video in videos.videos] == ["7", "905"]
    assert videos.names == ("dog", "cow")
    assert (videos.category_ids, videos.classes) == ((3, 40), ("cow", "dog"))
    dog, cow = (video.tracks[0] for video in videos.videos)
    assert (dog.id, dog.label, dog.ignore) == (12, 1, True)
    assert (cow.id, cow.label, cow.ignore, cow.score) == (0, 0, False, 1.0)
    assert tuple(cow.rles) == (RLE, None)
    assert cow.area is None


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}, BLOCK),
        ([[2, 1, 5, 1, 5, 3, 2, 3]], BLOCK),
    ],
)
def test_every_form_of_segmentation_is_read(mask: Any, expected: Any, written: Any) -> None:
    tree = truth()
    tree["annotations"][0]["segmentations"][1] = mask
    rle = ytvis.read(written(tree)).videos[1].tracks[0].rles[1]
    assert (rle is None) == (expected is None)
    if rle is not None:
        assert (masks.decode([rle])[0] == expected).all()


def test_stated_areas_are_averaged_over_frames_that_have_any(written: Any) -> None:
    tree = truth()
    tree["annotations"][1]["areas"] = [None, 100.0, 50]
    assert ytvis.read(written(tree)).videos[0].tracks[0].area == 75


@pytest.mark.parametrize("levels", [[[[1]]], [{}], {}, "slight_occlusion", [2]])
def test_occlusion_of_another_form_is_refused(levels: Any, written: Any) -> None:
    tree = truth()
    tree["annotations"][1]["occlusion"] = levels
    with pytest.raises(FormatError, match="expected occlusion"):
        _ = ytvis.read(written(tree)).occlusion


def test_occlusion_is_the_mean_over_the_more_occluded_half_of_the_frames(written: Any) -> None:
    tree = truth()
    levels = [None, "slight_occlusion", "severe_occlusion"]
    tree["annotations"][1]["occlusion"] = levels
    assert ytvis.read(written(tree)).occlusion == {("7", 12): 0.75}
    tree["annotations"][1]["occlusion"] = ["no_occlusion", *levels[1:]]
    assert ytvis.read(written(tree)).occlusion == {("7", 12): 0.5}


def test_frames_are_found_beside_the_file_and_read_when_asked_for(written: Any, tmp_path: Path) -> None:
    import cv2

    path = written(truth(), "train.json")
    videos = ytvis.read(path)
    assert len(videos.videos[0].frames) == 3
    with pytest.raises(InputError, match=r"video 7: its frames are expected in .*JPEGImages, which is not there"):
        videos.videos[0].frames[0]
    folder = tmp_path / "train" / "JPEGImages" / "dog"
    folder.mkdir(parents=True)
    for t in range(3):
        cv2.imwrite(str(folder / f"{t}.jpg"), np.full((4, 6, 3), 60 * t, np.uint8))
    frame = ytvis.read(path).videos[0].frames[2]
    assert frame.shape == (3, 4, 6)
    assert frame.dtype == torch.uint8
    assert abs(int(frame.max()) - 120) < 5


def test_a_file_name_that_leads_out_of_the_folder_is_refused(written: Any, tmp_path: Path) -> None:
    tree = truth()
    tree["videos"][0]["file_names"][0] = "../../secret.jpg"
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(FormatError, match="leads out of its folder"):
        ytvis.read(written(tree)).videos[1].frames[0]


def test_a_bare_list_means_the_ids_of_the_truth(videos: ytvis.AnnotatedSet, written: Any) -> None:
    found = ytvis.read_predictions(written([result(), result(category_id=3, score=1)]), videos)
    assert [prediction.video for prediction in found] == ["7", "905"]
    assert found[1].tracks == ()
    first, second = found[0].tracks
    assert (first.id, first.label, first.score, tuple(first.rles)) == (1, 1, 0.5, (None, RLE, None))
    assert (second.id, second.label, second.score) == (2, 0, 1.0)
    assert found[0].classes == ("cow", "dog")


def test_a_data_set_of_predictions_goes_by_names(videos: ytvis.AnnotatedSet, written: Any) -> None:
    own = {
        "videos": [{"id": 1, "name": "dog", "height": 4, "width": 6, "length": 3}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"id": 1, "track_id": 33} | result(video_id=1, category_id=1)],
    }
    found = ytvis.read_predictions(written(own), videos)
    assert [(track.id, track.label) for track in found[0].tracks] == [(33, 1)]


def _predictions() -> list[Prediction]:
    tracks = (
        Track(id=4, label=1, score=0.25, rles=(None, RLE, None)),
        Track(id=2, label=0, score=0.1 + 0.2, rles=(RLE, RLE, RLE)),
    )
    named = ("cow", "dog")
    return [
        Prediction(video="905", size=SIZE, length=2, tracks=(), classes=named),
        Prediction(video="7", size=SIZE, length=3, tracks=tracks, classes=named),
    ]


def test_written_predictions_are_read_back(videos: ytvis.AnnotatedSet, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    ytvis.write_predictions(path, _predictions())
    assert ytvis.read_predictions(path, videos) == _predictions()[::-1]
    tree = json.loads(path.read_text())
    assert [video["id"] for video in tree["videos"]] == [905, 7]
    first, second = tree["annotations"]
    assert (first["id"], first["video_id"], first["category_id"], first["track_id"]) == (4, 7, 2, 4)
    assert first["segmentations"] == [None, JSON_RLE, None]
    assert (first["bboxes"], first["areas"]) == ([None, [2.0, 1.0, 3.0, 2.0], None], [None, 6, None])
    assert (first["height"], first["width"], first["iscrowd"]) == (4, 6, 0)
    assert second["score"] == 0.1 + 0.2


def test_predictions_of_videos_without_numbers_are_found_by_name(written: Any, tmp_path: Path) -> None:
    videos = ytvis.read(written(truth()))
    renamed = [replace(p, video=name) for p, name in zip(_predictions(), ("cow", "dog"), strict=True)]
    ytvis.write_predictions(tmp_path / "p.json", renamed)
    assert ytvis.read_predictions(tmp_path / "p.json", videos) == _predictions()[::-1]


def test_written_results_take_the_truth_s_ids_sorted_by_video_and_score(
    videos: ytvis.AnnotatedSet, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    ytvis.write_results(path, _predictions(), videos)
    listed = json.loads(path.read_text())
    assert [(r["video_id"], r["category_id"], r["score"]) for r in listed] == [(7, 3, 0.1 + 0.2), (7, 40, 0.25)]
    assert set(listed[0]) == {"video_id", "category_id", "score", "segmentations"}


def test_a_class_that_the_truth_lacks_cannot_be_written_as_a_result(videos: ytvis.AnnotatedSet, tmp_path: Path) -> None:
    stray = replace(_predictions()[1], classes=("cow", "cat"))
    with pytest.raises(FormatError, match="class 'cat' is not in the truth"):
        ytvis.write_results(tmp_path / "r.json", [stray], videos)
    assert list(tmp_path.glob("*r.json*")) == []


def test_a_written_set_is_read_back(videos: ytvis.AnnotatedSet, tmp_path: Path) -> None:
    ytvis.write_set(tmp_path / "again.json", videos)
    again = ytvis.read(tmp_path / "again.json")
    assert (again.classes, again.category_ids) == (videos.classes, ("1", "2")) or again.category_ids == (3, 40)
    for one, other in zip(videos.videos, again.videos, strict=True):
        assert (one.id, one.size, one.frames.files) == (other.id, other.size, other.frames.files)
        assert [(t.id, t.label, t.ignore, tuple(t.rles)) for t in one.tracks] == [
            (t.id, t.label, t.ignore, tuple(t.rles)) for t in other.tracks
        ]


def test_tracks_that_share_ids_between_videos_are_numbered_anew(tmp_path: Path) -> None:
    track = Track(id=1, label=0, score=1.0, rles=(RLE,))
    made = [Video(id=name, size=SIZE, frames=[torch.zeros(3, *SIZE)], tracks=(track,)) for name in ("a", "b")]
    ytvis.write_set(tmp_path / "s.json", VideoSet(videos=made, classes=("thing",)), suffix=".png")
    again = ytvis.read(tmp_path / "s.json")
    assert [(video.id, video.tracks[0].id) for video in again.videos] == [("1", 1), ("2", 2)]
    assert again.names == ("a", "b")
    assert again.videos[1].frames.files == ("b/00000.png",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": 8}, "video 8, track 1: video '8' is not in the truth"),
        ({"category_id": 41}, "video 7, track 1: category '41' is not in the truth; did you mean '40'"),
        ({"score": None}, "track 1: expected a finite score, got none"),
        ({"score": float("nan")}, "track 1: expected a finite score, got 'NaN'"),
        ({"score": "high"}, "track 1: expected a finite score, got 'high'"),
        ({"segmentations": [None, None]}, "track 1: expected 3 segmentations, one per frame of the video, got 2"),
        ({"segmentations": None}, "track 1: expected a list of segmentations"),
        (
            {"segmentations": [None, None, {"size": [6, 4], "counts": "oo"}]},
            "track 1, frame 2: expected a mask of size [4, 6] (height, width), got [6, 4]",
        ),
        ({"segmentations": [None, {"size": [4, 6], "counts": "é"}, None]}, "frame 1: counts are empty or not ASCII"),
        ({"segmentations": [{"size": [4, 6], "counts": ""}, None, None]}, "frame 0: counts are empty or not ASCII"),
        ({"segmentations": [None, {"size": [4, 6], "counts": "N"}, None]}, "frame 1: mask: runs must be non-negative"),
        ({"segmentations": [None, {"size": [4, 6], "counts": [30]}, None]}, "frame 1: runs must be non-negative"),
        (
            {"segmentations": [None, {"size": [4, 6], "counts": [-6, 30]}, None]},
            "frame 1: runs must be non-negative",
        ),
        (
            {"segmentations": [None, {"size": [4, 6], "counts": [10**30]}, None]},
            "frame 1: a run length is too large",
        ),
        ({"segmentations": [None, {"size": [4, 6]}, None]}, "frame 1: expected an RLE with size and counts"),
        ({"segmentations": [None, [[1, 2, 3, 4]], None]}, "frame 1: a polygon needs three points"),
    ],
)
def test_a_wrong_result_is_named_or_left_out_and_counted(
    change: dict[str, Any], message: str, videos: ytvis.AnnotatedSet, written: Any
) -> None:
    path = written([result(**change), result()], "results.json")
    with pytest.raises(FormatError, match=re.escape(message)):
        ytvis.read_predictions(path, videos)
    faults = Faults(lenient=True)
    found = ytvis.read_predictions(path, videos, faults=faults)
    assert [track.id for track in found[0].tracks] == [2]
    assert sum(faults.counts.values()) == 1
    assert message in next(iter(faults.first.values()))


def test_a_track_id_may_be_given_once_in_a_video(videos: ytvis.AnnotatedSet, written: Any) -> None:
    twice = {"annotations": [{"id": 5} | result(), {"id": 5} | result()]}
    with pytest.raises(FormatError, match="expected a track id of its own within the video, got 5"):
        ytvis.read_predictions(written(twice), videos)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("no json", "expected JSON"),
        ("", "expected JSON"),
        ("[1, 2]", "not of the YouTube-VIS form"),
        ([], "expected a data set"),
        ("3", "not of the YouTube-VIS form"),
        ({"videos": []}, "expected a data set"),
        (truth(videos=[{"id": 1, "height": 0, "width": 6, "length": 1}]), "a size of 0 x 6 is not supported"),
        (truth(videos=[{"id": 1, "height": 10**9, "width": 6, "length": 1}]), "a size of 1000000000 x 6"),
        (truth(videos=[{"id": 1, "height": 4, "width": 6, "length": 10**9}]), "a length of 1000000000"),
        (truth(videos=[{"id": "x", "height": 4, "width": 6, "length": 1}]), "number of its own as its id, got 'x'"),
        (truth(videos=truth()["videos"] * 2), "number of its own as its id, got 905"),
        (truth(categories=[{"id": 3}, {"id": 3}]), "number of its own as its id, got 3"),
        (truth(annotations=truth()["annotations"] * 2), "video 905, track 0: expected an id of its own, got 0"),
    ],
)
def test_a_truth_that_is_not_right_is_named(tree: Any, message: str, written: Any) -> None:
    with pytest.raises(FormatError, match=re.escape(message)):
        ytvis.read(written(tree))


def test_a_set_whose_annotations_are_kept_back_has_videos_without_tracks(written: Any) -> None:
    kept_back = ytvis.read(written(truth(annotations=None)))
    assert [video.tracks for video in kept_back.videos] == [None, None]
    assert kept_back.classes == ("cow", "dog")


def test_the_tables_of_a_bare_list_are_inferred(written: Any) -> None:
    listed = [result(), result(video_id=905, category_id=3, segmentations=[JSON_RLE])]
    tables = ytvis.read_tables(written(listed))
    assert [(video.id, video.size, len(video), video.tracks) for video in tables.videos] == [
        ("7", SIZE, 3, None),
        ("905", SIZE, 1, None),
    ]
    assert tables.category_ids == (3, 40)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.json: no such file"):
        ytvis.read(tmp_path / "nothing.json")


def test_an_empty_result_list_is_right_and_warns(videos: ytvis.AnnotatedSet, written: Any) -> None:
    with pytest.warns(UserWarning, match="no predictions in it"):
        found = ytvis.read_predictions(written([]), videos)
    assert all(prediction.tracks == () for prediction in found)


def test_a_pipe_is_read_like_a_file(written: Any, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(json.dumps(truth())))
    writer.start()
    assert [video.id for video in ytvis.read(pipe).videos] == ["7", "905"]
    writer.join()


def test_reading_needs_no_torch(written: Any) -> None:
    path = written(truth())
    reading = f"from tubelet.formats import ytvis; ytvis.read({str(path)!r})"
    code = f"import sys; {reading}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_masks_agree_with_the_public_tool(written: Any) -> None:
    rng = np.random.default_rng(0)
    stack = rng.random((2, *SIZE)) < 0.5
    codes = [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in stack]
    listed = [{"size": code["size"], "counts": code["counts"].decode()} for code in codes]
    tree = truth()
    tree["annotations"][0]["segmentations"] = listed
    track = ytvis.read(written(tree)).videos[1].tracks[0]
    assert (masks.decode(list(track.rles)).astype(bool) == stack).all()
    assert track.rles.areas.tolist() == [int(coco.area(code)) for code in codes]


def test_shots_are_written_and_read_back(videos: ytvis.AnnotatedSet, tmp_path: Path) -> None:
    known = [replace(one, shots=shots) for one, shots in zip(_predictions(), ((), (0, 2)), strict=True)]
    ytvis.write_predictions(tmp_path / "p.json", known)
    assert ytvis.read_predictions(tmp_path / "p.json", videos) == known[::-1]
    assert [video.get("shots") for video in json.loads((tmp_path / "p.json").read_text())["videos"]] == [None, [0, 2]]


@pytest.mark.parametrize("shots", [None, [], [1], [0, 3], [0, 2, 1], [0, "1"], [0, 0], {"0": 0}, [0, 1.5], [0, 1e999]])
def test_shots_that_cannot_be_are_taken_for_unknown(shots: Any, videos: ytvis.AnnotatedSet, tmp_path: Path) -> None:
    ytvis.write_predictions(tmp_path / "p.json", _predictions())
    tree = json.loads((tmp_path / "p.json").read_text())
    tree["videos"][1]["shots"] = shots
    (tmp_path / "p.json").write_text(json.dumps(tree))
    assert [prediction.shots for prediction in ytvis.read_predictions(tmp_path / "p.json", videos)] == [(), ()]
