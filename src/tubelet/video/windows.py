"""Video x Window -> Clips: online, clip by clip, whole and spread are one loop over lists of frame numbers.

Clips are decoded in order and only the frames of the current one are held, so memory does not grow with the video.
Context frames lie elsewhere; they come first in their clip and are read by random access.
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
    """One clip as frame numbers: context first, then the frames to predict."""

    indices: tuple[int, ...]
    key: tuple[bool, ...]  # predict these; the others are context

    @property
    def predicted(self) -> tuple[int, ...]:
        """The frames to predict, in order of time."""
        return tuple(t for t, key in zip(self.indices, self.key, strict=True) if key)

    @property
    def context(self) -> tuple[int, ...]:
        """The context frames; a short video or past repeats some."""
        return tuple(t for t, key in zip(self.indices, self.key, strict=True) if not key)


def window_indices(length: int, window: Window) -> list[Span]:
    """How a window cuts a video of `length` frames: every frame is predicted at least once, unless `spread`.

    All clips have `window.length` frames; the last one is moved back so that it ends with the video, and only a video
    that is shorter gives a shorter clip. Context frames lie at the middles of equal parts of the video, or of what is
    before the clip where `causal` (the first frame where there is nothing before).
    """
    spans = []
    for predicted in _predicted(length, window):
        context = _context(predicted[0] if window.causal else length, window.context)
        key = (False,) * len(context) + (True,) * len(predicted)
        spans.append(Span((*context, *predicted), key))
    return spans


def windows(video: Video, window: Window) -> Iterator[Clip]:
    """Clips of a video without truth, in order of time, decoded while iterating.

    Sequential windows decode the video once, without seeking. Raises InputError where decoding ends before the length
    that the video claims.
    """
    decoded = enumerate(video.frames)
    held: dict[int, Tensor] = {}
    support: dict[int, Tensor] = {}
    for span in window_indices(len(video), window):
        if window.spread:
            held = {t: video.frames[t] for t in span.predicted}
        else:
            held = _advance(held, decoded, span.predicted, video)
        support = {t: support[t] if t in support else video.frames[t] for t in span.context}
        yield _clip(span, support | held)


def evenly(length: int, count: int) -> tuple[int, ...]:
    """`count` different frame numbers, spread over a video from its first to its last frame; one alone is the middle.

    All of them where the video has no more than `count`.
    """
    if count >= length:
        return tuple(range(length))
    if count == 1:
        return (length // 2,)
    return tuple((2 * part * (length - 1) + count - 1) // (2 * (count - 1)) for part in range(count))


def _advance(
    held: dict[int, Tensor], decoded: Iterator[tuple[int, Tensor]], wanted: tuple[int, ...], video: Video
) -> dict[int, Tensor]:
    """The frames of the next clip: those held already that it shares, and the following ones, decoded."""
    held = {t: frame for t, frame in held.items() if t >= wanted[0]}
    while wanted[-1] not in held:
        t, frame = next(decoded, (len(video), None))
        if frame is None:
            raise InputError(f"{video.id}: decoding ended before frame {wanted[-1]} of {len(video)}")
        held[t] = frame
    return held


def _clip(span: Span, frames: dict[int, Tensor]) -> Clip:
    chosen = [frames[t] for t in span.indices]
    return Clip(
        frames=chosen[0][None] if len(chosen) == 1 else torch.stack(chosen),  # online, nothing is copied
        index=torch.tensor(span.indices),
        key=torch.tensor(span.key),
    )


def _predicted(length: int, window: Window) -> Iterator[tuple[int, ...]]:
    size = min(window.length or length, length)
    if length == 0:
        return
    if window.spread:
        yield evenly(length, size)
        return
    last = length - size
    for start in range(0, last, window.stride):
        yield tuple(range(start, start + size))
    yield tuple(range(last, length))


def _context(end: int, count: int) -> tuple[int, ...]:
    """The middles of `count` equal parts of frames 0 .. end-1; frame 0 where there are none."""
    return tuple((2 * part + 1) * end // (2 * count) for part in range(count))
