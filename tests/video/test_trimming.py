"""Parts of videos: the right frames with the right times, of files, of frames in memory and of live sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tubelet.core import masks
from tubelet.core.errors import ConfigError
from tubelet.core.types import Track
from tubelet.video.reader import open_video
from tubelet.video.trimming import part_of, trim

PARTS = [
    ({"start": 0.2}, [2, 3, 4, 5, 6, 7, 8, 9]),
    ({"end": 0.3}, [0, 1, 2]),
    ({"every": 4}, [0, 4, 8]),
    ({"start": 0.15, "end": 0.75, "every": 2}, [2, 4, 6]),
    ({"start": 0.9}, [9]),
]


def numbered(length: int = 10) -> np.ndarray:
    return np.arange(length, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), np.uint8)


@pytest.mark.parametrize(("part", "expected"), PARTS)
def test_a_part_has_its_frames_at_their_times(part: dict[str, float], expected: list[int]) -> None:
    video = open_video(numbered(), fps=10, **part)  # type: ignore[arg-type]
    assert [int(frame[0, 0, 0]) for frame in video.frames] == expected
    assert [int(video.frames[t][0, 0, 0]) for t in range(len(video))] == expected
    assert video.times == pytest.approx([t / 10 for t in expected])


@pytest.mark.parametrize(("part", "expected"), PARTS)
def test_a_part_of_a_stream_is_that_of_the_file(part: dict[str, float], expected: list[int]) -> None:
    frames = ((t / 10, image) for t, image in enumerate(open_video(numbered()).frames))
    assert [int(image[0, 0, 0]) for _, image in part_of(frames, **part)] == expected  # type: ignore[arg-type]


def test_a_part_of_a_file_is_decoded_exactly(
    make_clip: Callable[..., Path], number_of: Callable[[Tensor], int]
) -> None:
    path = make_clip("clip.mp4", length=20, size=(96, 64))
    whole = open_video(path)
    video = open_video(path, start=whole.time(7), every=3)
    assert [number_of(frame) for frame in video.frames] == [7, 10, 13, 16, 19]
    assert video.time(1) == whole.time(10)


def test_the_truth_is_cut_with_its_frames() -> None:
    rles = masks.encode(np.stack([np.full((4, 6), t % 2 == 0) for t in range(10)]))
    video = replace(open_video(numbered(), fps=10), tracks=(Track(id=1, label=0, score=1.0, rles=tuple(rles)),))
    cut = trim(video, start=0.1, every=2)
    assert cut.tracks is not None
    assert cut.tracks[0].rles == tuple(rles[1::2])


def test_nothing_to_cut_is_the_video_itself() -> None:
    video = open_video(numbered())
    assert trim(video) is video


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"start": 5}, "no frame from 5 s on, the video ends at 1.00 s"),
        ({"start": 0.5, "end": 0.2}, "end: expected a time after the start"),
        ({"start": -1}, "start: expected a number of at least 0"),
        ({"end": "2"}, "end: expected a number of at least 0"),
        ({"every": 0}, "every: expected a whole number of at least 1"),
        ({"every": 1.5}, "every: expected a whole number of at least 1"),
    ],
)
def test_a_part_without_frames_is_an_error_that_says_why(part: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_video(numbered(), fps=10, **part)  # type: ignore[arg-type]


def test_a_stream_ends_where_its_part_does() -> None:
    def endless() -> object:
        t = 0
        while True:
            yield t / 10, torch.zeros(3, 4, 6, dtype=torch.uint8)
            t += 1

    assert len(list(part_of(endless(), end=0.5))) == 5  # type: ignore[arg-type]
