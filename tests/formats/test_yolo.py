"""YOLO's segmentation layout, by hand after its published description: both trees, both spellings of the names."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.data.tools.checking import check
from tubelet.formats import registry, yolo
from tubelet.formats.files import FormatWarning
from tubelet.formats.yolo_settings import class_names

SQUARE = "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"


def write(root: Path, tree: str, label: str = SQUARE, stem: str = "a") -> Path:
    """An image of 16x8 and its labels in one of the trees, as "{}/train" or "train/{}"."""
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        folder = root / tree.format(kind)
        folder.mkdir(parents=True, exist_ok=True)
        if suffix == "jpg":
            cv2.imwrite(str(folder / f"{stem}.jpg"), np.zeros((8, 16, 3), np.uint8))
        else:
            (folder / f"{stem}.txt").write_text(label)
    (root / "data.yaml").write_text("train: ../train/images\nnc: 2\nnames: ['dog', \"traffic light\"]\n")
    return root


@pytest.mark.parametrize("tree", ["{}/train", "train/{}", "{}"])
def test_polygons_are_shares_of_the_image_in_either_tree(tmp_path: Path, tree: str) -> None:
    root = write(tmp_path, tree)
    assert registry.detect(root) == "yolo-seg"
    videos = registry.open_set(root)
    assert videos.classes == ("dog", "traffic light")
    (video,) = videos.videos
    assert (video.id, video.size, len(video)) == ("a", (8, 16), 1)
    (track,) = video.tracks or ()
    assert track.label == 1
    expected = np.zeros((8, 16), np.uint8)
    expected[2:6, 4:12] = 1
    assert np.array_equal(masks.decode([track.rles[0]])[0], expected)
    assert video.frames[0].shape == (3, 8, 16)
    assert check(videos).fit


@pytest.mark.parametrize(
    "text",
    [
        "names:\n  0: dog\n  1: traffic light  # red\nnc: 2\n",
        "names:\n- dog\n- traffic light\npath: x\n",
        "nc: 2\nnames: [dog,\n  'traffic light']\n",
    ],
)
def test_names_are_read_in_every_spelling(text: str) -> None:
    assert class_names(text, "data.yaml") == ("dog", "traffic light")


def test_the_training_split_is_read_and_others_by_their_folder(tmp_path: Path) -> None:
    write(tmp_path, "{}/train")
    write(tmp_path, "{}/val", stem="b")
    with pytest.warns(FormatWarning, match="train is read; val by the path of its folder"):
        assert [video.id for video in registry.open_set(tmp_path).videos] == ["a"]
    assert [video.id for video in yolo.read(tmp_path / "images" / "val").videos] == ["b"]


def names_of(path: Path) -> list[str]:
    """The images that are read of what is found at a path, without its format being named."""
    return [video.id for video in registry.open_set(path).videos]


@pytest.mark.parametrize(
    ("tree", "other"), [("{}/train", "images/val"), ("train/{}", "valid"), ("train/{}", "valid/images")]
)
def test_another_split_is_found_by_its_folder(tmp_path: Path, tree: str, other: str) -> None:
    write(tmp_path, tree)
    write(tmp_path, "{}/val" if other == "images/val" else "valid/{}", stem="b")
    assert names_of(tmp_path / other) == ["b"]
    assert check(registry.open_set(tmp_path / other)).fit


def test_splits_are_those_that_the_yaml_names(tmp_path: Path) -> None:
    write(tmp_path, "{}/autumn")
    write(tmp_path, "{}/spring", stem="b")
    names = "names: {0: dog, 1: 'traffic light'}"
    (tmp_path / "pets.yaml").write_text(
        f"path: ../datasets/pets\ntrain: ./images/spring  # new\nval: images/autumn\n{names}"
    )
    (tmp_path / "data.yaml").unlink()
    with pytest.warns(FormatWarning, match="train is read; val by the path of its folder"):
        assert names_of(tmp_path) == ["spring/b"]
    with pytest.warns(FormatWarning):
        assert names_of(tmp_path / "pets.yaml") == ["spring/b"]
    assert names_of(tmp_path / "images" / "autumn") == ["autumn/a"]


def test_a_split_may_be_a_list_of_images(tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        write(tmp_path, "{}", stem=stem)
    (tmp_path / "train.txt").write_text("./images/a.jpg\n./images/c.jpg\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [dog, car]")
    assert names_of(tmp_path) == ["a", "c"]


def test_an_image_without_labels_has_no_object(tmp_path: Path) -> None:
    write(tmp_path, "{}/train")
    write(tmp_path, "{}/train", stem="empty", label="")
    (tmp_path / "labels" / "train" / "empty.txt").unlink()
    assert [len(video.tracks or ()) for video in yolo.read(tmp_path).videos] == [1, 0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.2 0.2", "line 1: a box, not a polygon"),
        ("0 0.5 0.5", "expected a class and three points"),
        ("0 a b c d e f", "expected a class and three points"),
        ("0.5 0 0 1 0 1 1", "expected a class and three points"),
        ("0 nan 0 1 0 1 1", "expected a class and three points"),
        ("7 0 0 1 0 1 1", "no class 7; data.yaml names 2"),
        ("0 0 0 1e9 0 1 1", "polygon coordinates"),
    ],
)
def test_a_line_that_is_no_polygon_is_told_by_its_number(tmp_path: Path, line: str, said: str) -> None:
    write(tmp_path, "{}/train", label=line)
    with pytest.raises(FormatError, match=said):
        _ = yolo.read(tmp_path).videos[0]


def test_missing_names_and_labels_are_told(tmp_path: Path) -> None:
    write(tmp_path, "{}/train")
    (tmp_path / "data.yaml").write_text("nc: 2\n")
    with pytest.raises(FormatError, match=r"expected class names, as names: \[dog, cat\]"):
        yolo.read(tmp_path)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(InputError, match=r"expected data\.yaml"):
        yolo.read(tmp_path)
