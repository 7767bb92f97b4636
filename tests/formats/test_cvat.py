from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.formats import cvat
from tubelet.formats.files import FormatWarning

# by hand, after CVAT's description of its XML form 1.1; rle are runs within the box, row by row, zeros first
DOCUMENT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>1</id><name>street</name><size>5</size><mode>interpolation</mode>
      <labels>
        <label><name>person</name><color>#ff0000</color><type>any</type><attributes></attributes></label>
        <label><name>car</name><color>#00ff00</color><type>any</type><attributes></attributes></label>
      </labels>
      <original_size><width>12</width><height>10</height></original_size>
    </task>
    <dumped>2024-01-01 00:00:00+00:00</dumped>
  </meta>
  <track id="0" label="car" source="manual">
    <mask frame="0" outside="0" occluded="0" keyframe="1" rle="1, 2, 1, 2" left="3" top="4" width="3" height="2"
      z_order="0"></mask>
    <mask frame="1" outside="0" occluded="0" keyframe="1" rle="0, 6" left="4" top="4" width="3" height="2"
      z_order="0"></mask>
    <mask frame="3" outside="1" occluded="0" keyframe="1" rle="0, 6" left="4" top="4" width="3" height="2"
      z_order="0"></mask>
  </track>
  <track id="1" label="person" source="manual">
    <polygon frame="2" outside="0" occluded="0" keyframe="1" points="2.00,2.00;6.00,2.00;6.00,6.00;2.00,6.00"
      z_order="0"></polygon>
    <box frame="2" outside="0" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="5" ybr="5" z_order="0"></box>
  </track>
</annotations>
"""


def save(folder: Path, text: str = DOCUMENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.xml").write_text(text)
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """One task with its five images, as CVAT exports it."""
    place = save(tmp_path / "street")
    (place / "images").mkdir()
    for t in range(5):
        cv2.imwrite(str(place / "images" / f"frame_{t:06d}.PNG"), np.full((10, 12, 3), t, np.uint8))
    return place


def test_masks_polygons_and_labels_are_read(task):
    videos = cvat.read(task)
    with pytest.warns(FormatWarning):
        video = videos.videos[0]
    assert videos.classes == ("person", "car")
    assert (video.id, video.size, len(video)) == ("street", (10, 12), 5)
    car, person = video.tracks
    assert (car.id, car.label, person.id, person.label) == (0, 1, 1, 0)
    first = np.zeros((10, 12), np.uint8)
    first[4, 4:6], first[5, 4:6] = 1, 1  # 1 zero, 2 ones, 1 zero, 2 ones, three to a row
    assert np.array_equal(masks.decode([car.rles[0]])[0], first)
    assert masks.boxes([person.rles[2]])[0].tolist() == [2, 2, 6, 6]
    assert video.frames[3].unique().tolist() == [3]


@pytest.mark.filterwarnings("ignore::tubelet.formats.files.FormatWarning")
def test_a_mask_stays_until_the_next_keyframe_and_ends_outside(task):
    with pytest.warns(FormatWarning, match="take the mask of the frame before: 3"):
        car, person = cvat.read(task).videos[0].tracks
    assert [rle is not None for rle in car.rles] == [True, True, True, False, False]
    assert car.rles[1] == car.rles[2]
    assert [rle is not None for rle in person.rles] == [False, False, True, True, True]


@pytest.mark.filterwarnings("ignore::tubelet.formats.files.FormatWarning")
def test_boxes_are_left_out_and_counted(task):
    with pytest.warns(FormatWarning, match="shapes of the kind 'box' left out: 1"):
        _ = cvat.read(task).videos[0]


@pytest.mark.filterwarnings("ignore::tubelet.formats.files.FormatWarning")
def test_the_xml_alone_archives_and_folders_of_tasks_are_read(task, tmp_path):
    alone = cvat.read(task / "annotations.xml").videos[0]
    assert (alone.size, len(alone)) == ((10, 12), 5)
    archive = tmp_path / "all" / "export.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for path in task.rglob("*"):
            file.write(path, path.relative_to(task))
    packed = cvat.read(archive).videos[0]
    assert packed.tracks == alone.tracks
    assert packed.frames[4].unique().tolist() == [4]
    save(tmp_path / "all" / "second")
    assert [video.id for video in cvat.read(tmp_path / "all").videos] == ["second", "export"]


@pytest.mark.filterwarnings("ignore::tubelet.formats.files.FormatWarning")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('rle="0, 6"', 'rle="0, 7"', "track 0, frame 1: a mask that does not fit: 7 pixels for 3x2 at 4, 4"),
        ('left="4"', 'left="10"', "a mask that does not fit"),
        ('rle="0, 6"', 'rle="0, x"', "track 0, frame 1: rle: expected a whole number"),
        ('frame="3"', 'frame="5"', "track 0: a shape in frame 5 of a video of 5 frames"),
        ('frame="3"', 'frame="-1"', "track 0: frame: expected a whole number, got '-1'"),
        ("2.00,6.00", "2.00,six", "track 1, frame 2: expected points"),
        ("6.00,2.00;6.00,6.00;2.00,6.00", "6.00,2.00", "three points"),
        ("<size>5</size>", "<size>7</size>", "5 images for 7 frames"),
        ("<height>10</height>", "<height>0</height>", "expected height and width as positive"),
        ("</annotations>", "", "expected XML"),
        ("utf-8", "utf-88", "expected XML, unknown encoding"),
        ("<annotations>", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>', "document types and entities are not read"),
    ],
)
def test_what_is_wrong_is_said_with_the_place(task, old, new, message):
    save(task, DOCUMENT.replace(old, new))
    with pytest.raises(FormatError, match=message):
        _ = cvat.read(task).videos[0]


def test_cvat_for_images_and_missing_files_are_refused(tmp_path):
    save(tmp_path / "images", '<annotations><image id="0" name="a.jpg" width="4" height="4"/></annotations>')
    with pytest.raises(FormatError, match="not for images"):
        cvat.read(tmp_path / "images")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected annotations\.xml"):
        cvat.read(tmp_path / "empty")
    with pytest.raises(InputError, match="no such file"):
        cvat.read(tmp_path / "missing.xml")
