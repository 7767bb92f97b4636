"""A part of a video: from one time to another, and every n-th frame of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from tubelet.core.arguments import not_negative, whole_between
from tubelet.core.errors import ConfigError
from tubelet.core.masks.sparse import FRAME, SparseMasks
from tubelet.core.types import Track, Video
from tubelet.video.frames import LazyFrames

Stamped = tuple[float, Tensor]  # seconds, uint8 [3, H, W] RGB


def trim(video: Video, *, start: float | None = None, end: float | None = None, every: int = 1) -> Video:
    """Return every `every`-th frame from `start` up to, not including, `end` (seconds).

    Frames keep their times in the whole video; tracks of the truth are cut alike. Raises ConfigError
    if no frame is left.

    Example:
        >>> from tubelet.video.trimming import trim
        >>> video = tubelet.open_video(np.zeros((10, 4, 6, 3), np.uint8), fps=10)
        >>> trim(video, start=0.2, end=0.8, every=2).times
        (0.2, 0.4, 0.6)
    """
    every, first, last = checked_part(start, end, every)
    if (start, end, every) == (None, None, 1):
        return video

    times = [video.time(t) for t in range(len(video))]
    inside = [t for t, time in enumerate(times) if first <= time and (last is None or time < last)]
    if not inside:
        ends = times[-1] + 1 / video.fps
        raise ConfigError(f"{video.id}: no frame from {first:g} s on, the video ends at {ends:.2f} s")

    kept = range(inside[0], inside[-1] + 1, every)
    return replace(picked(video, kept), fps=video.fps / every)


def picked(video: Video, frames: Sequence[int]) -> Video:
    """Return some frames of a video, numbers ascending; frames keep their times, and tracks are cut alike.

    Example:
        >>> from tubelet.video.trimming import picked
        >>> video = tubelet.open_video(np.zeros((10, 4, 6, 3), np.uint8), fps=10)
        >>> picked(video, [0, 7]).times
        (0.0, 0.7)
    """
    places = {t: place for place, t in enumerate(frames)}
    return replace(
        video,
        frames=_SomeFrames(video.frames, frames),
        times=tuple(video.time(t) for t in frames),
        tracks=None if video.tracks is None else tuple(_cut(track, places) for track in video.tracks),
    )


def part_of(
    frames: Iterable[Stamped], *, start: float | None = None, end: float | None = None, every: int = 1
) -> Iterator[Stamped]:
    """The same of frames that come one by one, (seconds, image) each; ends with the first frame after `end`.

    Example:
        >>> from tubelet.video.trimming import part_of
        >>> frames = [(t / 10, torch.zeros(3, 4, 6, dtype=torch.uint8)) for t in range(10)]
        >>> [time for time, _ in part_of(frames, start=0.2, end=0.8, every=2)]
        [0.2, 0.4, 0.6]
    """
    every, first, last = checked_part(start, end, every)
    count = 0
    for time, image in frames:
        if last is not None and time >= last:
            return
        if time < first:
            continue
        if count % every == 0:
            yield time, image
        count += 1


def checked_part(start: float | None, end: float | None, every: int) -> tuple[int, float, float | None]:
    """Check a part: its step, and the seconds at which it starts and ends (None: with the video).

    Raises ConfigError for a negative time, an end before the start, or a step under 1.

    Example:
        >>> from tubelet.video.trimming import checked_part
        >>> checked_part(None, 4, 2)
        (2, 0.0, 4.0)
    """
    every = whole_between("every", every, 1)
    first = 0.0 if start is None else not_negative("start", start)
    last = None if end is None else not_negative("end", end)
    if last is not None and last <= first:
        raise ConfigError(f"end: expected a time after the start ({first:g} s), got {last:g} s")
    return every, first, last


def _cut(track: Track, places: Mapping[int, int]) -> Track:
    """A track in some frames of its video, which get new numbers."""
    kept = [(places[t], rle) for t, rle in track.entries.items() if t in places]
    frames = np.array([place for place, _ in kept], FRAME)
    return replace(track, rles=SparseMasks(len(places), frames, tuple(rle for _, rle in kept)))


class _SomeFrames(LazyFrames):
    """Some frames of a video."""

    def __init__(self, frames: Sequence[Tensor], kept: Sequence[int]) -> None:
        self._frames = frames
        self._kept = kept

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, t: int) -> Tensor:
        return self._frames[self._kept[t]]
