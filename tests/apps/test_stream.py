"""Live: lines of JSON, the page, sources that break off and come back, and frames that are dropped."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import numpy as np
import pytest
import torch

import edited
from toy import Toy, moving_patches
from tubelet.apps import stream as command
from tubelet.apps.cli import call
from tubelet.apps.picture import picture
from tubelet.apps.web.guard import Access
from tubelet.apps.web.live import MAX_VIEWERS, Newest, build, show_live
from tubelet.core import masks
from tubelet.core.types import Frame
from tubelet.inference import predict as inference
from tubelet.models import weights
from tubelet.video.lasting import open_lasting
from tubelet.video.live import LiveVideo, Stamped
from tubelet.video.writer import VideoWriter

SIZE = (48, 64)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    model = Toy()
    monkeypatch.setattr(weights, "load", lambda name="default", **how: model)
    return model


@pytest.fixture
def film(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "film.mp4", SIZE, 10) as writer:
        for image in moving_patches(6):
            writer.write(image)
    return tmp_path / "film.mp4"


def tensors(length: int, size: tuple[int, int] = SIZE) -> list[torch.Tensor]:
    return [torch.from_numpy(image).permute(2, 0, 1) for image in moving_patches(length, size)]


def live(images: list[torch.Tensor], *, every: float = 0.0) -> LiveVideo:
    def frames() -> Generator[Stamped, None, None]:
        for t, image in enumerate(images):
            time.sleep(every)
            yield t / 10, image

    return LiveVideo("camera 0", frames())


def some_frame() -> Frame:
    return next(inference.stream(Toy(), moving_patches(2)))


def test_json_is_one_line_per_frame(toy: Toy, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["stream", str(film), "--json", "--masks"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["index"] for line in lines] == list(range(6))
    assert [line["time"] for line in lines] == pytest.approx([t / 10 for t in range(6)])
    first = lines[0]
    assert (first["ids"], first["names"], first["scores"]) == ([0, 1], ["red", "blue"], [0.9, 0.9])
    left, top, right, bottom = first["boxes"][0]
    mask = masks.decode([masks.from_json(code, SIZE) for code in first["masks"]])[0]
    rows, columns = np.nonzero(mask)
    assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_masks_are_left_out_unless_asked_for(toy: Toy, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(["stream", str(film), "--json"])
    assert "masks" not in json.loads(capsys.readouterr().out.splitlines()[0])


def test_a_reader_that_goes_away_ends_the_stream_quietly(
    toy: Toy, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

        def fileno(self) -> int:
            return spare

    spare = os.open(tmp_path / "spare", os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr("sys.stdout", Gone())
    assert call(["stream", str(film), "--json"]) == 0
    assert capfd.readouterr().err == ""


def test_a_source_that_cannot_be_opened_is_one_line(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["stream", "tcp://127.0.0.1:1", "--json"]) == 2
    assert "cannot be opened as a stream" in capsys.readouterr().err


def test_a_window_that_cannot_be_opened_is_said_and_the_page_shows_it(
    toy: Toy, film: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert call(["stream", str(film), "--show", "--port", "0"]) == 0
    told = capsys.readouterr()
    assert "no window can be opened here" in told.err
    assert "open http://127.0.0.1:" in told.out


def test_frames_are_dropped_and_never_queued_where_the_model_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Toy):
        def step(self, *given: Any) -> Any:
            time.sleep(0.05)
            return super().step(*given)

    monkeypatch.setattr("tubelet.video.live.open_stream", lambda source: live(tensors(100), every=0.005))
    source = open_lasting("tcp://camera", first_wait=30)
    seen = []
    for frame in inference.stream(Slow(), source):
        seen.append(round(frame.time * 10))
        if source.dropped > 40:
            break
    source.close()
    assert seen == sorted(set(seen))
    assert seen[-1] - seen[0] > 20  # always the newest: it keeps up with the clock, not with the count


class Broadcaster:
    """Sends a film as an MPEG transport stream to each who connects, at its own pace, and hangs up at its end."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        self.calls = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self.listener.accept()
                self.calls += 1
                with caller, suppress(OSError):
                    for start in range(0, len(self.data), 4096):
                        caller.sendall(self.data[start : start + 4096])
                        time.sleep(0.005)

    def close(self) -> None:
        self.listener.close()


@pytest.fixture
def broadcast(tmp_path: Path) -> Iterator[Broadcaster]:
    path = tmp_path / "film.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "5", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for t, image in enumerate(moving_patches(40)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = t, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sender = Broadcaster(path)
    yield sender
    sender.close()


def test_a_network_stream_is_followed_and_taken_up_again_when_it_hangs_up(broadcast: Broadcaster) -> None:
    source = open_lasting(broadcast.address, first_wait=0.01)
    frames: list[Frame] = []
    for frame in inference.stream(Toy(), source):
        frames.append(frame)
        if broadcast.calls > 2 and len(frames) > 10:
            break
    source.close()
    assert {name for frame in frames for name in frame.names} == {"red", "blue"}
    assert [frame.time for frame in frames] == sorted(frame.time for frame in frames)


def test_the_page_shows_the_newest_picture(broadcast: Broadcaster) -> None:
    pictures = []
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("tubelet.apps.serve.show", said.append)
        sink = stack.enter_context(show_live("127.0.0.1", 0))
        address = re.findall(r"http://[\d.:]+/", said[0])[0]
        source = stack.enter_context(open_lasting(broadcast.address, first_wait=0.01))
        frames = inference.stream(Toy(), source)
        worker = threading.Thread(target=command.deliver, args=(frames, [sink]), daemon=True)
        worker.start()
        assert "tubelet live" in httpx.get(address).text
        with httpx.stream("GET", f"{address}live") as answer:
            assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=picture"
            data = b""
            for chunk in answer.iter_bytes():
                data += chunk
                pictures = re.findall(rb"Content-Length: (\d+)\r\n\r\n", data)
                if len(pictures) > 3:
                    break
        assert "frames/s" in httpx.get(f"{address}caption").text
        assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 421
        start = data.index(b"\r\n\r\n") + 4
        image = cv2.imdecode(np.frombuffer(data[start : start + int(pictures[0])], np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (*SIZE, 3)


def test_pictures_are_made_only_while_somebody_looks_and_only_the_newest_is_kept() -> None:
    newest, frame = Newest(), some_frame()
    newest.offer(frame, 12.3)
    assert (newest.number, newest.jpeg) == (0, b"")
    assert newest.caption == "12.3 frames/s · red 0, blue 1"
    newest.viewers = 1
    newest.offer(frame, 12.3)
    newest.offer(frame, 12.3)
    assert newest.number == 2
    assert newest.jpeg[:2] == b"\xff\xd8"


def test_more_viewers_than_allowed_are_told_it_is_busy() -> None:
    from starlette.testclient import TestClient

    newest = Newest()
    newest.viewers = MAX_VIEWERS
    answer = TestClient(build(newest, Access()), base_url="http://127.0.0.1").get("/live")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")


def test_the_rate_stands_in_the_corner_of_the_picture() -> None:
    frame = some_frame()
    with_rate, other = picture(frame, 9.5), picture(frame, 1.5)
    assert with_rate.shape == (*SIZE, 3)
    assert (with_rate[:20] != other[:20]).any()
    assert (with_rate[20:] == other[20:]).all()


@pytest.mark.parametrize(("arguments", "shots"), [([], [0, 0, 0, 1, 1]), (["--no-cuts"], [0] * 5)])
def test_each_line_tells_the_shot(
    arguments: list[str], shots: list[int], toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with VideoWriter(tmp_path / "edited.mp4", edited.SIZE, 10) as writer:
        for image in [*edited.scene(0, 3), *edited.scene(1, 2)]:
            writer.write(image)
    assert call(["stream", str(tmp_path / "edited.mp4"), "--json", *arguments]) == 0
    assert [json.loads(line)["shot"] for line in capsys.readouterr().out.splitlines()] == shots
