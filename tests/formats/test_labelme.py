"""labelme, by hand after its published form: groups are identities, others are images by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.data.tools.checking import check
from tubelet.formats import labelme, registry
from tubelet.formats.files import FormatWarning


def square(left: int, label: str = "dog", group: int | None = None, kind: str = "polygon") -> dict[str, Any]:
    points = [[left, 2], [left + 4, 2], [left + 4, 6], [left, 6]]
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}}


def write(folder: Path, stem: str, shapes: list[dict[str, Any]], size: tuple[int, int] = (8, 16)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{stem}.png"), np.zeros((*size, 3), np.uint8))
    page = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{stem}.png", "imageData": None}
    (folder / f"{stem}.json").write_text(json.dumps({**page, "imageHeight": size[0], "imageWidth": size[1]}))


def test_groups_are_identities_of_one_video_in_natural_order(tmp_path: Path) -> None:
    write(tmp_path, "10", [square(8, group=3)])
    write(tmp_path, "2", [square(0, group=3), square(10, "cat", group=5)])
    assert registry.detect(tmp_path) == "labelme"
    videos = registry.open_set(tmp_path)
    assert videos.classes == ("cat", "dog")
    (video,) = videos.videos
    assert (video.size, len(video)) == ((8, 16), 2)
    dog, cat = video.tracks or ()
    assert (dog.id, dog.label, cat.id, cat.label) == (3, 1, 5, 0)
    assert [box.tolist() for box in dog.boxes] == [[0, 2, 4, 6], [8, 2, 12, 6]]
    assert cat.frames.tolist() == [0]
    assert check(videos).fit


def test_several_polygons_of_a_group_are_one_mask(tmp_path: Path) -> None:
    write(tmp_path, "a", [square(0, group=1), square(10, group=1)])
    (track,) = labelme.read(tmp_path).videos[0].tracks or ()
    assert masks.decode([track.rles[0]])[0].sum() == 32


def test_shapes_without_a_group_in_a_video_are_objects_of_one_frame(tmp_path: Path) -> None:
    write(tmp_path, "a", [square(0, group=4), square(6), square(11)])
    write(tmp_path, "b", [square(0, group=4), square(6)])
    tracks = labelme.read(tmp_path).videos[0].tracks or ()
    assert [(track.id, track.frames.tolist()) for track in tracks] == [(4, [0, 1]), (5, [0]), (6, [0]), (7, [1])]


def test_without_groups_each_image_is_a_video(tmp_path: Path) -> None:
    write(tmp_path, "a", [square(0), square(8)])
    write(tmp_path, "b", [square(0, "cat")], size=(10, 12))
    videos = labelme.read(tmp_path).videos
    assert [(video.id, video.size, len(video.tracks or ())) for video in videos] == [
        ("a", (8, 16), 2),
        ("b", (10, 12), 1),
    ]


def test_folders_are_videos_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "walk", "a", [square(0, group=1)])
    write(tmp_path / "swim", "a", [square(0, group=1)])
    assert [video.id for video in registry.open_set(tmp_path).videos] == ["swim", "walk"]


def test_shapes_without_a_mask_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "a", [square(0), square(3, kind="rectangle"), square(5, kind="circle")])
    with pytest.warns(FormatWarning, match=r"2 shapes are no polygons \(circle, rectangle\) and are left out"):
        assert len(labelme.read(tmp_path).videos[0].tracks or ()) == 1


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    write(tmp_path, "a", [square(0, group=1)])
    write(tmp_path, "b", [square(0, "cat", group=1)])
    with pytest.raises(FormatError, match="group 1 is 'dog' and 'cat'"):
        _ = labelme.read(tmp_path).videos[0]
    write(tmp_path, "b", [square(0, group=1)], size=(4, 4))
    with pytest.raises(FormatError, match=r"b\.json: another size than a\.json"):
        _ = labelme.read(tmp_path).videos[0]
    (tmp_path / "b.json").write_text('{"shapes": 3}')
    with pytest.raises(FormatError, match="expected labelme's form"):
        labelme.read(tmp_path)


def test_an_image_path_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "a", [square(0)])
    page = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**page, "imagePath": "..\\..\\images\\a.png"}))
    assert labelme.read(tmp_path).videos[0].frames[0].shape == (3, 8, 16)
