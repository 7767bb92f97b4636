"""Live sources: always the newest frame, never a queue, and a clean end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.video import live
from tubelet.video.live import LiveVideo, Stamped
from tubelet.video.reader import open_stream

Make = Callable[..., Path]


def ticking(length: int, seconds: float, error: Exception | None = None) -> Generator[Stamped, None, None]:
    """A camera that gives numbered frames at its own pace, whether or not somebody looks."""
    for number in range(length):
        yield number * seconds, torch.full((3, 2, 2), number, dtype=torch.uint8)
        time.sleep(seconds)
    if error:
        raise error


def value(frame: Tensor) -> int:
    return int(frame[0, 0, 0])


def test_a_slow_reader_gets_the_newest_frames_and_the_rest_is_counted() -> None:
    live = LiveVideo("test", ticking(40, 0.005))
    seen = []
    for stamp, frame in live:
        assert stamp == pytest.approx(value(frame) * 0.005)
        seen.append(value(frame))
        time.sleep(0.04)
    assert seen == sorted(set(seen))
    assert len(seen) < 20
    assert seen[-1] == 39
    assert live.dropped == 40 - len(seen)


def test_a_source_that_waits_loses_nothing() -> None:
    live = LiveVideo("test", ticking(12, 0.0), waits=True)
    seen = []
    for _, frame in live:
        seen.append(value(frame))
        time.sleep(0.005)
    assert seen == list(range(12))
    assert live.dropped == 0


def test_leaving_the_loop_releases_the_source() -> None:
    released = threading.Event()

    def camera() -> Generator[Stamped, None, None]:
        try:
            yield from ticking(10_000, 0.002)
        finally:
            released.set()

    for _ in LiveVideo("test", camera()):
        break
    assert released.wait(2.0)


def test_closing_before_reading_releases_the_source() -> None:
    frames = ticking(3, 0.0)
    with LiveVideo("test", frames) as live:
        pass
    assert list(frames) == []
    with pytest.raises(InputError, match="read only once"):
        next(iter(live))


def test_a_source_that_breaks_off_raises_after_its_last_frame() -> None:
    live = LiveVideo("test", ticking(2, 0.0, InputError("test: gone")), waits=True)
    frames = iter(live)
    assert [value(next(frames)[1]), value(next(frames)[1])] == [0, 1]
    with pytest.raises(InputError, match="test: gone"):
        next(frames)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is its own."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where this machine serves the test's folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_recording_behind_an_address_is_read_whole_with_its_own_times(
    make_clip: Make, number_of: Callable[[Tensor], int], address: str
) -> None:
    times = [3.0, 3.04, 3.3, 3.31, 4.0]
    path = make_clip("clip.mkv", length=5, times=times, size=(96, 64))
    frames = list(open_stream(f"{address}/{path.name}"))
    assert [number_of(frame) for _, frame in frames] == list(range(5))
    assert [stamp for stamp, _ in frames] == pytest.approx([0.0, 0.04, 0.3, 0.31, 1.0])


def test_a_stream_is_shown_upright(make_clip: Make, number_of: Callable[[Tensor], int], address: str) -> None:
    path = make_clip("phone.mkv", length=6, size=(96, 64), turned=1)
    frames = [frame for _, frame in open_stream(f"{address}/{path.name}")]
    assert [tuple(frame.shape) for frame in frames] == [(3, 96, 64)] * 6
    assert [number_of(frame) for frame in frames] == list(range(6))


def test_an_address_that_leads_nowhere_is_an_error_without_its_password() -> None:
    with pytest.raises(InputError, match="cannot be opened as a stream") as caught:
        open_stream("rtsp://user:secret@127.0.0.1:9/x")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["file://{folder}/clip.mkv", "concat://{folder}/clip.mkv", "subfile,,start,0,end,9,,://x", "nonsense://x"]
)
def test_only_protocols_of_streams_are_opened(source: str, make_clip: Make) -> None:
    folder = make_clip("clip.mkv", length=5).parent
    with pytest.raises(InputError, match=r"cannot be opened as a stream \(expected http, https, .*, got '") as caught:
        open_stream(source.format(folder=folder))
    assert "\n" not in str(caught.value)


def test_the_letters_of_a_protocol_may_be_large(make_clip: Make, address: str) -> None:
    make_clip("clip.mkv", length=5)
    assert len(list(open_stream(f"{address}/clip.mkv".replace("http", "HTTP")))) == 5


def test_a_playlist_from_outside_cannot_read_files_of_this_machine(make_clip: Make, address: str) -> None:
    clip = make_clip("clip.ts", length=50)
    lines = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-VERSION:3\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
    clip.with_name("fair.m3u8").write_text(lines.format("clip.ts"))
    clip.with_name("foul.m3u8").write_text(lines.format(clip.as_uri()))
    assert len(list(open_stream(f"{address}/fair.m3u8"))) == 50
    with pytest.raises(InputError, match=r"foul\.m3u8"):
        list(open_stream(f"{address}/foul.m3u8"))


def test_frames_that_are_too_large_are_refused(make_clip: Make, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip("clip.mkv", length=5)
    monkeypatch.setattr(live, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(InputError, match=r"clip\.mkv: frames of 64x48 pixels are too large"):
        open_stream(f"{address}/clip.mkv")


def test_a_camera_that_is_not_there_is_an_error_of_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="camera 97 cannot be opened"):
        open_stream(97)
    assert capfd.readouterr().err == ""
