"""Cut a video into clips: frame by frame, window by window, the whole video, or frames spread over it.

Clips are decoded in order and only the current clip is in memory, so memory does not grow with the video. Context
frames come first in their clip; they are from elsewhere in the video and are read by random access.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.core.protocol import Window
from tubelet.core.types import Clip, Video


class Span(NamedTuple):
    """The frame numbers of one clip: context first, then the frames to predict.

    Example:
        >>> from tubelet.video.windows import Span
        >>> span = Span(indices=(0, 6, 7), key=(False, True, True))
        >>> span.context, span.predicted
        ((0,), (6, 7))
    """

    indices: tuple[int, ...]
    key: tuple[bool, ...]  # True for frames to predict, False for context

    @property
    def predicted(self) -> tuple[int, ...]:
        """The frames to predict, in time order."""
        return tuple(t for t, key in zip(self.indices, self.key, strict=True) if key)

    @property
    def context(self) -> tuple[int, ...]:
        """The context frames; they repeat if there are too few frames."""
        return tuple(t for t, key in zip(self.indices, self.key, strict=True) if not key)


def window_indices(length: int, window: Window) -> list[Span]:
    """Cut a video of `length` frames into clips, so that every frame is predicted at least once, unless `spread`.

    Every clip has `window.length` frames to predict, or the whole video if it is shorter. The last
    clip starts earlier if needed, so that it ends with the video. Context frames are the middles of
    equal parts of the video or, if `window.causal`, of the part before the clip; the first frame if
    that part is empty.

    Example:
        >>> from tubelet.core.protocol import Window
        >>> from tubelet.video.windows import window_indices
        >>> [span.indices for span in window_indices(7, Window(length=3, stride=2))]
        [(0, 1, 2), (2, 3, 4), (4, 5, 6)]
    """
    spans = []
    for predicted in _predicted(length, window):
        context_end = predicted[0] if window.causal else length
        context = _context(context_end, window.context)
        key = (False,) * len(context) + (True,) * len(predicted)
        spans.append(Span((*context, *predicted), key))
    return spans


def windows(video: Video, window: Window) -> Iterator[Clip]:
    """Decode the clips of a video one after another, in time order, without its ground truth.

    Unless `window.spread`, the frames to predict are decoded once, without seeking. Raises InputError
    if decoding ends before the length of the video.

    Example:
        >>> from tubelet.core.protocol import Window
        >>> from tubelet.video.reader import open_video
        >>> from tubelet.video.windows import windows
        >>> video = open_video(np.zeros((5, 4, 6, 3), np.uint8))
        >>> [clip.index.tolist() for clip in windows(video, Window(length=3, stride=2))]
        [[0, 1, 2], [2, 3, 4]]
    """
    decoded = enumerate(video.frames)
    predicted: dict[int, Tensor] = {}
    context: dict[int, Tensor] = {}
    for span in window_indices(len(video), window):
        if window.spread:
            predicted = {t: video.frames[t] for t in span.predicted}
        else:
            predicted = _advance(predicted, decoded, span.predicted, video)

        context = {t: context[t] if t in context else video.frames[t] for t in span.context}
        yield _clip(span, context | predicted)


def evenly(length: int, count: int) -> tuple[int, ...]:
    """Spread `count` different frame numbers over a video, from its first to its last frame.

    A single one is the middle frame. Returns all frames if the video has at most `count`.

    Example:
        >>> from tubelet.video.windows import evenly
        >>> evenly(length=10, count=4)
        (0, 3, 6, 9)
    """
    if count >= length:
        return tuple(range(length))
    if count == 1:
        return (length // 2,)

    steps = count - 1
    # round(part * (length - 1) / steps), halves up, in whole numbers
    return tuple((2 * part * (length - 1) + steps) // (2 * steps) for part in range(count))


def _advance(
    previous: dict[int, Tensor],
    decoded: Iterator[tuple[int, Tensor]],
    indices: tuple[int, ...],
    video: Video,
) -> dict[int, Tensor]:
    """The frames of the next clip: those that it shares with the previous one, and newly decoded ones."""
    first = indices[0]
    last = indices[-1]
    frames = {t: frame for t, frame in previous.items() if t >= first}
    while last not in frames:
        t, frame = next(decoded, (len(video), None))
        if frame is None:
            raise InputError(f"{video.id}: decoding ended before frame {last} of {len(video)}")
        frames[t] = frame
    return frames


def _clip(span: Span, frames: dict[int, Tensor]) -> Clip:
    images = [frames[t] for t in span.indices]
    return Clip(
        frames=images[0][None] if len(images) == 1 else torch.stack(images),  # a single frame is not copied
        index=torch.tensor(span.indices),
        key=torch.tensor(span.key),
    )


def _predicted(length: int, window: Window) -> Iterator[tuple[int, ...]]:
    """The frames to predict in each clip."""
    if length == 0:
        return

    size = min(window.length or length, length)
    if window.spread:
        yield evenly(length, size)
        return

    last_start = length - size
    for start in range(0, last_start, window.stride):
        yield tuple(range(start, start + size))
    yield tuple(range(last_start, length))


def _context(end: int, count: int) -> tuple[int, ...]:
    """The middles of `count` equal parts of frames 0 to end - 1; frame 0 if `end` is 0."""
    return tuple((2 * part + 1) * end // (2 * count) for part in range(count))
