"""Labelled data sets with the traps of the field: the same masks, ids and class names are read, or one line refuses."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tubelet.core import masks
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats.registry import FORMS, open_set

SIZE = (8, 10)
LENGTH = 3
NAMES = ("dog", "cat")
TEXTS = (".json", ".xml", ".txt", ".yaml", ".csv")
IMAGES = (".jpg", ".png")


def box(name: str, t: int) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of an object; the cat touches two borders and is gone in the last frame."""
    if name == "dog":
        return (t + 1, 2, t + 4, 5)
    return (7, 5, 10, 8) if t < 2 else None


def mask_of(name: str, t: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    sides = box(name, t)
    if sides is not None:
        left, top, right, bottom = sides
        mask[top:bottom, left:right] = True
    return mask


def picture(t: int) -> np.ndarray:
    return np.full((*SIZE, 3), 40 * t, np.uint8)


TRUTH = {name: [mask_of(name, t) for t in range(LENGTH)] for name in NAMES}


def read(path: Path, form: str) -> dict[str, list[np.ndarray]]:
    """The masks of each class, frame by frame: of one video, or of videos of one frame in order of their names."""
    videos = open_set(path, form)
    ordered = sorted(videos.videos, key=lambda video: video.id)
    return {
        name: [mask for video in ordered for mask in masks_of(video, videos.classes.index(name))]
        for name in videos.classes
        if any(track.label == videos.classes.index(name) for video in ordered for track in video.tracks or ())
    }


def masks_of(video: Video, label: int) -> list[np.ndarray]:
    union = [np.zeros(video.size, bool) for _ in range(len(video))]
    for track in video.tracks or ():
        if track.label == label:
            union = [before | track.mask(t) for t, before in enumerate(union)]
    return union


def assert_same(found: dict[str, list[np.ndarray]], expected: dict[str, list[np.ndarray]]) -> None:
    assert sorted(found) == sorted(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name)


# what happens to the folder of a data set, whatever its form


def with_byte_order_marks(root: Path) -> None:
    for path in texts_in(root):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def with_windows_line_ends(root: Path) -> None:
    for path in texts_in(root):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def with_blank_lines_at_the_end(root: Path) -> None:
    for path in texts_in(root):
        path.write_bytes(path.read_bytes() + b"\n\n")


def with_suffixes_in_capitals(root: Path) -> None:
    for path in sorted(root.rglob("*")):
        if path.suffix in IMAGES:
            path.rename(path.with_suffix(path.suffix.upper()))


def with_rubbish_of_file_managers(root: Path) -> None:
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"\0\1")
        for path in list(folder.iterdir()):
            if path.is_file() and path.name[0] != ".":
                (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7")


def with_empty_folders(root: Path) -> None:
    (root / "notes").mkdir()


def texts_in(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.suffix in TEXTS]


FOLDER_TRAPS = (
    with_byte_order_marks,
    with_windows_line_ends,
    with_blank_lines_at_the_end,
    with_suffixes_in_capitals,
    with_rubbish_of_file_managers,
    with_empty_folders,
)
WRITTEN = [name for name, form in FORMS.items() if form.write]


def small_set() -> VideoSet:
    tracks = []
    for number, name in enumerate(NAMES):
        column = tuple(masks.encode(mask[None])[0] if mask.any() else None for mask in TRUTH[name])
        tracks.append(Track(id=3 * number + 2, label=number, score=1.0, rles=column))
    frames = [torch.from_numpy(picture(t)).permute(2, 0, 1) for t in range(LENGTH)]
    video = Video(id="a street", size=SIZE, frames=frames, tracks=tuple(tracks))
    return VideoSet(videos=[video], classes=NAMES)


@pytest.mark.parametrize("trap", FOLDER_TRAPS, ids=lambda trap: trap.__name__)
@pytest.mark.parametrize("form", WRITTEN)
def test_what_systems_do_to_files_changes_nothing(form: str, trap: Callable[[Path], None], tmp_path: Path) -> None:
    FORMS[form].write(tmp_path / "as written", small_set(), True)
    FORMS[form].write(tmp_path / "Müllers Hund 犬", small_set(), True)
    trap(tmp_path / "Müllers Hund 犬")
    assert_same(read(tmp_path / "Müllers Hund 犬", form), read(tmp_path / "as written", form))
    for video in open_set(tmp_path / "Müllers Hund 犬", form).videos:
        assert len(list(video.frames)) == len(video)


@pytest.mark.parametrize("form", WRITTEN)
def test_an_archive_of_a_mac_is_read_like_its_folder(form: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    FORMS[form].write(root, small_set(), True)
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(root.rglob("*")):
            file.write(path, Path("set") / path.relative_to(root))
            file.writestr(f"__MACOSX/set/._{path.name}", b"\0\5\x16\7")
    assert_same(read(archive, form), read(root, form))
