"""Label Studio's JSON export, by hand after its published description, and rle-pack's of the brush."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.data.tools.checking import check
from tubelet.formats import label_studio, registry
from tubelet.formats.files import FormatWarning
from tubelet.formats.label_studio import brush

SIZE = (8, 16)
HALF = [[0, 0], [50, 0], [50, 100], [0, 100]]


def packed(mask: np.ndarray, colour: tuple[int, int, int] = (7, 7, 7)) -> list[int]:
    """What the brush saves: RGBA, row by row; pixels that are painted as words that differ, others as runs."""
    bits = f"{mask.size * 4:032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    for painted in mask.ravel():
        if painted:
            bits += "0" + "00" + f"{4 - 1:03b}" + "".join(f"{value:08b}" for value in (*colour, 255))
        else:
            bits += "1" + "00" + f"{4 - 1:03b}" + f"{0:08b}"
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def region(kind: str, id: str = "r1", **value: Any) -> dict[str, Any]:
    height, width = SIZE
    return {"id": id, "type": kind, "value": value, "original_width": width, "original_height": height}


def write(folder: Path, *tasks: tuple[str, list[dict[str, Any]]]) -> Path:
    """An export of one task per image or video."""
    whole = [
        {"id": n, "data": {"image": source}, "annotations": [{"id": n, "result": result, "was_cancelled": False}]}
        for n, (source, result) in enumerate(tasks)
    ]
    (folder / "project-1-at-2024.json").write_text(json.dumps(whole))
    return folder


def film(path: Path, frames: int, size: tuple[int, int] = (64, 128)) -> None:
    """A grey clip of 25 frames a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.height, stream.width = size
        for _ in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 90, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((*SIZE, 3), np.uint8))


@pytest.mark.parametrize("seed", range(4))
def test_a_brush_is_unpacked_pixel_by_pixel(seed: int) -> None:
    mask = np.random.default_rng(seed).random(SIZE) < 0.4
    assert np.array_equal(brush.decode(bytes(packed(mask)), SIZE, "x"), mask)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (packed(np.ones(SIZE, bool))[:-3], "cut short"),
        (packed(np.ones((8, 15), bool)), "a brush mask of 120 pixels where the image has 16x8"),
        ([], "cut short"),
    ],
)
def test_a_brush_that_does_not_fit_is_refused(data: list[int], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        brush.decode(bytes(data), SIZE, "x")


def test_brushes_and_polygons_of_images_are_read_and_ids_are_numbered(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, bool)
    mask[2:5, 3:9] = True
    painted = region("brushlabels", "x7f", format="rle", rle=packed(mask), brushlabels=["cat"])
    drawn = region("polygonlabels", "b2", points=HALF, closed=True, polygonlabels=["dog"])
    picture(tmp_path / "upload" / "0a1b2c3d-a.png")
    picture(tmp_path / "upload" / "b c.png")
    write(
        tmp_path,
        ("/data/upload/1/0a1b2c3d-a.png", [painted, drawn]),
        ("/data/local-files/?d=pets%2Fb%20c.png", []),
    )
    assert registry.detect(tmp_path) == "label-studio"
    videos = registry.open_set(tmp_path)
    assert videos.classes == ("cat", "dog")
    first, second = videos.videos
    assert (first.id, first.size, len(first)) == ("0a1b2c3d-a", SIZE, 1)
    cat, dog = first.tracks or ()
    assert (cat.id, cat.label, dog.id, dog.label) == (1, 0, 2, 1)
    assert np.array_equal(masks.decode([cat.rles[0]])[0], mask)
    assert masks.boxes([dog.rles[0]])[0].tolist() == [0, 0, 8, 8]
    assert (second.id, second.tracks) == ("b c", ())
    assert second.frames[0].shape == (3, *SIZE)
    assert check(videos).fit


def test_a_label_that_is_a_result_of_its_own_belongs_to_the_region_of_its_id(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write(tmp_path, ("a.png", [region("polygon", points=HALF), region("labels", points=HALF, labels=["dog"])]))
    videos = label_studio.read(tmp_path)
    assert videos.classes == ("dog",)
    assert len(videos.videos[0].tracks or ()) == 1


def test_boxes_of_a_video_go_from_key_frame_to_key_frame(tmp_path: Path) -> None:
    film(tmp_path / "walk.mp4", frames=8)
    keys = [
        {"frame": 2, "enabled": True, "rotation": 0, "x": 0, "y": 0, "width": 25, "height": 50, "time": 0.04},
        {"frame": 6, "enabled": False, "rotation": 0, "x": 50, "y": 50, "width": 25, "height": 50, "time": 0.2},
    ]
    box = region("videorectangle", sequence=keys, framesCount=8, duration=0.32, labels=["person"])
    jump = region("timelinelabels", "t", ranges=[{"start": 1, "end": 4}], timelinelabels=["jump"])
    write(tmp_path, ("/data/upload/3/01234567-walk.mp4", [box, jump]))
    with pytest.warns(FormatWarning, match="the boxes are their masks") as warned:
        videos = registry.open_set(tmp_path)
    assert any("left out: timelinelabels 1" in str(warning.message) for warning in warned)
    (video,) = videos.videos
    (person,) = video.tracks or ()
    assert person.frames.tolist() == [1, 2, 3, 4, 5]
    assert person.boxes.tolist()[0] == [0, 0, 32, 32]
    assert person.boxes.tolist()[2] == [32, 16, 64, 48]
    assert person.boxes.tolist()[-1] == [64, 32, 96, 64]
    assert check(videos).fit


def test_times_decide_where_label_studio_has_counted_other_frames(tmp_path: Path) -> None:
    film(tmp_path / "walk.mp4", frames=10)
    keys = [{"frame": 1, "enabled": True, "x": 0, "y": 0, "width": 50, "height": 50}]
    keys += [{"frame": 3, "enabled": False, "x": 0, "y": 0, "width": 50, "height": 50}]
    box = region("videorectangle", sequence=keys, framesCount=5, duration=0.4, labels=["person"])
    write(tmp_path, ("walk.mp4", [box]))
    with pytest.warns(FormatWarning):
        (track,) = label_studio.read(tmp_path).videos[0].tracks or ()
    assert track.frames.tolist() == [0, 1, 2, 3, 4]  # until 0.16 s; number 3 of 12.5 a second


def test_a_box_turns_about_its_upper_left_corner(tmp_path: Path) -> None:
    film(tmp_path / "walk.mp4", frames=2)
    keys = [{"frame": 1, "enabled": True, "rotation": 90, "x": 50, "y": 0, "width": 25, "height": 25}]
    write(tmp_path, ("walk.mp4", [region("videorectangle", sequence=keys, framesCount=2, labels=["person"])]))
    with pytest.warns(FormatWarning):
        (track,) = label_studio.read(tmp_path).videos[0].tracks or ()
    assert track.boxes[0].round().tolist() == [48, 0, 64, 32]


def test_rectangles_of_images_are_left_out_and_counted(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    box = region("rectanglelabels", "b", x=0, y=0, width=50, height=50, rectanglelabels=["dog"])
    write(tmp_path, ("a.png", [box, region("polygonlabels", points=HALF, polygonlabels=["dog"])]))
    with pytest.warns(FormatWarning, match="without a mask are left out: rectanglelabels 1"):
        assert len(label_studio.read(tmp_path).videos[0].tracks or ()) == 1


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    write(tmp_path, ("notes.txt", []))
    with pytest.raises(FormatError, match="task 1 names no image or video"):
        label_studio.read(tmp_path)
    (tmp_path / "project-1-at-2024.json").write_text('[{"image": "a.png", "label": []}]')
    with pytest.raises(FormatError, match="expected Label Studio's JSON form"):
        label_studio.read(tmp_path)
    picture(tmp_path / "a.png")
    write(tmp_path, ("a.png", [region("brushlabels", rle=[0, 300], brushlabels=["cat"])]))
    with pytest.raises(FormatError, match="expected a brush mask as bytes"):
        _ = label_studio.read(tmp_path).videos[0]
