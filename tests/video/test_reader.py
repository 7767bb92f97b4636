"""Opening what holds frames: arrays, folders of images, files by their path; faults in one clear line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tubelet.core.errors import ConfigError, InputError, TruncatedVideo
from tubelet.core.types import Video
from tubelet.video.reader import ImageFrames, is_live, natural_order, open_video

Make = Callable[..., Path]


def save(path: Path, value: int = 0, size: tuple[int, int] = (6, 8)) -> Path:
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path


def test_an_array_becomes_a_video_without_a_copy() -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)
    video = open_video(array)
    assert (len(video), video.size, video.fps, video.id) == (5, (7, 9), 25.0, "video")
    assert all(torch.equal(frame, torch.from_numpy(array[t]).permute(2, 0, 1)) for t, frame in enumerate(video.frames))
    assert video.frames[2].data_ptr() == array[2].ctypes.data


def test_a_tensor_becomes_a_video() -> None:
    tensor = torch.randint(0, 256, (4, 3, 6, 10), dtype=torch.uint8)
    video = open_video(tensor, id="mine", fps=12.5)
    assert (len(video), video.size, video.fps, video.id) == (4, (6, 10), 12.5, "mine")
    assert torch.equal(video.frames[-1], tensor[3])
    assert video.time(3) == pytest.approx(3 / 12.5)


def test_read_only_and_flipped_arrays_are_read(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "frames.npy", array)
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")
    for given in (mapped, array[:, :, ::-1], array[::-1, ::-1]):
        frames = open_video(given).frames
        assert np.array_equal(torch.stack(list(frames)).permute(0, 2, 3, 1).numpy(), given)


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((4, 5, 6), np.uint8),
        np.zeros((4, 3, 5, 6), np.uint8),
        np.zeros((4, 5, 6, 3), np.float32),
        np.zeros((0, 5, 6, 3), np.uint8),
        torch.zeros(4, 5, 6, 3, dtype=torch.uint8),
        torch.zeros(4, 3, 5, 6),
    ],
)
def test_an_array_of_another_form_is_refused_with_what_came(given: np.ndarray | torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"expected .*got (ndarray|Tensor) of .*\["):
        open_video(given)


def test_frames_are_a_sequence() -> None:
    frames = open_video(np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, axis=3)).frames
    assert [int(f[0, 0, 0]) for f in frames[1::2]] == [1, 3]
    assert int(frames[-2][0, 0, 0]) == 3
    for beyond in (5, -6):
        with pytest.raises(IndexError, match="of a video of 5 frames"):
            frames[beyond]


def test_a_video_stays_as_it_is() -> None:
    video = open_video(np.zeros((2, 4, 4, 3), np.uint8))
    assert open_video(video) is video
    renamed = open_video(video, id="other", fps=5)
    assert (renamed.id, renamed.fps, renamed.frames) == ("other", 5.0, video.frames)


def test_images_are_read_in_natural_order_whatever_the_case_of_their_endings(tmp_path: Path) -> None:
    names = ["f10.png", "f2.PNG", "f1.bmp", "F3.WebP"]
    for name in names:
        save(tmp_path / name, int("".join(filter(str.isdigit, name))))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._f2.png").write_bytes(b"what another system leaves behind")
    video = open_video(tmp_path)
    assert (len(video), video.size, video.id) == (4, (6, 8), tmp_path.name)
    assert [int(frame[0, 0, 0]) for frame in video.frames] == [1, 2, 3, 10]


def test_natural_order_counts_numbers_and_ignores_case() -> None:
    names = ["b1.png", "A20.png", "a3.png", "a03b.png", "10.png", "9.png"]
    ordered = [path.name for path in sorted(map(Path, names), key=natural_order)]
    assert ordered == ["9.png", "10.png", "a3.png", "a03b.png", "A20.png", "b1.png"]


def test_the_first_image_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    for n in range(4):
        save(tmp_path / f"{n}.png", size=(6, 8) if n < 2 else (6, 9 + n))
    with pytest.raises(InputError, match=r"2\.png: is 11x6 pixels where 0\.png has 8x6"):
        open_video(tmp_path)


def test_an_image_that_changed_since_opening_is_an_error_of_one_line(tmp_path: Path) -> None:
    frames = ImageFrames([save(tmp_path / "0.png"), tmp_path / "gone.png"], (6, 9))
    with pytest.raises(InputError, match=r"0\.png: is 8x6 pixels where this video has 9x6"):
        frames[0]
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        frames[1]


def test_opening_a_folder_decodes_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        save(tmp_path / f"{n}.png", n)
    read: list[Path] = []
    blank = np.zeros((6, 8, 3), np.uint8)
    monkeypatch.setattr("tubelet.video.frames.read_samples", lambda path: read.append(path) or blank)
    video = open_video(tmp_path)
    assert read == []
    assert video.frames[1].shape == (3, 6, 8)
    assert [path.name for path in read] == ["1.png"]


def test_grey_transparent_palette_and_deep_images_become_rgb(tmp_path: Path) -> None:
    grey = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
    Image.fromarray(grey).save(tmp_path / "0.png")
    Image.fromarray(np.dstack([grey, grey, grey, grey])).save(tmp_path / "1.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "2.png")
    cv2.imwrite(str(tmp_path / "3.png"), grey.astype(np.uint16) * 256 + 200)
    for frame in open_video(tmp_path).frames:
        assert np.array_equal(frame.permute(1, 2, 0).numpy(), np.dstack([grey] * 3))


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :16] = (250, 40, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: turn clockwise to show
    Image.fromarray(image).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    video = open_video(tmp_path / "photo.jpg")
    assert (len(video), video.size, video.id) == (1, (48, 32), "photo")
    frame = video.frames[0]
    assert frame.shape == (3, 48, 32)
    assert frame[0, 4, 28] > 200
    assert frame[0, 4, 4] < 60


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "text.png", "empty.jpg"])
def test_a_broken_image_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("cut"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    else:
        path.write_text("hello" if name == "text.png" else "")
    with pytest.raises(InputError, match=rf"{name}: not an image that can be decoded") as caught:
        open_video(path).frames[0]
    assert "\n" not in str(caught.value)


def test_what_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("a text file\n" * 200)
    (tmp_path / "text.txt").write_text("a text file\n" * 200)
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(5000))
    expected = {
        "missing.mp4": "no such file or folder",
        "empty": "no images in this folder",
        "text.mp4": "not a video that can be read",
        "text.txt": "no video stream in it",
        "zero.mp4": "not a video that can be read",
        "noise.mkv": "not a video that can be read",
    }
    for name, words in expected.items():
        with pytest.raises(InputError, match=f"{name}: {words}") as caught:
            open_video(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_an_mp4_without_its_end_is_called_so(make_clip: Make) -> None:
    path = make_clip("clip.mp4")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(TruncatedVideo, match=r"clip\.mp4: an MP4 whose table of contents is missing"):
        open_video(path)


@pytest.mark.parametrize("source", [0, "rtsp://camera/1"])
def test_a_live_source_is_sent_to_the_stream(source: int | str) -> None:
    assert is_live(source)
    with pytest.raises(InputError, match="live source"):
        open_video(source)


def test_paths_are_not_live() -> None:
    assert not any(is_live(source) for source in ("clip.mp4", Path("a"), True, None, np.zeros(1)))


@pytest.mark.parametrize("source", ["films/a://b.mp4", "./rtsp://b.mp4", "a:/b.mp4", "c://b.mp4", "2024-05-01://b.mp4"])
def test_a_path_with_a_colon_is_no_address(source: str, make_clip: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip("clip.mp4", length=5)
    monkeypatch.chdir(clip.parent)
    Path(source).parent.mkdir(parents=True)
    clip.rename(source)
    assert not is_live(source)
    assert len(open_video(source)) == 5


def test_another_kind_of_source_and_a_wrong_rate_are_refused() -> None:
    with pytest.raises(InputError, match="got int"):
        open_video([1, 2])  # type: ignore[arg-type]
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="frame rate"):
            open_video(np.zeros((1, 2, 2, 3), np.uint8), fps=fps)


def test_a_given_rate_replaces_the_times_of_a_file(make_clip: Make) -> None:
    path = make_clip("clip.mp4", length=5)
    assert open_video(path).time(4) == pytest.approx(0.16)
    video = open_video(path, fps=10)
    assert (video.times, video.fps, video.time(4)) == (None, 10.0, 0.4)


def test_real_clips_open_and_read_alike_in_any_order(shared: Path) -> None:
    expected = {
        "cyclist.mp4": (241, (720, 1280), 23.976),
        "dog.mp4": (289, (720, 1280), 29.97),
        "dog_training.mp4": (146, (720, 1280), 24.0),
        "driving.mp4": (124, (720, 1280), 24.0),
        "pedestrians.avi": (795, (576, 768), 10.0),
        "skateboarder.mp4": (192, (720, 1280), 24.0),
    }
    for name, (length, size, fps) in expected.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            video: Video = open_video(shared / "data" / "clips" / name)
        assert (len(video), video.size) == (length, size)
        assert video.fps == pytest.approx(fps, abs=0.001)
        assert video.time(length - 1) == pytest.approx((length - 1) / fps, rel=1e-3)
        positions = {12: None, 3: None, 25: None, 26: None}
        for t, frame in enumerate(video.frames):
            if t in positions:
                positions[t] = frame
            if t == 30:
                break
        assert all(torch.equal(video.frames[t], frame) for t, frame in positions.items())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("name", ["pipe.png", "pipe.mp4", "pipe.tiff"])
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="found a pipe"):
        open_video(tmp_path / name)
