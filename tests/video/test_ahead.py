"""Reading ahead in a thread: the same items, the same errors, and nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tubelet.video.ahead import ahead, decoded_ahead
from tubelet.video.reader import open_video


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read ahead"]


def test_the_items_come_in_their_order() -> None:
    assert list(ahead(range(100))) == list(range(100))
    assert list(ahead([])) == []
    assert readers() == []


def test_an_error_comes_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    reading = ahead(broken())
    assert (next(reading), next(reading)) == (1, 2)
    with pytest.raises(OSError, match="the disk is gone"):
        next(reading)
    assert readers() == []


def test_no_more_items_are_made_than_are_wanted() -> None:
    made = []

    def items() -> Iterator[int]:
        for n in range(10):
            made.append(n)
            yield n

    reading = ahead(items(), most=2)
    assert next(reading) == 0
    time.sleep(0.3)
    assert len(made) <= 4  # one used, two in the queue, one waiting for room
    reading.close()


def test_closing_early_closes_the_source_in_its_thread() -> None:
    closed: list[str] = []

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread().name)

    reading = ahead(items())
    next(reading)
    reading.close()
    assert closed == ["read ahead"]
    assert readers() == []


def test_a_video_that_is_decoded_ahead_has_the_same_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3)).astype(np.uint8)
    video = open_video(frames)
    forward = decoded_ahead(video)
    assert all(torch.equal(one, other) for one, other in zip(forward.frames, video.frames, strict=True))
    assert torch.equal(forward.frames[5], video.frames[5])
    assert len(forward) == 7
