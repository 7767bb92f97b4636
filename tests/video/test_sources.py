"""Every kind of source opens as one video, and what does not says what to do."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import gettempdir
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tubelet.core.errors import InputError
from tubelet.core.untrusted import addresses
from tubelet.video import in_memory
from tubelet.video.reader import open_video

RED = np.zeros((4, 6, 3), np.uint8)
RED[..., 0] = 200


def write_image(path: Path, image: np.ndarray = RED) -> Path:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return path


TENSOR = torch.from_numpy(RED).permute(2, 0, 1)
IN_MEMORY: dict[str, tuple[Callable[[], Any], int]] = {
    "one array": (lambda: RED, 1),
    "an array of frames": (lambda: np.stack([RED] * 3), 3),
    "one tensor": (lambda: TENSOR, 1),
    "a tensor of frames": (lambda: torch.stack([TENSOR] * 3), 3),
    "a Pillow image": (lambda: Image.fromarray(RED), 1),
    "a list of arrays": (lambda: [RED, RED], 2),
    "a tuple of tensors": (lambda: (TENSOR, TENSOR), 2),
    "a list of Pillow images": (lambda: [Image.fromarray(RED)] * 2, 2),
    "a generator": (lambda: (RED for _ in range(4)), 4),
}


@pytest.mark.parametrize("name", IN_MEMORY)
def test_frames_in_memory_open_as_one_video(name: str) -> None:
    source, length = IN_MEMORY[name]
    video = open_video(source())
    assert len(video) == length
    assert video.size == (4, 6)
    assert all(torch.equal(frame, TENSOR) for frame in video.frames)


def test_a_pillow_image_is_upright_and_has_three_channels() -> None:
    grey = Image.new("LA", (6, 4), (90, 10))
    grey.getexif()[0x0112] = 6  # lies on its side
    assert open_video(grey).size == (6, 4)


WRONG: dict[str, tuple[Any, str]] = {
    "floats": (np.zeros((2, 4, 6, 3)), "scale values to 0 to 255 and convert them to uint8"),
    "channels first": (np.zeros((2, 3, 4, 6), np.uint8), r"frames\.transpose\(0, 2, 3, 1\)"),
    "channels last": (torch.zeros(2, 4, 6, 3, dtype=torch.uint8), r"frames\.permute\(0, 3, 1, 2\)"),
    "four channels": (np.zeros((2, 4, 6, 4), np.uint8), "leave out the fourth channel"),
    "two sizes": ([RED, RED[:2]], "frame 1 is 6x2 pixels where the first has 6x4; resize"),
    "a mixed list": ([RED, "dog.png"], "frame 1: expected an array"),
    "videos in a list": ([np.stack([RED] * 2)], "frame 0: expected one image, got 2"),
    "an empty list": ([], "expected at least one frame"),
    "an empty generator": (iter(()), "expected at least one frame"),
    "a number": (0, r"tubelet\.stream"),
    "a stream": ("rtsp://camera/1", r"tubelet\.stream"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_video_says_what_to_do(name: str) -> None:
    source, said = WRONG[name]
    with pytest.raises(InputError, match=said):
        open_video(source)


def test_a_generator_without_end_is_refused_before_memory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield RED

    monkeypatch.setattr(in_memory, "MOST_BYTES", 10 * RED.size)
    with pytest.raises(InputError, match=r"tubelet\.stream reads them without keeping them"):
        open_video(endless())


def test_a_broken_pillow_image_is_one_line(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="this Pillow image cannot be read"):
        open_video(Image.open(path))


# several files


def test_a_pattern_of_images_is_one_video_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        image = RED.copy()
        image[..., 1] = number
        write_image(tmp_path / "shots" / f"{number}.png", image)
    (tmp_path / "shots" / "notes.txt").touch()
    video = open_video(str(tmp_path / "shots" / "*.png"))
    assert [int(frame[1, 0, 0]) for frame in video.frames] == [1, 2, 10]
    assert video.id == "shots"
    files = [tmp_path / "shots" / "10.png", tmp_path / "shots" / "2.png"]
    assert [int(frame[1, 0, 0]) for frame in open_video(files).frames] == [10, 2], "a list has its own order"


def test_a_pattern_of_one_video_is_that_video(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    path = make_clip("clip.mkv", length=5)
    assert open_video(f"{path.parent}/cl*.mkv").id == "clip"


def test_a_pattern_of_nothing_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\*\.mp4: no file matches; patterns are relative to"):
        open_video("nothing-here-*.mp4")


def test_several_videos_are_told_to_be_predicted_one_by_one(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    for source in (str(tmp_path / "*.mp4"), [tmp_path / "a.mp4", tmp_path / "b.mp4"]):
        with pytest.raises(InputError, match="several videos; predict each"):
            open_video(source)
    with pytest.raises(InputError, match="no images but 2 videos in it; `tubelet predict"):
        open_video(tmp_path)


# addresses


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is its own."""

    def do_GET(self) -> None:
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.path.split("?to=")[1])
            self.end_headers()
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                return
        elif self.path == "/camera":
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
            self.end_headers()
        else:
            super().do_GET()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where this machine serves the test's folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def fetched() -> set[Path]:
    return set(Path(gettempdir()).glob("*-tubelet-fetched"))


def test_a_video_at_an_address_is_fetched_and_removed_with_its_last_use(
    make_clip: Callable[..., Path], address: str
) -> None:
    before = fetched()
    make_clip("my clip.mkv", length=5, size=(96, 64))
    video = open_video(f"{address}/my%20clip.mkv?token=x", every=2)
    assert (video.id, len(video), video.size) == ("my clip", 3, (96, 64))
    assert len(list(video.frames)) == 3
    assert len(fetched() - before) == 1
    del video
    gc.collect()
    assert fetched() == before


def test_what_a_file_is_its_content_says_and_not_its_name(tmp_path: Path, address: str) -> None:
    path = write_image(tmp_path / "image.png")
    path.rename(tmp_path / "film.mp4")
    assert len(open_video(f"{address}/film.mp4")) == 1


ADDRESSES = {
    "a page": ("page.mp4", "a page, not a video; give the address of the video file itself"),
    "a playlist": ("list.mp4", "a playlist; read it with `tubelet stream`"),
    "a camera": ("camera", "a live stream"),
    "nothing": ("nowhere.mp4", "the server answers 404"),
    "an empty file": ("empty.mp4", "an empty file"),
    "no video": ("text.mp4", "not a video that can be read"),
    "too much": ("endless", "still sending after"),
    "a redirect to a file": ("moved?to=file:///etc/passwd", "the server answers 302|cannot be fetched"),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_an_address_of_something_else_says_what_it_is(
    name: str, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fetched()
    (tmp_path / "page.mp4").write_text("\n<!DOCTYPE html><html>films</html>")
    (tmp_path / "list.mp4").write_text("#EXTM3U\nfile:///etc/passwd")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    monkeypatch.setattr(addresses, "LARGEST_DOWNLOAD", 1 << 20)
    target, said = ADDRESSES[name]
    with pytest.raises(InputError, match=said) as caught:
        open_video(f"{address.replace('//', '//user:secret@')}/{target}")
    assert "secret" not in str(caught.value)
    gc.collect()
    assert fetched() == before


def test_a_redirect_to_another_file_is_followed(make_clip: Callable[..., Path], address: str) -> None:
    make_clip("clip.mkv", length=5)
    assert len(open_video(f"{address}/moved?to={address}/clip.mkv")) == 5


def test_an_address_where_nobody_answers_is_one_line() -> None:
    with pytest.raises(InputError, match="cannot be fetched"):
        open_video("http://127.0.0.1:9/clip.mp4")
