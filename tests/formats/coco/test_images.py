from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.formats import coco, registry
from tubelet.formats.files import FormatWarning


def write(folder, change):
    tree = json.loads((folder / "instances.json").read_text())
    change(tree)
    path = folder / "changed.json"
    path.write_text(json.dumps(tree))
    return path


def test_classes_come_in_the_order_of_category_id(coco_set):
    assert coco_set.classes == ("cat", "dog")
    assert [track.label for track in coco_set.videos[0].tracks] == [1, 0, 0]


def test_each_image_is_a_video_of_one_frame(coco_set):
    assert [video.id for video in coco_set.videos] == ["11", "5", "8"]
    assert [video.size for video in coco_set.videos] == [(30, 40), (24, 32), (20, 20)]
    assert all(video.frames[0].shape == (3, *video.size) for video in coco_set.videos)
    assert coco_set.videos[2].tracks == ()


def test_masks_are_read_from_rle_polygon_and_runs(coco_set):
    rle, polygon, runs = (track.rles[0] for track in coco_set.videos[0].tracks)
    assert masks.boxes([rle])[0].tolist() == [10, 5, 25, 15]
    assert masks.boxes([polygon])[0].tolist() == [4, 16, 14, 28]
    assert masks.areas([rle, polygon, runs]).tolist() == [150, 120, 100]


def test_crowds_are_ignored_tracks(coco_set):
    assert [track.ignore for track in coco_set.videos[0].tracks] == [False, False, True]


def test_keep_chooses_images_and_unknown_ids_are_named(coco_folder):
    kept = coco.read(coco_folder / "instances.json", keep=[8, 5])
    assert [video.id for video in kept.videos] == ["5", "8"]
    with pytest.raises(InputError, match="no image has the id 99"):
        coco.read(coco_folder / "instances.json", keep=[99])


def test_opening_reads_no_image_and_no_mask(coco_folder):
    def spoil(tree):
        tree["annotations"][3]["segmentation"] = [[1, 2]]
        tree["images"][1]["file_name"] = "missing.png"

    videos = coco.read(write(coco_folder, spoil), coco_folder / "images").videos
    assert videos[0].tracks
    with pytest.raises(FormatError, match=r"image 5: annotation 4.*three points"):
        _ = videos[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.pop("categories"), "expected COCO's form"),
        (lambda tree: tree["images"][0].pop("id"), r"expected COCO's form, .*missing required field `id`.*images\[0\]"),
        (
            lambda tree: tree["images"][0].update(width="wide"),
            r"expected COCO's form, .*`int`, got `str`.*images\[0\]\.width",
        ),
        (lambda tree: tree["images"][0].update(file_name="../../etc/passwd"), "leads out of its folder"),
        (lambda tree: tree["images"][0].update(width=30, height=40), r"image 11: annotation 1.*size \[40, 30\]"),
        (lambda tree: tree["annotations"][0].update(category_id=5), "annotation 1: no category has the id 5"),
    ],
)
def test_what_is_wrong_is_said_with_the_place(coco_folder, change, message):
    with pytest.raises(FormatError, match=message):
        _ = coco.read(write(coco_folder, change), coco_folder / "images").videos[0]


def test_a_missing_file_and_a_file_that_is_no_json_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.json: no such file"):
        coco.read(tmp_path / "nothing.json")
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(FormatError, match=r"text\.json: expected JSON"):
        coco.read(tmp_path / "text.json")


def test_an_image_of_another_size_than_its_annotation_is_named(coco_folder):
    def shrink(tree):
        tree["images"][2].update(height=10)

    video = coco.read(write(coco_folder, shrink), coco_folder / "images").videos[2]
    with pytest.raises(InputError, match=r"000008\.png: expected an image of 20x10, got 20x20"):
        _ = video.frames[0]


def test_the_real_images_are_read_whole(shared):
    folder = shared / "data/coco_instances"
    split = json.loads((folder / "split.json").read_text())
    held_out = coco.read(folder / "instances.json", keep=split["val"])
    assert len(held_out.videos) == 150
    assert len(held_out.classes) == 80
    assert held_out.classes[:3] == ("person", "bicycle", "car")
    everything = coco.read(folder / "instances.json").videos
    tracks = [track for video in everything for track in video.tracks]
    assert len(tracks) == 6313
    assert sum(track.ignore for track in tracks) == 67
    video = held_out.videos[0]
    assert video.frames[0].shape == (3, *video.size)
    assert np.array_equal(masks.decode(video.tracks[0].rles)[0].shape, video.size)


# where the images are, and Roboflow's export


def _document(file_name: str, categories: list[dict[str, Any]] | None = None) -> str:
    polygon = [[0, 0, 6, 0, 6, 4, 0, 4]]
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": file_name, "height": 4, "width": 6}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": polygon, "area": 24}],
            "categories": categories or [{"id": 1, "name": "dog"}],
        }
    )


@pytest.mark.parametrize(
    ("document", "image"),
    [
        ("annotations/instances_train2017.json", "train2017/a.png"),
        ("annotations/instances_train.json", "images/train/a.png"),
        ("annotations/train.json", "images/a.png"),
        ("train/_annotations.coco.json", "train/a.png"),
        ("dataset.json", "a.png"),
    ],
)
def test_every_common_tree_is_found_by_its_folder(tmp_path: Path, document: str, image: str) -> None:
    for name in (document, image):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / document).write_text(_document("a.png"))
    cv2.imwrite(str(tmp_path / image), np.zeros((4, 6, 3), np.uint8))
    if document.startswith("annotations"):
        (tmp_path / "annotations" / "captions_val2017.json").write_text("{}")
        (tmp_path / "annotations" / "instances_val2017.json").write_text(_document("b.png"))
    assert registry.detect(tmp_path) == "coco"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (video,) = registry.open_set(tmp_path).videos
    said = [str(warning.message) for warning in caught]
    assert any("instances_val2017.json by its own path" in text for text in said) == document.startswith("annotations")
    assert video.frames[0].shape == (3, 4, 6)


def test_roboflow_s_unused_category_0_is_left_out_and_said(tmp_path: Path) -> None:
    root = {"id": 0, "name": "pets", "supercategory": "none"}
    dog = {"id": 1, "name": "dog", "supercategory": "pets"}
    path = tmp_path / "train.json"
    path.write_text(_document("a.png", [root, dog]))
    with pytest.warns(FormatWarning, match="category 0, 'pets', names the others' supercategory"):
        assert coco.read(path, tmp_path).classes == ("dog",)
    path.write_text(_document("a.png", [{**root, "supercategory": "x"}, {**dog, "supercategory": "animal"}]))
    assert coco.read(path, tmp_path).classes == ("pets", "dog")


def test_ids_that_are_text_become_numbers(tmp_path: Path) -> None:
    document = json.loads(_document("a.png", [{"id": "7", "name": "dog"}, {"id": "kitty", "name": "cat"}]))
    (polygon,) = document["annotations"]
    document["images"][0]["id"] = "frame-a"
    document["annotations"] = [
        {**polygon, "id": id, "image_id": "frame-a", "category_id": category}
        for id, category in (("41", 7), ("9f2c", "kitty"), ("e77a", "7"))
    ]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(document))
    videos = coco.read(path, tmp_path)
    assert videos.classes == ("dog", "cat")
    (video,) = videos.videos
    assert video.id == "frame-a"
    assert [(track.id, track.label) for track in video.tracks or ()] == [(41, 0), (42, 1), (43, 0)]


def test_tracks_whose_ids_are_text_go_through_frames(tmp_path: Path) -> None:
    document = json.loads(_document("v/0.png"))
    (image,) = document["images"]
    (polygon,) = document["annotations"]
    document["images"].append({**image, "id": "2", "file_name": "v/1.png"})
    document["annotations"] = [
        {**polygon, "id": f"{name}{frame}", "image_id": frame, "track_id": name}
        for frame in (1, 2)
        for name in ("rex", "fido")
    ]
    (tmp_path / "train.json").write_text(json.dumps(document))
    (tmp_path / "images").mkdir()
    (video,) = registry.open_set(tmp_path / "train.json").videos
    assert [(track.id, track.frames.tolist()) for track in video.tracks or ()] == [(1, [0, 1]), (2, [0, 1])]
