from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.formats import mots

# the line that the form's own description gives as its example
PUBLISHED = (
    "52 1005 1 375 1242 WSV:2d;1O10000O10000O1O100O100O1O100O1000000000000000O100O102N5K00O1O1N2O110OO2O001O1NTga3"
)


def text_set(root: Path, text: str) -> Path:
    (root / "instances_txt").mkdir(parents=True)
    (root / "instances_txt" / "0000.txt").write_text(text, encoding="utf-8")
    return root


def test_the_published_example_is_read(tmp_path):
    videos = mots.read(text_set(tmp_path, PUBLISHED + "\n"))
    assert videos.classes == ("car", "pedestrian")
    video = videos.videos[0]
    assert (video.id, video.size, len(video)) == ("0000", (375, 1242), 52)
    (track,) = video.tracks
    assert (track.id, track.label, track.ignore) == (1005, 0, False)
    assert [t for t, rle in enumerate(track.rles) if rle is not None] == [51]
    assert masks.areas([track.rles[51]])[0] > 100


def test_a_trackers_own_ids_take_their_class_from_its_column(tmp_path):
    line = PUBLISHED.replace("1005 1 ", "17 2 ")
    ignored = PUBLISHED.replace("1005 1 ", "3 10 ")
    tracks = mots.read(text_set(tmp_path, f"{line}\n{ignored}\n")).videos[0].tracks
    assert [(track.id, track.label, track.ignore) for track in tracks] == [(17, 1, False), (3, 0, True)]


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """KITTI-MOTS's published layout by hand: 16-bit maps beside the images, a car, a pedestrian, a region to ignore."""
    for t in range(3):
        numbers = np.zeros((10, 30), np.uint16)
        numbers[1:4, 2 + t : 8 + t] = 1001
        numbers[5:9, 20:24] = 2000
        if t == 1:
            numbers[0] = 10000
        for folder, image in (("instances", numbers), ("training/image_02", np.full((10, 30, 3), t, np.uint8))):
            path = tmp_path / folder / "0003" / f"{t:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path


def test_sixteen_bit_maps_hold_class_and_identity(kitti):
    video = mots.read(kitti).videos[0]
    assert [(track.id, track.label, track.ignore) for track in video.tracks] == [
        (1001, 0, False), (2000, 1, False), (10000, 0, True),
    ]  # fmt: skip
    assert masks.boxes([video.tracks[0].rles[2]])[0].tolist() == [4, 1, 10, 4]
    assert [rle is not None for rle in video.tracks[2].rles] == [False, True, False]
    assert video.frames[2].unique().tolist() == [2]


def test_the_challenges_layout_counts_frames_from_one(tmp_path):
    place = tmp_path / "MOTS20-02"
    (place / "gt").mkdir(parents=True)
    (place / "img1").mkdir()
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 2:5, 2:5] = True
    code = masks.encode(mask)[0].counts.decode()
    (place / "gt" / "gt.txt").write_text(f"2 2001 2 8 8 {code}\n")
    for number in (1, 2, 3):
        cv2.imwrite(str(place / "img1" / f"{number:06d}.jpg"), np.full((8, 8, 3), 10 * number, np.uint8))
    video = mots.read(tmp_path).videos[0]
    assert video.id == "MOTS20-02"
    assert [rle is not None for rle in video.tracks[0].rles] == [False, True, False]
    assert abs(int(video.frames[1].float().mean()) - 20) <= 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 1001 1 8 8", "line 2: expected 'frame id class height width rle'"),
        ("one 1001 1 8 8 abc", "line 2: expected 'frame id class height width rle'"),
        ("99999999 1001 1 375 1242 abc", "more than is supported"),
        ("53 1005 1 1242 375 abc", "line 2: expected a mask of 1242x375, got 375x1242, width and height are swapped"),
        ("53 1005 1 375 1242 PP1", "line 2: runs must"),
        ("53 1005 2 375 1242 " + PUBLISHED.split()[5], "line 2: object 1005 is of class 2, before it was of 1"),
        ("53 1005 1 375 1242 \u00e9", "line 2: expected 'frame id class height width rle'"),
        ("52 1005 1 375 1242 " + PUBLISHED.split()[5], "line 2: object 1005 is in frame 52 already"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    videos = mots.read(text_set(tmp_path, f"{PUBLISHED}\n{line}\n")).videos
    with pytest.raises(FormatError, match=rf"0000\.txt: .*{message}"):
        _ = videos[0]


def test_a_class_that_is_not_listed_is_named(tmp_path):
    videos = mots.read(text_set(tmp_path, PUBLISHED.replace("1005 1 ", "7005 7 ") + "\n")).videos
    with pytest.raises(FormatError, match="object 7005 is of class 7, expected 1 to 2"):
        _ = videos[0]
    renamed = mots.read(tmp_path, classes=[f"c{n}" for n in range(7)])
    assert renamed.videos[0].tracks[0].label == 6


def test_objects_in_a_frame_without_an_image_are_refused(kitti):
    (kitti / "training/image_02/0003/000002.png").unlink()
    with pytest.raises(FormatError, match="objects in frame 2, which has no image"):
        _ = mots.read(kitti).videos[0]


def test_another_layout_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected MOTS's layout"):
        mots.read(tmp_path)
