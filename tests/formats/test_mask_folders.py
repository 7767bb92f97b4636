from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tubelet.core.errors import FormatError, InputError
from tubelet.formats import mask_folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """By hand: three frames, two objects that overlap, one region to ignore."""
    (tmp_path / "frames" / "walk").mkdir(parents=True)
    for t in range(3):
        cv2.imwrite(str(tmp_path / "frames" / "walk" / f"{t:05d}.jpg"), np.zeros((8, 10, 3), np.uint8))
    white = np.full((8, 10), 255, np.uint8)
    for folder, present in (("2_giant_panda", (0, 2)), ("1_dog", (0, 1)), ("7_ignore", (1,))):
        (tmp_path / "masks" / "walk" / folder).mkdir(parents=True)
        for t in present:
            cv2.imwrite(str(tmp_path / "masks" / "walk" / folder / f"{t:05d}.png"), white)
    cv2.imwrite(str(tmp_path / "masks" / "walk" / "1_dog" / "00002.png"), white * 0)
    return tmp_path


def test_ids_classes_and_absence_are_read(root):
    videos = mask_folders.read(root)
    assert videos.classes == ("dog", "giant_panda")
    tracks = videos.videos[0].tracks
    assert [(t.id, t.label, t.ignore) for t in tracks] == [(1, 0, False), (2, 1, False), (7, 0, True)]
    assert ["".join("-x"[rle is not None] for rle in t.rles) for t in tracks] == ["xx-", "x-x", "-x-"]


def test_what_is_wrong_is_said(root):
    with pytest.raises(FormatError, match="the class 'dog' is not among cat"):
        mask_folders.read(root, classes=["cat"])
    cv2.imwrite(str(root / "masks" / "walk" / "1_dog" / "00009.png"), np.zeros((8, 10), np.uint8))
    with pytest.raises(FormatError, match="video walk, object 1: no frame for the mask 00009"):
        _ = mask_folders.read(root).videos[0]
    (root / "masks" / "walk" / "1_dog").rename(root / "masks" / "walk" / "dog")
    with pytest.raises(FormatError, match="expected a folder <id>_<class>, got 'dog'"):
        mask_folders.read(root)
    with pytest.raises(InputError, match="expected frames in"):
        mask_folders.read(root / "masks")
