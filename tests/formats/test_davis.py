from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.formats import davis
from tubelet.formats.files import FormatWarning


def save_map(path: Path, numbers: np.ndarray, palette: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers.astype(np.uint8), mode="P" if palette else "L")
    if palette:
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    image.save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """DAVIS's published layout, by hand: two sequences of three frames, two objects with a gap in their numbers."""
    place = tmp_path / "DAVIS"
    numbers = np.zeros((12, 20), int)
    numbers[2:6, 3:9], numbers[7:10, 10:18] = 1, 3
    for name in ("dog", "bear"):
        for t in range(3):
            frame = place / "JPEGImages" / "480p" / name / f"{t:05d}.jpg"
            frame.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(frame), np.full((12, 20, 3), 40 * t, np.uint8))
            shown = np.where(numbers == 3, 0, numbers) if t == 1 else numbers
            save_map(place / "Annotations" / "480p" / name / f"{t:05d}.png", shown)
    for year, split, text in (("2017", "train", "dog\n"), ("2017", "val", "bear\n"), ("2016", "train", "")):
        path = place / "ImageSets" / year / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png \n" * 2)
    return place


def test_sequences_frames_and_objects_are_found(root):
    videos = davis.read(root)
    assert videos.classes == ("object",)
    assert [video.id for video in videos.videos] == ["bear", "dog"]
    dog = videos.videos[1]
    assert dog.size == (12, 20)
    assert len(dog) == 3
    assert [track.id for track in dog.tracks] == [1, 3]
    assert [rle is not None for rle in dog.tracks[1].rles] == [True, False, True]
    assert masks.boxes([dog.tracks[0].rles[0]])[0].tolist() == [3, 2, 9, 6]
    assert abs(int(dog.frames[2].float().mean()) - 80) <= 1


def test_a_zip_archive_is_read_in_place(root, tmp_path):
    archive = tmp_path / "DAVIS.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in root.rglob("*"):
            file.write(path, path.relative_to(root.parent))
    packed, loose = davis.read(archive), davis.read(root)
    assert [video.tracks for video in packed.videos] == [video.tracks for video in loose.videos]
    assert (packed.videos[0].frames[1] == loose.videos[0].frames[1]).all()


def test_splits_are_read_from_both_kinds_of_lists(root):
    assert [video.id for video in davis.read(root, split="val").videos] == ["bear"]
    assert [video.id for video in davis.read(root, split="train", year=2017).videos] == ["dog"]
    assert [video.id for video in davis.read(root, split="train", year=2016).videos] == ["bear"]
    with pytest.raises(InputError, match=r"several years \(2016, 2017\)"):
        davis.read(root, split="train")
    with pytest.raises(InputError, match="no list of the split 'test'"):
        davis.read(root, split="test")


def test_black_and_white_maps_hold_one_object(root):
    for path in (root / "Annotations" / "480p" / "dog").iterdir():
        save_map(path, (np.arange(240).reshape(12, 20) > 100) * 255, palette=False)
    (track,) = davis.read(root).videos[1].tracks
    assert track.id == 1
    assert not track.ignore


def test_255_beside_objects_is_void(root):
    numbers = np.zeros((12, 20), int)
    numbers[:3], numbers[6:] = 2, 255
    save_map(root / "Annotations" / "480p" / "dog" / "00000.png", numbers, palette=False)
    tracks = davis.read(root).videos[1].tracks
    assert [(track.id, track.ignore) for track in tracks] == [(1, False), (2, False), (3, False), (255, True)]


def test_unsupervised_annotations_are_preferred(root):
    for name in ("dog", "bear"):
        for t in range(3):
            path = root / "Annotations_unsupervised" / "480p" / name / f"{t:05d}.png"
            save_map(path, np.full((12, 20), 2))
    assert [track.id for track in davis.read(root).videos[0].tracks] == [2]


def test_a_missing_map_is_counted_and_an_extra_one_refused(root):
    maps = root / "Annotations" / "480p" / "dog"
    (maps / "00001.png").unlink()
    with pytest.warns(FormatWarning, match="sequence dog: 1 of 3 frames without a map, the first 00001"):
        dog = davis.read(root).videos[1]
    assert [rle is not None for rle in dog.tracks[0].rles] == [True, False, True]
    save_map(maps / "00007.png", np.zeros((12, 20)))
    with pytest.raises(FormatError, match="sequence dog: 1 maps without a frame, the first 00007"):
        davis.read(root)


def test_a_map_of_another_size_is_named(root):
    save_map(root / "Annotations" / "480p" / "dog" / "00001.png", np.zeros((20, 12)))
    with pytest.raises(FormatError, match=r"00001\.png: expected a mask of 20x12, got 12x20.*swapped"):
        _ = davis.read(root).videos[1]


def test_frames_without_any_annotation_have_no_truth(root, tmp_path):
    (root / "Annotations").rename(tmp_path / "elsewhere")
    assert davis.read(root).videos[0].tracks is None


def test_another_layout_is_refused(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="expected DAVIS's layout"):
        davis.read(tmp_path)


def test_the_real_sequences_are_read(shared):
    videos = davis.read(shared / "data/davis2016_train")
    assert len(videos.videos) == 30
    assert sum(len(entry.frames) for entry in videos.videos.entries) == 2079
    bear = videos.videos[0]
    assert bear.id == "bear"
    assert len(bear.tracks) == 1
    assert bear.tracks[0].rles[0].size == bear.size
