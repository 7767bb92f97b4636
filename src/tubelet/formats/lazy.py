"""Sequences whose videos are made when they are used."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import copy
from typing import Generic, Self, TypeVar, overload

from tubelet.core.types import Video

Entry = TypeVar("Entry")


class LazyVideos(Sequence[Video], Generic[Entry]):
    """A sequence of videos, each made from a small entry when it is used; slices are lazy too.

    A subclass implements `make`. The last `cache_size` videos are cached: their masks are encoded
    and their frames lazy, so they need little memory.

    Example:
        >>> from tubelet.formats.lazy import LazyVideos
        >>> class Blank(LazyVideos[str]):
        ...     def make(self, entry):
        ...         return tubelet.Video(id=entry, size=(4, 6), frames=[None])
        >>> [video.id for video in Blank(["dog", "cat", "bird"])[1:]]
        ['cat', 'bird']
    """

    cache_size = 0  # videos

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self._cache: OrderedDict[int, Video] = OrderedDict()

    @abstractmethod
    def make(self, entry: Entry) -> Video:
        """Make the video of one entry."""

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, n: int) -> Video: ...
    @overload
    def __getitem__(self, n: slice) -> Self: ...
    def __getitem__(self, n: int | slice) -> Video | Self:
        if isinstance(n, slice):
            part = copy(self)
            part.entries = self.entries[n]
            part._cache = OrderedDict()
            return part

        n = range(len(self))[n]
        if n in self._cache:
            return self._cache[n]

        video = self.make(self.entries[n])
        if self.cache_size:
            self._cache[n] = video
            if len(self._cache) > self.cache_size:
                self._cache.popitem(last=False)
        return video


class MappedVideos(LazyVideos[int]):
    """The videos of another sequence, each changed by a function when it is used.

    Example:
        >>> from dataclasses import replace
        >>> from tubelet.formats.lazy import MappedVideos
        >>> videos = [tubelet.Video(id="dog", size=(4, 6), frames=[None])]
        >>> MappedVideos(videos, lambda video: replace(video, fps=5.0))[0].fps
        5.0
    """

    def __init__(self, videos: Sequence[Video], change: Callable[[Video], Video]) -> None:
        super().__init__(range(len(videos)))
        self.videos = videos
        self.change = change

    def make(self, entry: int) -> Video:
        return self.change(self.videos[entry])


class JoinedVideos(LazyVideos[tuple[int, int]]):
    """Several sequences of videos, one after another.

    Example:
        >>> from tubelet.formats.lazy import JoinedVideos
        >>> dog, cat = (tubelet.Video(id=name, size=(4, 6), frames=[None]) for name in ("dog", "cat"))
        >>> [video.id for video in JoinedVideos([dog], [cat, dog])]
        ['dog', 'cat', 'dog']
    """

    def __init__(self, *parts: Sequence[Video]) -> None:
        super().__init__([(part, n) for part, videos in enumerate(parts) for n in range(len(videos))])
        self.parts = parts

    def make(self, entry: tuple[int, int]) -> Video:
        part, n = entry
        return self.parts[part][n]
