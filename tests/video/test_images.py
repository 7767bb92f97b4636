"""Folders of images as scientific cameras write them: TIFF, and 10 or 12 bits in files of 16."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tubelet.core.errors import InputError
from tubelet.video import frames as images
from tubelet.video.reader import ImageFrames, open_video, read_image


def ramp(bits: int, channels: int = 1) -> np.ndarray:
    """From black to the white of so many bits, uint16 [6, 8(, 3)]."""
    grey = np.linspace(0, (1 << bits) - 1, 48).astype(np.uint16).reshape(6, 8)
    return grey if channels == 1 else np.dstack([grey, grey // 2, grey[::-1]])


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_deep_image_is_scaled_by_the_bits_that_it_holds(
    bits: int, channels: int, ending: str, tmp_path: Path
) -> None:
    deep = ramp(bits, channels)
    cv2.imwrite(str(tmp_path / f"0.{ending}"), deep if channels == 1 else deep[..., ::-1])
    expected = (deep >> (bits - 8)).astype(np.uint8)
    expected = np.dstack([expected] * 3) if channels == 1 else expected
    assert np.array_equal(open_video(tmp_path).frames[0].permute(1, 2, 0).numpy(), expected)
    assert np.array_equal(read_image(tmp_path / f"0.{ending}").permute(1, 2, 0).numpy(), expected)


def test_a_folder_has_one_scale_so_that_nothing_flickers(tmp_path: Path) -> None:
    values = [3, 900, 4000, 1000, 200]
    for n, value in enumerate(values):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((6, 8), value, np.uint16))
    video = open_video(tmp_path)
    assert [int(frame[0, 0, 0]) for frame in video.frames] == [value >> 4 for value in values]
    assert int(video.frames[1].max()) == 900 >> 4


def test_few_images_of_a_long_folder_decide_its_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(40):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((2, 2), 4095, np.uint16))
    frames = open_video(tmp_path).frames
    read: list[Path] = []
    sample = images.read_samples
    monkeypatch.setattr(images, "read_samples", lambda path: read.append(path) or sample(path))
    assert int(frames[20].max()) == 255
    assert int(frames[21].max()) == 255
    assert len(read) == images.LOOKED_AT + 2


def test_what_is_brighter_than_the_scale_is_white(tmp_path: Path) -> None:
    frames = ImageFrames([tmp_path / "0.png", tmp_path / "1.png"], (2, 2))
    for path, value in zip(frames._paths, (1000, 50_000), strict=True):
        cv2.imwrite(str(path), np.full((2, 2), value, np.uint16))
    frames._bits = 10  # type: ignore[misc]
    assert [int(frame.max()) for frame in frames] == [1000 >> 2, 255]


def test_a_folder_of_tiffs_is_a_video(tmp_path: Path) -> None:
    for n in range(3):
        Image.fromarray(np.full((6, 8, 3), 10 * n, np.uint8)).save(tmp_path / f"{n}.{('tif', 'tiff', 'TIF')[n]}")
    video = open_video(tmp_path)
    assert [int(frame[0, 0, 0]) for frame in video.frames] == [0, 10, 20]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_samples_of_32_bits_have_no_white_and_are_refused(kind: type, tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 8), 100_000, kind)).save(tmp_path / "0.tif")
    with pytest.raises(InputError, match=r"0\.tif: .*expected 8 or 16 bits a sample"):
        open_video(tmp_path).frames[0]
