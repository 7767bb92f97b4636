"""Sequences of videos that are made on access, not when the sequence is built."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import copy
from typing import Generic, Self, TypeVar, overload

from tubelet.core.types import Video

Entry = TypeVar("Entry")


class LazyVideos(Sequence[Video], Generic[Entry]):
    """A sequence that stores one small entry per video; a subclass makes the video of an entry in `make`.

    Slices are lazy too. The last `cache_size` videos made are cached, which costs little memory: their masks are
    run-length encoded and their frames are lazy.

    >>> from tubelet.formats.lazy import LazyVideos
    >>> class Blank(LazyVideos[str]):
    ...     cache_size = 2
    ...     def make(self, entry):
    ...         return tubelet.Video(id=entry, size=(8, 8), frames=[None] * 3)
    >>> videos = Blank(["cat", "dog", "fox"])
    >>> videos[-1].id, len(videos[1:])
    ('fox', 2)
    >>> videos[0] is videos[0]  # from the cache
    True
    """

    cache_size = 0  # number of videos

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
    """The videos of another sequence, each passed through `change` on access.

    >>> from dataclasses import replace
    >>> from tubelet.formats.lazy import MappedVideos
    >>> video = tubelet.Video(id="dog", size=(8, 8), frames=[None] * 3)
    >>> MappedVideos([video], lambda video: replace(video, fps=5.0))[0].fps
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

    >>> from tubelet.formats.lazy import JoinedVideos
    >>> cat = tubelet.Video(id="cat", size=(8, 8), frames=[None] * 3)
    >>> dog = tubelet.Video(id="dog", size=(8, 8), frames=[None] * 3)
    >>> [video.id for video in JoinedVideos([cat], [dog, cat])]
    ['cat', 'dog', 'cat']
    """

    def __init__(self, *parts: Sequence[Video]) -> None:
        super().__init__([(part, n) for part, videos in enumerate(parts) for n in range(len(videos))])
        self.parts = parts

    def make(self, entry: tuple[int, int]) -> Video:
        part, n = entry
        return self.parts[part][n]
