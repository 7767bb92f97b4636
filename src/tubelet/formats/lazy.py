"""Sequences of videos that are made when asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import copy
from typing import Generic, Self, TypeVar, overload

from tubelet.core.types import Video

Entry = TypeVar("Entry")


class LazyVideos(Sequence[Video], Generic[Entry]):
    """One entry per video, as light as a file's own words; a subclass makes the video of an entry. Slices are lazy.

    The latest `kept` videos are remembered: their masks are encoded and their frames lazy, so they weigh little.
    """

    kept = 0

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self._made: OrderedDict[int, Video] = OrderedDict()

    @abstractmethod
    def make(self, entry: Entry) -> Video:
        """The video of one entry."""

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, n: int) -> Video: ...
    @overload
    def __getitem__(self, n: slice) -> Self: ...
    def __getitem__(self, n: int | slice) -> Video | Self:
        if isinstance(n, slice):
            part = copy(self)
            part.entries, part._made = self.entries[n], OrderedDict()
            return part
        n = range(len(self))[n]
        if n in self._made:
            return self._made[n]
        video = self.make(self.entries[n])
        if self.kept:
            self._made[n] = video
            if len(self._made) > self.kept:
                self._made.popitem(last=False)
        return video


class MappedVideos(LazyVideos[int]):
    """Videos of another sequence, each changed when it is asked for."""

    def __init__(self, videos: Sequence[Video], change: Callable[[Video], Video]) -> None:
        super().__init__(range(len(videos)))
        self.videos, self.change = videos, change

    def make(self, entry: int) -> Video:
        return self.change(self.videos[entry])


class JoinedVideos(LazyVideos[tuple[int, int]]):
    """Several sequences of videos, one after another."""

    def __init__(self, *parts: Sequence[Video]) -> None:
        super().__init__([(part, n) for part, videos in enumerate(parts) for n in range(len(videos))])
        self.parts = parts

    def make(self, entry: tuple[int, int]) -> Video:
        part, n = entry
        return self.parts[part][n]
