"""Image files that hold several pictures are videos with their own times."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.video.reader import TruncatedVideoWarning, open_video

Number = Callable[[Tensor], int]
Picture = Callable[..., np.ndarray]

DURATIONS = [40, 100, 40, 200, 40, 60]  # ms
TIMES = [0.0, 0.04, 0.14, 0.18, 0.38, 0.42]


def save(path: Path, picture: Picture, durations: Sequence[int] = DURATIONS, **options: object) -> Path:
    images = [Image.fromarray(picture(n, (48, 64))) for n in range(len(durations))]
    images[0].save(path, save_all=True, append_images=images[1:], duration=list(durations), **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif"])
def test_an_animated_image_is_a_video_with_its_own_times(
    name: str, tmp_path: Path, picture: Picture, number_of: Number
) -> None:
    path = save(tmp_path / name, picture, **({"lossless": True} if name == "a.webp" else {}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        video = open_video(path)
        frames = list(video.frames)
    assert (len(video), video.size, video.id) == (6, (48, 64), "a")
    assert video.times == pytest.approx(TIMES)
    assert video.fps == pytest.approx(5 / 0.42)
    assert [number_of(frame) for frame in frames] == list(range(6))
    for t in np.random.default_rng(0).permutation(6):
        assert torch.equal(video.frames[int(t)], frames[t])


def test_the_pages_of_a_tiff_are_frames(tmp_path: Path, picture: Picture, number_of: Number) -> None:
    images = [Image.fromarray(picture(n, (48, 64))) for n in range(4)]
    images[0].save(tmp_path / "stack.tiff", save_all=True, append_images=images[1:])
    video = open_video(tmp_path / "stack.tiff")
    assert (len(video), video.times, video.fps) == (4, None, 25.0)
    assert [number_of(frame) for frame in video.frames] == [0, 1, 2, 3]


def test_pages_of_twelve_bits_share_a_scale(tmp_path: Path) -> None:
    images = [Image.fromarray(np.full((4, 6), value, np.uint16)) for value in (800, 4000)]
    images[0].save(tmp_path / "stack.tif", save_all=True, append_images=images[1:])
    assert [int(frame.max()) for frame in open_video(tmp_path / "stack.tif").frames] == [50, 250]


def test_a_picture_without_a_duration_lasts_as_long_as_browsers_show_it(tmp_path: Path, picture: Picture) -> None:
    video = open_video(save(tmp_path / "a.png", picture, [0, 0, 50]))
    assert video.times == pytest.approx((0.0, 0.1, 0.2))


def test_a_still_that_comes_before_an_animation_is_not_shown(
    tmp_path: Path, picture: Picture, number_of: Number
) -> None:
    images = [Image.fromarray(picture(n, (48, 64))) for n in (9, 0, 1, 2)]
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:], default_image=True, duration=50)
    video = open_video(tmp_path / "a.png")
    assert [number_of(frame) for frame in video.frames] == [0, 1, 2]
    assert number_of(video.frames[1]) == 1


def test_an_animation_that_is_cut_short_keeps_its_beginning(
    tmp_path: Path, picture: Picture, number_of: Number
) -> None:
    path = save(tmp_path / "cut.png", picture)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"fdAT") + 20])
    with pytest.warns(TruncatedVideoWarning, match=r"cut\.png: is incomplete, 5 of 6 pictures are in the file"):
        video = open_video(path)
    assert [number_of(frame) for frame in video.frames] == list(range(5))


def test_pages_of_which_one_has_no_width_are_no_video(tmp_path: Path, picture: Picture) -> None:
    path = tmp_path / "a.tif"
    image = Image.fromarray(picture(1, (48, 64)))
    image.save(path, save_all=True, append_images=[image])
    data = path.read_bytes()
    width = data.rindex(struct.pack("<HHI", 256, 4, 1))
    path.write_bytes(data[:width] + struct.pack("<H", 300) + data[width + 2 :])
    assert len(open_video(path)) == 1


def test_an_animation_that_vanishes_is_an_error_of_one_line(tmp_path: Path, picture: Picture) -> None:
    path = save(tmp_path / "a.png", picture)
    frames = open_video(path).frames
    path.unlink()
    for read in (lambda: frames[3], lambda: list(frames)):
        with pytest.raises(InputError, match=r"a\.png: frame \d cannot be decoded any more"):
            read()


def test_stills_stay_stills(tmp_path: Path, picture: Picture) -> None:
    for name in ("a.png", "a.webp", "a.tif", "a.jpg"):
        Image.fromarray(picture(1, (48, 64))).save(tmp_path / name)
        assert len(open_video(tmp_path / name)) == 1
    # the second picture of a camera's file is a preview
    image = Image.fromarray(picture(1, (48, 64)))
    data = io.BytesIO()
    image.save(data, "MPO", save_all=True, append_images=[image.resize((32, 24))])
    (tmp_path / "b.jpg").write_bytes(data.getvalue())
    assert len(open_video(tmp_path / "b.jpg")) == 1
