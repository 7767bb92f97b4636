"""Pascal VOC's and SBD's layouts, by hand after their published descriptions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.untrusted import matlab
from tubelet.data.tools.checking import check
from tubelet.formats import registry, sbd, voc
from tubelet.formats.label_maps import PALETTE, encode_map

SIZE = (6, 10)
OBJECTS = np.zeros(SIZE, np.int64)
OBJECTS[1:4, 1:4] = 1
OBJECTS[1:4, 5:9] = 2
OBJECTS[0] = 255  # void
CLASSES = np.where(OBJECTS == 1, 12, np.where(OBJECTS == 2, 15, 0))  # dog, person
CLASSES[0] = 255
CLASSES[1, 1] = 8  # a pixel of cat in the dog


def write(root: Path, stem: str = "2007_000032") -> Path:
    for name, data in (("SegmentationClass", CLASSES), ("SegmentationObject", OBJECTS)):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / f"{stem}.png").write_bytes(encode_map(data))
    for other in (stem, "2007_000001"):  # the second is for detection alone
        picture(root / "JPEGImages" / f"{other}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{other}.xml").write_text("<annotation/>")
    return root


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((*SIZE, 3), np.uint8))


@pytest.mark.parametrize("folder", [".", "VOCdevkit/VOC2007"])
def test_objects_and_their_classes_are_read(tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder)
    assert registry.detect(tmp_path) == "voc"
    videos = registry.open_set(tmp_path)
    assert len(videos.classes) == 20
    (video,) = videos.videos
    assert (video.id, video.size, len(video)) == ("2007_000032", SIZE, 1)
    dog, person = video.tracks or ()
    assert [videos.classes[track.label] for track in (dog, person)] == ["dog", "person"]
    assert np.array_equal(masks.decode([dog.rles[0]])[0] > 0, OBJECTS == 1)
    assert check(videos).fit


def test_names_of_several_years_have_the_year(tmp_path: Path) -> None:
    for year in (2007, 2012):
        write(tmp_path / f"VOC{year}", "a")
    assert [video.id for video in voc.read(tmp_path).videos] == ["VOC2007/a", "VOC2012/a"]


def test_labelmap_names_the_colours_of_other_classes(tmp_path: Path) -> None:
    write(tmp_path)
    colours = PALETTE[CLASSES.astype(np.uint8)]
    Image.fromarray(colours).save(tmp_path / "SegmentationClass" / "2007_000032.png")
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    lines += [f"{name}:{','.join(map(str, PALETTE[n]))}::" for name, n in (("boat", 8), ("buoy", 12), ("crew", 15))]
    (tmp_path / "labelmap.txt").write_text("\n".join(lines))
    videos = voc.read(tmp_path)
    assert videos.classes == ("boat", "buoy", "crew")
    assert [videos.classes[track.label] for track in videos.videos[0].tracks or ()] == ["buoy", "crew"]
    (tmp_path / "labelmap.txt").write_text("boat:1,2::")
    with pytest.raises(FormatError, match="expected lines such as dog:64,0,128::, got 'boat:1,2::'"):
        voc.read(tmp_path)


def test_what_is_wrong_with_maps_is_said(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "SegmentationClass" / "2007_000032.png"
    path.write_bytes(encode_map(np.full(SIZE, 77)))
    with pytest.raises(FormatError, match=r"2007_000032\.png: the colour #[0-9a-f]{6} is that of no class"):
        _ = voc.read(tmp_path).videos[0]
    path.write_bytes(encode_map(np.zeros(SIZE)))
    with pytest.raises(FormatError, match="object 1 covers no pixel of a class"):
        _ = voc.read(tmp_path).videos[0]
    path.unlink()
    with pytest.raises(InputError, match="expected images in JPEGImages with maps in SegmentationClass"):
        voc.read(tmp_path)


def write_sbd(root: Path, categories: list[list[int]], folder: str = "dataset") -> Path:
    picture(root / folder / "img" / "2008_000002.jpg")
    (root / folder / "inst").mkdir(parents=True, exist_ok=True)
    segmentation = np.where(OBJECTS == 255, 0, OBJECTS).astype(np.uint8)
    struct = {"Segmentation": segmentation, "Boundaries": np.zeros(2, object), "Categories": np.array(categories)}
    savemat(root / folder / "inst" / "2008_000002.mat", {"GTinst": struct}, do_compression=True)
    return root


def test_sbd_has_a_matlab_file_of_objects_for_each_image(tmp_path: Path) -> None:
    write_sbd(tmp_path, [[12], [15]])
    assert registry.detect(tmp_path) == "sbd"
    videos = registry.open_set(tmp_path)
    (video,) = videos.videos
    assert (video.id, video.size) == ("2008_000002", SIZE)
    assert [videos.classes[track.label] for track in video.tracks or ()] == ["dog", "person"]
    assert np.array_equal(masks.decode([video.tracks[1].rles[0]])[0] > 0, OBJECTS == 2)
    assert check(videos).fit


def test_what_is_wrong_with_a_matlab_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sbd(tmp_path, [[12]])
    with pytest.raises(FormatError, match=r"2008_000002\.mat: object 2 has no class from 1 to 20"):
        _ = sbd.read(tmp_path).videos[0]
    path = tmp_path / "dataset" / "inst" / "2008_000002.mat"
    whole = path.read_bytes()
    for data in (b"", whole[:200], whole[:128] + b"junk" * 20, b"\x89HDF\r\n\x1a\n"):
        path.write_bytes(data)
        with pytest.raises(FormatError, match="expected a MATLAB file with a struct GTinst"):
            _ = sbd.read(tmp_path).videos[0]
    monkeypatch.setattr(matlab, "LARGEST_MATLAB", 10)
    path.write_bytes(whole)
    with pytest.raises(FormatError, match="at most 10 bytes"):
        _ = sbd.read(tmp_path).videos[0]
