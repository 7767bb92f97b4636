"""Live sources that break off: opened again, with times that go on and frames of one size."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

import pytest
import torch

from toy import Toy, moving_patches
from tubelet.core.errors import InputError
from tubelet.inference.predict import stream
from tubelet.video import lasting, live
from tubelet.video.lasting import open_lasting
from tubelet.video.live import LiveVideo, Stamped

SIZE = (48, 64)


def images(length: int, size: tuple[int, int] = SIZE) -> list[torch.Tensor]:
    return [torch.from_numpy(image).permute(2, 0, 1) for image in moving_patches(length, size)]


def camera(frames: list[torch.Tensor], *, every: float = 0.02) -> LiveVideo:
    def ticking() -> Generator[Stamped, None, None]:
        for t, image in enumerate(frames):
            time.sleep(every)
            yield t / 10, image

    return LiveVideo("camera 0", ticking())


def in_turn(*parts: list[torch.Tensor]) -> Callable[[object], LiveVideo]:
    """Opens a camera that shows these frames, then the next; afterwards none is there."""
    left: Iterator[list[torch.Tensor]] = iter(parts)

    def opening(source: object) -> LiveVideo:
        frames = next(left, None)
        if frames is None:
            raise InputError("gone for good")
        return camera(frames)

    return opening


def test_identities_and_times_go_on_after_the_source_broke_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "open_stream", in_turn(images(3), images(4)))
    caplog.set_level(logging.WARNING, "tubelet.video")
    frames = []
    for frame in stream(Toy(), open_lasting(0, first_wait=0.01)):
        frames.append(frame)
        if len(frames) == 7:
            break
    assert [frame.ids.tolist() for frame in frames] == [[0, 1]] * 7
    times = [frame.time for frame in frames]
    assert times == sorted(times)
    assert times[3] > times[2]
    assert caplog.messages[:2] == ["camera 0 broke off; trying again", "camera 0 is back"]


def test_a_camera_by_its_number_is_opened_again_in_python_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "open_stream", in_turn(images(2), images(2)))
    monkeypatch.setattr(lasting, "FIRST_WAIT", 0.01)
    seen = 0
    for _ in stream(Toy(), 0):
        seen += 1
        if seen == 4:
            break
    assert seen == 4


def test_a_source_that_comes_back_with_another_size_is_brought_to_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "open_stream", in_turn(images(2), images(2, (96, 128))))
    shapes = []
    with suppress(StopIteration, RuntimeError):
        for _, image in open_lasting(0, first_wait=0.01):
            shapes.append(tuple(image.shape))
            if len(shapes) == 4:
                break
    assert shapes == [(3, *SIZE)] * 4


def test_waits_between_attempts_double_up_to_a_bound() -> None:
    class Watch(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return len(waits) == 6

    def refused() -> LiveVideo:
        raise InputError("not there")

    waits: list[float | None] = []
    assert lasting._again(refused, "camera 0", Watch(), 0.5, 4.0) is None
    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_closing_ends_the_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "open_stream", in_turn(images(1)))
    source = open_lasting(0, first_wait=60)
    frames = iter(source)
    next(frames)
    source.close()
    assert next(frames, None) is None


def test_a_recording_is_not_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = LiveVideo("film", iter(()), waits=True)  # type: ignore[arg-type]
    monkeypatch.setattr(live, "open_stream", lambda source: recording)
    assert open_lasting("http://somewhere/film.mp4") is recording
