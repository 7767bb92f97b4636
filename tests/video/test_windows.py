"""Windows: which frames make a clip, and that reading them is in order and in constant memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.core.protocol import Window
from tubelet.core.types import Video
from tubelet.video.reader import open_video
from tubelet.video.windows import evenly, window_indices, windows


class Watched(Sequence[Tensor]):
    """Frames that note how they are read, and how many of them are alive at once."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.read: list[int] = []
        self.passes = 0
        self.alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
        self.most_alive = 0

    def __len__(self) -> int:
        return self.length

    def _frame(self, t: int) -> Tensor:
        frame = torch.full((3, 2, 2), t % 251, dtype=torch.uint8)
        self.alive.add(frame)
        self.most_alive = max(self.most_alive, len(self.alive))
        return frame

    def __getitem__(self, t: int) -> Tensor:  # type: ignore[override]
        self.read.append(t)
        return self._frame(t)

    def __iter__(self) -> Iterator[Tensor]:
        self.passes += 1
        return (self._frame(t) for t in range(self.length))

    def video(self) -> Video:
        return Video(id="watched", size=(2, 2), frames=self)


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, Window]:
    length = draw(st.none() | st.integers(1, 12))
    window = Window(
        length=length,
        stride=draw(st.integers(1, length or 5)),
        context=draw(st.integers(0, 5)),
        causal=draw(st.booleans()),
        spread=draw(st.booleans()),
    )
    return draw(st.integers(1, 60)), window


@given(cases())
@settings(deadline=None)
def test_every_frame_is_predicted_and_every_clip_is_whole(case: tuple[int, Window]) -> None:
    length, window = case
    spans = window_indices(length, window)
    size = min(window.length or length, length)
    assert all(len(span.predicted) == size and len(span.context) == window.context for span in spans)
    assert all(list(span.predicted) == sorted(set(span.predicted)) for span in spans)
    assert all(0 <= t < length for span in spans for t in span.indices)
    if window.spread:
        assert len(spans) == 1
        return
    assert {t for span in spans for t in span.predicted} == set(range(length))
    starts = [span.predicted[0] for span in spans]
    assert all(0 < after - before <= window.stride for before, after in pairwise(starts))
    assert spans[-1].predicted[-1] == length - 1


@given(cases())
@settings(deadline=None)
def test_causal_context_never_looks_ahead(case: tuple[int, Window]) -> None:
    length, window = case
    for span in window_indices(length, window.but(causal=True)):
        first = span.predicted[0]
        assert all(t < first or t == first == 0 for t in span.context)


@given(cases())
@settings(deadline=None, max_examples=50)
def test_clips_hold_the_frames_that_they_name(case: tuple[int, Window]) -> None:
    length, window = case
    clips = list(windows(Watched(length).video(), window))
    spans = window_indices(length, window)
    assert len(clips) == len(spans)
    for clip, span in zip(clips, spans, strict=True):
        assert clip.index.tolist() == list(span.indices)
        assert clip.key.tolist() == list(span.key)
        assert clip.frames[:, 0, 0, 0].tolist() == [t % 251 for t in span.indices]
        assert clip.tracks is None


def test_online_is_one_frame_at_a_time() -> None:
    assert [span.indices for span in window_indices(3, Window())] == [(0,), (1,), (2,)]


def test_clips_overlap_by_their_stride_and_the_last_is_moved_back() -> None:
    spans = window_indices(10, Window(length=4, stride=3))
    assert [span.predicted[0] for span in spans] == [0, 3, 6]
    spans = window_indices(11, Window(length=4, stride=3))
    assert [span.predicted[0] for span in spans] == [0, 3, 6, 7]


def test_whole_is_one_clip_and_a_short_video_gives_a_short_clip() -> None:
    assert [span.indices for span in window_indices(5, Window(length=None))] == [tuple(range(5))]
    assert [span.indices for span in window_indices(3, Window(length=8, stride=4))] == [(0, 1, 2)]
    assert window_indices(0, Window()) == []


def test_spread_reaches_from_the_first_to_the_last_frame() -> None:
    assert [span.indices for span in window_indices(10, Window(length=4, spread=True))] == [(0, 3, 6, 9)]


@given(st.integers(1, 300), st.integers(1, 320))
def test_even_choices_are_different_and_equally_far_apart(length: int, count: int) -> None:
    chosen = evenly(length, count)
    assert len(set(chosen)) == min(length, count)
    steps = np.diff(chosen)
    assert steps.size == 0 or steps.max() - steps.min() <= 1
    if count > 1:
        assert (chosen[0], chosen[-1]) == (0, length - 1)


def test_context_lies_at_the_middles_of_equal_parts() -> None:
    span = window_indices(40, Window(context=4))[17]
    assert span.indices == (5, 15, 25, 35, 17)
    assert span.key == (False, False, False, False, True)
    causal = window_indices(40, Window(context=2, causal=True))
    assert causal[0].context == (0, 0)
    assert causal[20].context == (5, 15)
    assert window_indices(2, Window(context=4))[0].context == (0, 0, 1, 1)


@pytest.mark.parametrize("window", [Window(), Window(length=5, stride=2), Window(length=4, stride=4)])
def test_a_long_video_is_decoded_once_in_order_and_in_constant_memory(window: Window) -> None:
    frames = Watched(10_000)
    for clip in windows(frames.video(), window):
        del clip
    gc.collect()
    assert (frames.passes, frames.read) == (1, [])
    assert frames.most_alive <= (window.length or 0) + window.stride + 2
    assert len(frames.alive) == 0


def test_context_frames_that_stay_the_same_are_read_once() -> None:
    frames = Watched(50)
    clips = list(windows(frames.video(), Window(context=4)))
    assert len(clips) == 50
    assert len(frames.read) == 4


def test_a_clip_of_one_frame_is_not_copied() -> None:
    array = np.zeros((3, 4, 5, 3), np.uint8)
    for t, clip in enumerate(windows(open_video(array), Window())):
        assert clip.frames.shape == (1, 3, 4, 5)
        assert clip.frames.data_ptr() == array[t].ctypes.data


def test_frames_that_end_too_early_are_an_error_of_one_line() -> None:
    class Short(Watched):
        def __iter__(self) -> Iterator[Tensor]:
            return (self._frame(t) for t in range(self.length - 2))

    with pytest.raises(InputError, match="watched: decoding ended before frame 4 of 6"):
        list(windows(Short(6).video(), Window()))
