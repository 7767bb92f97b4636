from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.data.tools.checking import check
from tubelet.formats import cvat, registry
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


def test_missing_files_and_other_xml_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected annotations\.xml"):
        cvat.read(tmp_path / "empty")
    with pytest.raises(InputError, match="no such file"):
        cvat.read(tmp_path / "missing.xml")
    save(tmp_path / "voc", "<annotation/>")
    with pytest.raises(FormatError, match=r"expected CVAT's XML 1\.1, got a document called annotation"):
        cvat.read(tmp_path / "voc")


# a task that takes every fifth frame of a film from number 10 on: shapes and images have the film's numbers

STEP = """<annotations>
  <version>1.1</version>
  <meta><task>
    <name>harbour</name><size>4</size><mode>interpolation</mode>
    <start_frame>10</start_frame><stop_frame>25</stop_frame><frame_filter>step=5</frame_filter>
    <labels><label><name>boat</name></label></labels>
    <original_size><width>12</width><height>10</height></original_size>
  </task></meta>
  <track id="0" label="boat" source="manual">
    <mask frame="10" outside="0" keyframe="1" rle="0, 6" left="3" top="4" width="3" height="2"></mask>
    <mask frame="15" outside="0" keyframe="1" rle="0, 6" left="4" top="4" width="3" height="2"></mask>
    <mask frame="25" outside="1" keyframe="1" rle="0, 6" left="4" top="4" width="3" height="2"></mask>
  </track>
</annotations>
"""


@pytest.mark.filterwarnings("ignore::tubelet.formats.files.FormatWarning")
@pytest.mark.parametrize("images", [True, False])
def test_a_task_with_a_frame_step_has_the_numbers_of_the_film(tmp_path, images):
    save(tmp_path, STEP)
    for number in (10, 15, 20, 25) if images else ():
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / f"frame_{number:06d}.PNG"), np.full((10, 12, 3), number, np.uint8))
    (video,) = cvat.read(tmp_path).videos
    (boat,) = video.tracks
    assert len(video) == 4
    assert [rle is not None for rle in boat.rles] == [True, True, True, False]
    if images:
        assert [int(frame.unique()) for frame in video.frames] == [10, 15, 20, 25]
    else:
        assert video.frames.names[1] == "images/frame_000015.png"


@pytest.mark.filterwarnings("ignore::tubelet.formats.files.FormatWarning")
def test_numbers_from_zero_on_are_read_though_there_is_a_step(tmp_path):
    numbers = {"10": "0", "15": "1", "25": "3"}
    text = STEP
    for old, new in numbers.items():
        text = text.replace(f'frame="{old}"', f'frame="{new}"')
    (boat,) = cvat.read(save(tmp_path, text)).videos[0].tracks
    assert [rle is not None for rle in boat.rles] == [True, True, True, False]


def test_a_number_between_the_steps_is_refused(tmp_path):
    save(tmp_path, STEP.replace('frame="15"', 'frame="16"'))
    with pytest.raises(FormatError, match="a shape in frame 10 of a video of 4 frames"):
        _ = cvat.read(tmp_path).videos[0]


def test_a_project_of_several_videos_is_refused(tmp_path):
    tasks = "<project><tasks><task><size>2</size></task><task><size>2</size></task></tasks></project>"
    save(tmp_path, f"<annotations><meta>{tasks}</meta><track id='0' label='boat'/></annotations>")
    with pytest.raises(FormatError, match="an export of a project with 2 videos; export each task"):
        cvat.read(tmp_path)


# CVAT for images

IMAGES = """<annotations>
  <version>1.1</version>
  <meta><task><name>pets</name><size>2</size><mode>annotation</mode>
    <labels><label><name>cat</name></label><label><name>dog</name></label></labels></task></meta>
  <image id="0" name="sub/a.png" width="12" height="10">
    <polygon label="dog" source="manual" occluded="0" points="2.00,2.00;6.00,2.00;6.00,6.00;2.00,6.00" z_order="0"
      group_id="3"></polygon>
    <mask label="dog" source="manual" occluded="0" rle="0, 4" left="9" top="8" width="2" height="2" z_order="0"
      group_id="3"></mask>
    <mask label="cat" source="manual" occluded="0" rle="0, 1" left="0" top="0" width="1" height="1" z_order="0"></mask>
    <box label="cat" source="manual" occluded="0" xtl="1" ytl="1" xbr="5" ybr="5" z_order="0"></box>
  </image>
  <image id="1" name="b.png" width="6" height="4"></image>
</annotations>
"""


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A task of two images, as CVAT exports it."""
    folder = save(tmp_path / "pets", IMAGES)
    for name, size in (("sub/a.png", (10, 12)), ("b.png", (4, 6))):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))
    return folder


def test_cvat_for_images_has_a_video_of_one_frame_for_each(pets):
    with pytest.warns(FormatWarning, match="shapes of the kind 'box' left out: 1"):
        videos = cvat.read(pets)
    assert registry.detect(pets) == "cvat"
    assert videos.classes == ("cat", "dog")
    first, second = videos.videos
    assert (first.id, first.size, len(first)) == ("sub/a", (10, 12), 1)
    dog, cat = first.tracks
    assert (videos.classes[dog.label], videos.classes[cat.label]) == ("dog", "cat")
    assert masks.areas([dog.rles[0], cat.rles[0]]).tolist() == [16 + 4, 1]  # the group is one object
    assert (second.id, second.tracks, second.frames[0].shape) == ("b", (), (3, 4, 6))
    assert check(videos).fit


@pytest.mark.filterwarnings("ignore::tubelet.formats.files.FormatWarning")
def test_images_of_a_project_lie_in_a_folder_of_their_subset(pets):
    save(pets, IMAGES.replace('name="b.png"', 'name="b.png" subset="train" task_id="5"'))
    (pets / "images" / "train").mkdir()
    (pets / "images" / "b.png").rename(pets / "images" / "train" / "b.png")
    assert cvat.read(pets).videos[1].frames[0].shape == (3, 4, 6)


@pytest.mark.filterwarnings("ignore::tubelet.formats.files.FormatWarning")
def test_tasks_of_images_and_of_videos_stand_side_by_side(pets, task):
    videos = cvat.read(pets.parent)
    assert [video.id for video in videos.videos] == ["street", "sub/a", "b"]
    assert videos.classes == ("cat", "dog", "person", "car")


@pytest.mark.filterwarnings("ignore::tubelet.formats.files.FormatWarning")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('width="12"', 'width="x"', "image sub/a.png: width: expected a whole number"),
        ('name="sub/a.png"', 'name="../a.png"', "leads out of its folder"),
        ('rle="0, 4"', 'rle="0, 5"', "image sub/a.png: object 1: a mask that does not fit"),
    ],
)
def test_what_is_wrong_with_an_image_is_said(pets, old, new, message):
    save(pets, IMAGES.replace(old, new))
    with pytest.raises(FormatError, match=message):
        _ = cvat.read(pets).videos[0]
