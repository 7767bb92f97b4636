from __future__ import annotations

import json
from pathlib import Path

import pytest

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.formats.coco import videos as coco_video


def tree() -> dict:
    """By hand: one video of three frames out of order, category ids with gaps, polygons, a crowd."""
    square = [[2, 2, 6, 2, 6, 6, 2, 6]]
    return {
        "videos": [{"id": 4, "name": "park"}],
        "images": [
            {"id": 30, "video_id": 4, "frame_id": 2, "file_name": "park/c.jpg", "height": 10, "width": 12},
            {"id": 10, "video_id": 4, "frame_id": 0, "file_name": "park/a.jpg", "height": 10, "width": 12},
            {"id": 20, "video_id": 4, "frame_id": 1, "file_name": "park\\b.jpg", "height": 10, "width": 12},
        ],
        "categories": [{"id": 9, "name": "zebra"}, {"id": 3, "name": "ape"}],
        "annotations": [
            {"id": 1, "image_id": 10, "track_id": 5, "category_id": 9, "segmentation": square, "iscrowd": 0},
            {"id": 2, "image_id": 30, "track_id": 5, "category_id": 9, "segmentation": square, "iscrowd": 0},
            {"id": 3, "image_id": 20, "track_id": 8, "category_id": 3, "segmentation": square, "iscrowd": 1},
        ],
    }


def save(folder: Path, content: dict) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    path = folder / "tracks.json"
    path.write_text(json.dumps(content))
    return path


def test_images_and_annotations_become_videos_and_tracks(tmp_path):
    videos = coco_video.read(save(tmp_path, tree()))
    assert videos.classes == ("ape", "zebra")
    (video,) = videos.videos
    assert (video.id, video.size, len(video)) == ("park", (10, 12), 3)
    assert video.frames.names == ("park/a.jpg", "park/b.jpg", "park/c.jpg")
    zebra, ape = video.tracks
    assert (zebra.id, zebra.label, zebra.ignore) == (5, 1, False)
    assert (ape.id, ape.label, ape.ignore) == (8, 0, True)
    assert [rle is not None for rle in zebra.rles] == [True, False, True]
    assert masks.boxes([zebra.rles[0]])[0].tolist() == [2, 2, 6, 6]


def test_images_without_a_video_belong_to_their_folder(tmp_path):
    content = tree()
    del content["videos"]
    for image in content["images"]:
        del image["video_id"], image["frame_id"]
    (video,) = coco_video.read(save(tmp_path, content)).videos
    assert video.id == "park"
    assert video.frames.names == ("park/a.jpg", "park/b.jpg", "park/c.jpg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["annotations"][0].pop("track_id"), "frame 0: annotation 1: expected a track_id"),
        (lambda t: t["annotations"][1].update(category_id=3), "frame 2: annotation 2: track 5 is of another class"),
        (lambda t: t["annotations"][1].update(image_id=10), "frame 0: annotation 2: track 5 is in this frame already"),
        (lambda t: t["annotations"][0].update(category_id=1), "annotation 1: no category has the id 1"),
        (lambda t: t["images"][0].update(width=10, height=12), "video park: image 30 is 10x12, the first is 12x10"),
        (lambda t: t["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "annotation 1.*three points"),
        (lambda t: t["images"][0].update(file_name="/etc/x.jpg"), "leads out of its folder"),
    ],
)
def test_what_is_wrong_is_said_with_the_place(tmp_path, change, message):
    content = tree()
    change(content)
    with pytest.raises(FormatError, match=message):
        _ = coco_video.read(save(tmp_path, content)).videos[0]


def test_another_form_is_refused(tmp_path):
    with pytest.raises(FormatError, match="expected COCO's form"):
        coco_video.read(save(tmp_path, {"images": []}))
    content = tree()
    content["annotations"][0]["image_id"] = 77
    with pytest.raises(FormatError, match="annotation 1: no image has the id 77"):
        coco_video.read(save(tmp_path, content))
