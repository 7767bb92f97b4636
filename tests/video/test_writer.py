"""Writers: what is written reads back the same, plays in a browser, and is there whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.video.reader import open_video
from tubelet.video.writer import ImageWriter, VideoWriter

Picture = Callable[[int, tuple[int, int]], np.ndarray]
SIZE = (96, 128)


def write_video(path: Path, picture: Picture, length: int = 30, size: tuple[int, int] = SIZE, **options: float) -> None:
    with VideoWriter(path, size, **options) as writer:
        for t in range(length):
            writer.write(picture(t, size))


def write_all(writer: VideoWriter | ImageWriter, frames: Iterable[np.ndarray]) -> None:
    with writer:
        for frame in frames:
            writer.write(frame)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["clip.mp4", "CLIP.MP4", "clip.mkv", "clip.mov"])
def test_a_written_video_reads_back(
    name: str, tmp_path: Path, picture: Picture, number_of: Callable[[Tensor], int]
) -> None:
    write_video(tmp_path / name, picture, fps=24)
    assert entries(tmp_path) == [name]
    video = open_video(tmp_path / name)
    assert (video.size, len(video), video.fps) == (SIZE, 30, pytest.approx(24, rel=1e-3))
    assert [number_of(frame) for frame in video.frames] == list(range(30))


def test_a_browser_can_play_and_seek_it(tmp_path: Path, picture: Picture) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, picture, length=95, fps=30)
    data = path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat"), "the table of contents comes first"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        assert tags == (1, 1, 1, 1), "BT.709 in limited range"
        keys = [float(p.pts * p.time_base) for p in container.demux(stream) if p.size and p.is_keyframe]
        assert stream.duration * stream.time_base == pytest.approx(95 / 30, abs=1e-3)
    assert len(keys) >= 4
    assert max(np.diff(keys)) <= 1.001


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.mov"])
def test_pixels_that_are_not_square_stay_so(name: str, tmp_path: Path, picture: Picture) -> None:
    with VideoWriter(tmp_path / name, SIZE, pixel_aspect=Fraction(16, 11)) as writer:
        for t in range(3):
            writer.write(picture(t, SIZE))
    video = open_video(tmp_path / name)
    assert (video.size, video.pixel_aspect) == (SIZE, Fraction(16, 11))


def test_a_relative_name_is_no_address(tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("12:30:05.mp4", "12:30/clip.mp4"):
        write_video(Path(name), picture, length=3)
        assert len(open_video(name)) == 3


def test_colours_come_back_as_they_were(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 100, 50), (30, 180, 220)]
    with VideoWriter(tmp_path / "clip.mp4", (32, 32)) as writer:
        for colour in colours:
            writer.write(np.full((32, 32, 3), colour, np.uint8))
    for colour, frame in zip(colours, open_video(tmp_path / "clip.mp4").frames, strict=True):
        assert frame.float().mean((1, 2)).numpy() == pytest.approx(colour, abs=4)


@pytest.mark.parametrize("size", [(47, 64), (48, 65), (47, 65), (1, 1)])
def test_an_odd_size_repeats_its_last_row_and_column(size: tuple[int, int], tmp_path: Path, picture: Picture) -> None:
    image = picture(200, size)
    with VideoWriter(tmp_path / "clip.mp4", size) as writer:
        writer.write(image)
    video = open_video(tmp_path / "clip.mp4")
    height, width = size
    assert video.size == (height + height % 2, width + width % 2)
    frame = video.frames[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(frame[:height, :width] - image).mean() < 8
    assert np.abs(frame[height - 1] - frame[-1]).mean() < 12
    assert np.abs(frame[:, width - 1] - frame[:, -1]).mean() < 12


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_frames_are_the_same_bytes_whatever_lies_in_memory(
    size: tuple[int, int], threads: int, tmp_path: Path
) -> None:
    films, rng = set(), np.random.default_rng(0)
    for _ in range(15):
        with VideoWriter(tmp_path / "film.mp4", size, 10, threads=threads) as writer:
            for t in range(6):
                image = np.full((*size, 3), 90, np.uint8)  # still ground: what was left in memory shows in flat places
                image[10:30, 8 + 4 * t : 24 + 4 * t] = (220, 40, 30)
                left = [rng.integers(0, 256, int(rng.integers(100, 60_000)), np.uint8) for _ in range(5)]
                del left  # memory goes back as it is
                writer.write(image)
        films.add((tmp_path / "film.mp4").read_bytes())
    assert len(films) == 1


def test_true_times_are_kept_and_start_at_zero(tmp_path: Path, picture: Picture) -> None:
    times = [5.0, 5.04, 5.05, 5.3, 6.7, 6.71]
    with VideoWriter(tmp_path / "clip.mp4", SIZE, fps=25) as writer:
        for t, time in enumerate(times):
            writer.write(picture(t, SIZE), time)
    assert open_video(tmp_path / "clip.mp4").times == pytest.approx([time - 5 for time in times], abs=1e-4)


def test_a_time_that_stands_still_is_shown_right_after(tmp_path: Path, picture: Picture) -> None:
    with VideoWriter(tmp_path / "clip.mp4", SIZE) as writer:
        for t, time in enumerate([0.0, 0.1, 0.1, 0.05, 0.2]):
            writer.write(picture(t, SIZE), time)
    times = open_video(tmp_path / "clip.mp4").times
    assert times is not None
    assert times == pytest.approx([0.0, 0.1, 0.1, 0.1, 0.2], abs=1e-3)
    assert all(before < after for before, after in pairwise(times))


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_what_was_there_before(
    fault: type[BaseException], tmp_path: Path, picture: Picture
) -> None:
    def interrupted() -> Iterator[np.ndarray]:
        yield from (picture(t, SIZE) for t in range(5))
        raise fault

    path, folder = tmp_path / "clip.mp4", tmp_path / "frames"
    write_video(path, picture, length=3)
    with ImageWriter(folder) as images:
        images.write(picture(0, SIZE))
    before = path.read_bytes()
    for writer in (VideoWriter(path, SIZE), ImageWriter(folder), VideoWriter(tmp_path / "new.mp4", SIZE)):
        with pytest.raises(fault):
            write_all(writer, interrupted())
    assert entries(tmp_path) == ["clip.mp4", "frames"]
    assert path.read_bytes() == before
    assert "00000.png" in entries(folder)
    assert "00001.png" not in entries(folder)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Files may not grow beyond `size` bytes: the system then fails a write as it does where a disk is full."""
    resource = pytest.importorskip("resource", reason="needs limits on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("length", [4, 400])
def test_a_disk_that_is_full_is_one_clear_line_and_leaves_nothing(length: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    for make in (lambda: VideoWriter(tmp_path / "clip.mp4", SIZE), lambda: ImageWriter(tmp_path / "frames")):
        with at_most(8000), pytest.raises(InputError, match="cannot be written") as caught:
            write_all(make(), [noise] * length)
        assert "\n" not in str(caught.value)
    assert entries(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of another kind")
def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for make in (lambda p: VideoWriter(p, SIZE), ImageWriter):
        with pytest.raises(InputError, match="cannot be written"):
            make(tmp_path / "file" / "out.mp4")


def test_what_the_writer_cannot_do_is_refused(tmp_path: Path, picture: Picture) -> None:
    with pytest.raises(InputError, match=r"clip\.wmv: expected a name that ends in \.mp4"):
        VideoWriter(tmp_path / "clip.wmv", SIZE)
    with pytest.raises(InputError, match="frame rate"):
        VideoWriter(tmp_path / "clip.mp4", SIZE, fps=0)
    with pytest.raises(InputError, match="no frame to write"), VideoWriter(tmp_path / "clip.mp4", SIZE):
        pass
    for wrong in (picture(0, (64, 64)), picture(0, SIZE).astype(np.float32), picture(0, SIZE)[..., 0]):
        with (
            pytest.raises(InputError, match=r"expected frames of uint8 \[96, 128, 3\], got"),
            VideoWriter(tmp_path / "clip.mp4", SIZE) as writer,
        ):
            writer.write(wrong)
    assert entries(tmp_path) == []


def test_a_folder_of_images_reads_back_to_the_bit(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)
    with ImageWriter(tmp_path / "new" / "frames") as writer:
        for frame in frames:
            writer.write(frame, time=0.5)
    assert entries(tmp_path / "new") == ["frames"]
    video = open_video(tmp_path / "new" / "frames")
    assert np.array_equal(np.stack([frame.permute(1, 2, 0).numpy() for frame in video.frames]), frames)


def test_a_folder_of_our_own_is_replaced_whole(tmp_path: Path, picture: Picture) -> None:
    for length in (5, 2):
        with ImageWriter(tmp_path / "frames") as writer:
            for t in range(length):
                writer.write(picture(t, SIZE))
    assert len(open_video(tmp_path / "frames")) == 2
    assert entries(tmp_path) == ["frames"]


def test_a_folder_with_files_of_others_is_never_replaced_unless_told(tmp_path: Path, picture: Picture) -> None:
    folder = tmp_path / "frames"
    with ImageWriter(folder) as writer:
        writer.write(picture(0, SIZE))
    (folder / "thesis.txt").write_text("years of work")
    other = tmp_path / "other"
    other.mkdir()
    (other / "00000.png").write_bytes(b"not ours, though it looks so")
    (tmp_path / "file").write_text("no folder")
    for target in (folder, other, tmp_path / "file"):
        with pytest.raises(InputError, match="holds files of others"):
            ImageWriter(target)
    assert (folder / "thesis.txt").exists()
    with ImageWriter(other, replace=True) as writer:
        writer.write(picture(3, SIZE))
    assert len(open_video(other)) == 1
    assert entries(tmp_path) == ["file", "frames", "other"]
