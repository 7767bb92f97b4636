"""A source as windows of frames, each within one shot: what `predict` and `stream` loop over.

Every frame that is read in order goes through the cut detector (tracking/shots.py). A cut ends the window in which it
falls, and the next one starts with the new shot, as if that were a video of its own. Windows with context frames, which
lie anywhere in the video, need to know the shots beforehand: the video is then read twice. A spread window picks a few
frames of the whole video; nothing is known of the frames between, and cuts are not looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice, pairwise
from typing import NamedTuple, overload

import torch
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.core.protocol import Window
from tubelet.core.types import Clip, Video
from tubelet.tracking.shots import ShotConfig, ShotState, next_shot
from tubelet.video.live import Stamped
from tubelet.video.windows import window_indices, windows


class WindowStep(NamedTuple):
    """One window's clip, the times of its frames in seconds, and the first frame that a later window may contain."""

    clip: Clip
    times: list[float]
    settled: int

    def pictures(self) -> dict[int, ShownFrame]:
        """Time, image and shot of each frame that is to be predicted."""
        clip = self.clip
        rows = zip(clip.index.tolist(), clip.key.tolist(), self.times, clip.frames, strict=True)
        return {t: ShownFrame(time, image, clip.shot) for t, key, time, image in rows if key}


class ShownFrame(NamedTuple):
    """A frame that is read but not final yet."""

    time: float
    image: Tensor
    shot: int


class _Read(NamedTuple):
    number: int
    time: float
    image: Tensor


class _Planned(NamedTuple):
    """The frames that a window predicts unless a cut comes before its end, and the first of the next window."""

    first: int
    last: int
    settled: int


def read(video: Video, window: Window, cuts: ShotConfig | None) -> Iterator[WindowStep]:
    """Yield the windows of a video in order; without `cuts`, the whole video is one shot.

    The last window is as long as the others and overlaps the one before, if the video allows.

    >>> from tubelet.core.protocol import Window
    >>> from tubelet.inference.reading import read
    >>> video = tubelet.open_video(np.zeros((5, 32, 32, 3), np.uint8))
    >>> [step.clip.index.tolist() for step in read(video, Window(length=2, stride=2), cuts=None)]
    [[0, 1], [2, 3], [3, 4]]
    """
    if window.spread or (window.context and cuts is None):
        yield from _part_windows(video, window, 0, 0)
    elif window.context:
        bounds = [*find_shots(video, cuts), len(video)]
        for shot, (start, end) in enumerate(pairwise(bounds)):
            times = tuple(video.time(t) for t in range(start, end))
            part = replace(video, frames=_Part(video.frames, start, end), times=times)
            yield from _part_windows(part, window, start, shot)
    else:
        yield from _in_order(_decoded(video), lambda start: _plan(len(video), window, start), cuts)


def listen(frames: Iterable[Stamped], window: Window, cuts: ShotConfig | None) -> Iterator[WindowStep]:
    """Yield the windows of frames that come one by one; the last one is shorter if they stop within it.

    >>> from tubelet.core.protocol import Window
    >>> from tubelet.inference.reading import listen
    >>> frames = [(t / 25, torch.zeros(3, 32, 32, dtype=torch.uint8)) for t in range(3)]
    >>> [step.clip.index.tolist() for step in listen(frames, Window(length=2, stride=2), cuts=None)]
    [[0, 1], [2]]
    """
    length = window.length
    assert length is not None, "such a source has no length"

    def plan(start: int) -> Iterator[_Planned]:
        for first in count(start, window.stride):
            yield _Planned(first, first + length - 1, first + window.stride)

    read_frames = (_Read(t, time, image) for t, (time, image) in enumerate(frames))
    yield from _in_order(read_frames, plan, cuts)


def find_shots(video: Video, config: ShotConfig | None = None) -> tuple[int, ...]:
    """The first frame of each shot of a video, beginning with 0; reads the whole of it.

    >>> from tubelet.inference.reading import find_shots
    >>> still = tubelet.open_video(np.zeros((4, 32, 32, 3), np.uint8))
    >>> find_shots(still)
    (0,)
    """
    config = config or ShotConfig()
    state = ShotState()
    starts = [0]
    for t, image in enumerate(video.frames):
        state = next_shot(state, image, config)
        if state.shot == len(starts):
            starts.append(t)
    return tuple(starts)


def _in_order(
    frames: Iterator[_Read], plan: Callable[[int], Iterator[_Planned]], cuts: ShotConfig | None
) -> Iterator[WindowStep]:
    """Yield the planned windows from the start of each shot; the last one of a shot stops at its end."""
    state = ShotState()
    shot = 0
    planned = plan(0)
    window = next(planned, None)
    pending: list[_Read] = []  # frames from the start of the current window on
    next_unpredicted = 0  # the first frame that no window contained yet

    for frame in frames:
        if cuts is not None:
            state = next_shot(state, frame.image, cuts)

        if state.shot > shot:
            if pending and pending[-1].number >= next_unpredicted:
                yield _join(pending, frame.number, shot)
            shot = state.shot
            pending = []
            next_unpredicted = frame.number
            planned = plan(frame.number)
            window = next(planned, None)

        pending.append(frame)
        if window is not None and frame.number == window.last:
            next_unpredicted = frame.number + 1
            yield _join(pending, window.settled, shot)
            window = next(planned, None)
            pending = [] if window is None else [old for old in pending if old.number >= window.first]

    if pending and pending[-1].number >= next_unpredicted:
        yield _join(pending, pending[-1].number + 1, shot)


def _plan(length: int, window: Window, start: int) -> Iterator[_Planned]:
    """The windows from frame `start` to the end of a video of `length` frames, if no cut follows."""
    spans = window_indices(length - start, window)
    following = [start + span.predicted[0] for span in spans[1:]] + [length]
    for span, settled in zip(spans, following, strict=True):
        yield _Planned(start + span.predicted[0], start + span.predicted[-1], settled)


def _decoded(video: Video) -> Iterator[_Read]:
    """All frames in order. Raises InputError where decoding ends before the length that the video claims."""
    t = -1
    for t, image in enumerate(islice(video.frames, len(video))):
        yield _Read(t, video.time(t), image)
    if t + 1 < len(video):
        raise InputError(f"{video.id}: decoding ended before frame {t + 1} of {len(video)}")


def _part_windows(part: Video, window: Window, start: int, shot: int) -> Iterator[WindowStep]:
    """The windows of a part of a video; `start` is the part's first frame in the video."""
    spans = window_indices(len(part), window)
    following = [span.predicted[0] for span in spans[1:]] + [len(part)]
    for clip, settled in zip(windows(part, window), following, strict=True):
        times = [part.time(t) for t in clip.index.tolist()]
        yield WindowStep(replace(clip, index=clip.index + start, shot=shot), times, start + settled)


def _join(window_frames: list[_Read], settled: int, shot: int) -> WindowStep:
    index, times, images = zip(*window_frames, strict=True)
    frames = images[0][None] if len(images) == 1 else torch.stack(images)  # a single frame is not copied
    key = torch.ones(len(index), dtype=torch.bool)
    clip = Clip(frames=frames, index=torch.tensor(index), key=key, shot=shot)
    return WindowStep(clip, list(times), settled)


class _Part(Sequence[Tensor]):
    """Consecutive frames of a video, from `start` to before `end`; decoded on demand."""

    def __init__(self, frames: Sequence[Tensor], start: int, end: int) -> None:
        self._frames = frames
        self._range = range(start, end)

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, t: int) -> Tensor: ...

    @overload
    def __getitem__(self, t: slice) -> Sequence[Tensor]: ...

    def __getitem__(self, t: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(t, slice):
            return [self._frames[k] for k in self._range[t]]
        return self._frames[self._range[t]]
