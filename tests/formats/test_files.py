from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tubelet.core.errors import FormatError, InputError
from tubelet.core.untrusted.documents import read_json
from tubelet.formats.files import FormatWarning, StoredFrames, check_size, clean_name, open_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two frames of 4x6 in a/, one of them with an upper-case ending, and a text file."""
    place = tmp_path / "root"
    (place / "a").mkdir(parents=True)
    for n, ending in enumerate((".png", ".PNG")):
        data = cv2.imencode(".png", np.full((4, 6, 3), 50 * n, np.uint8))[1].tobytes()
        (place / "a" / f"{n}{ending}").write_bytes(data)
    (place / "notes.txt").write_text("hello")
    return place


@pytest.fixture
def archive(folder: Path) -> Path:
    path = folder.parent / "root.zip"
    with zipfile.ZipFile(path, "w") as file:
        for entry in sorted(folder.rglob("*")):
            file.write(entry, entry.relative_to(folder))
    return path


@pytest.fixture(params=["folder", "archive"])
def place(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_folder_and_archive_read_alike(place):
    files = open_files(place)
    assert files.names == ("a/0.png", "a/1.PNG", "notes.txt")
    assert files.below("a") == ("a/0.png", "a/1.PNG")
    assert files.read("notes.txt") == b"hello"
    with pytest.raises(InputError, match=r"missing\.txt: no such file"):
        files.read("missing.txt")


def test_names_are_found_in_another_case_or_with_another_ending(place):
    files = open_files(place)
    assert files.find("a/0.png") == "a/0.png"
    assert files.find("a/1.png") == "a/1.PNG"
    assert files.find("a/0.jpg") == "a/0.png"
    assert files.find("a/2.png") is None


def test_frames_come_from_either_and_renamed_ones_are_counted_once(place):
    frames = StoredFrames(open_files(place), ("a/0.jpg", "a/1.jpg"), (4, 6))
    with pytest.warns(FormatWarning, match=r"2 of 2 frames.*such as a/0\.png for a/0\.jpg"):
        assert frames[0].shape == (3, 4, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frames[1].unique().tolist() == [50]


def test_a_missing_frame_is_named(place):
    with pytest.raises(InputError, match=r"7\.png: no such file"):
        _ = StoredFrames(open_files(place), ("a/7.png",), (4, 6))[0]


def test_an_archive_survives_pickling_for_loader_workers(archive):
    files = open_files(archive)
    files.read("notes.txt")
    assert pickle.loads(pickle.dumps(files)).read("notes.txt") == b"hello"


def test_a_frame_of_another_size_or_no_image_is_refused(folder):
    with pytest.raises(InputError, match=r"0\.png: expected an image of 9x9, got 6x4"):
        _ = StoredFrames(open_files(folder), ("a/0.png",), (9, 9))[0]
    with pytest.raises(InputError, match=r"notes\.txt: not an image"):
        _ = StoredFrames(open_files(folder), ("notes.txt",), (9, 9))[0]
    (folder / "empty.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.png: not an image"):
        _ = StoredFrames(open_files(folder), ("empty.png",), (9, 9))[0]


def test_a_photograph_is_turned_only_where_its_annotation_is(tmp_path):
    image = Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "phone.jpg", exif=exif)
    files = open_files(tmp_path)
    assert StoredFrames(files, ("phone.jpg",), (4, 6))[0].shape == (3, 4, 6)
    assert StoredFrames(files, ("phone.jpg",), (6, 4))[0].shape == (3, 6, 4)


def test_what_is_neither_folder_nor_archive_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder or zip archive"):
        open_files(tmp_path / "nothing")
    (tmp_path / "fake.zip").write_text("no archive")
    with pytest.raises(InputError, match="expected a folder or a zip archive"):
        open_files(tmp_path / "fake.zip")


def test_a_damaged_archive_is_said_to_be_so(archive):
    data = bytearray(archive.read_bytes())
    data[60:90] = bytes(30)
    archive.write_bytes(data)
    files = open_files(archive)
    with pytest.raises(InputError, match="cannot be read from the archive"):
        files.read("a/0.png")


@pytest.mark.parametrize(("name", "clean"), [("a/b.jpg", "a/b.jpg"), ("a\\b.jpg", "a/b.jpg"), ("./a/b.jpg", "a/b.jpg")])
def test_names_of_every_system_are_understood(name, clean):
    assert clean_name(name, "here") == clean


@pytest.mark.parametrize(
    "name", ["", ".", "./", None, 5, "/etc/passwd", "..\\up.jpg", "a/../../b", "C:\\a.jpg", "a\0b"]
)
def test_names_that_lead_out_are_refused(name):
    with pytest.raises(FormatError, match="here"):
        clean_name(name, "here")


@pytest.mark.parametrize("size", [(0, 4), (-1, 4), ("4", 4), (None, 4), (True, 4), (10**6, 10**6), (4.0, 4)])
def test_sizes_that_make_no_sense_are_refused(size):
    with pytest.raises(FormatError, match="here"):
        check_size(*size, "here")


def test_json_that_is_none_is_refused(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match="expected JSON"):
        read_json(tmp_path / "deep.json")
