"""A YouTube-VIS data set in memory, and how its videos and classes are numbered in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tubelet.core.errors import InputError
from tubelet.core.records import VideoSet

if TYPE_CHECKING:
    from torch import Tensor

    from tubelet.formats.files import Files


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedSet(VideoSet):
    """A data set that remembers how its file names things; videos and classes are in the order of their ids."""

    category_ids: tuple[int, ...]  # of each class
    names: tuple[str, ...]  # of each video: the folder of its frames, or what the file calls it
    subsets: tuple[str, ...] = ()  # of each video, where the file names any ("short", "long")
    occlusion: Mapping[tuple[str, int], float] = field(default_factory=dict)  # 0..0.75 of (video, track), OVIS


class Frames(Sequence["Tensor"]):
    """Frames of a video by file name, decoded when asked for; neither folder nor archive is looked for before."""

    def __init__(self, folders: tuple[Path, ...], files: tuple[str, ...], size: tuple[int, int], where: str) -> None:
        self.folders = folders  # where they may lie; the first that is there is taken
        self.files = files
        self.size = size
        self.where = where

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, t: Any) -> Any:
        return self.stored[t]

    @cached_property
    def stored(self) -> Sequence[Tensor]:
        """The files themselves; raises InputError where none of the folders is there."""
        from tubelet.formats.files import StoredFrames, clean_name  # brings torch

        found = next((folder for folder in self.folders if folder.exists()), None)
        if found is None:
            raise InputError(f"{self.where}: its frames are expected in {self.folders[0]}, which is not there")
        return StoredFrames(_opened(found), tuple(clean_name(name, self.where) for name in self.files), self.size)


@lru_cache(maxsize=16)
def _opened(path: Path) -> Files:
    from tubelet.formats.files import open_files

    return open_files(path)


def video_numbers(videos: VideoSet) -> list[int]:
    """The id that files use for each video: its own where all ids are numbers, else its position from 1."""
    return numbers_of([video.id for video in videos.videos])


def numbers_of(ids: Sequence[str]) -> list[int]:
    """Strings as numbers where each is one and stands for itself, else positions from 1."""
    digits = [name.removeprefix("-") for name in ids]
    if all(name.isascii() and name.isdigit() for name in digits):
        numbers = [int(name) for name in ids]
        if [str(number) for number in numbers] == list(ids):
            return numbers
    return list(range(1, len(ids) + 1))


def category_numbers(videos: VideoSet) -> tuple[int, ...]:
    """The id that files use for each class: its own where the set was read from a file, else its position from 1."""
    return videos.category_ids if isinstance(videos, AnnotatedSet) else tuple(range(1, len(videos.classes) + 1))


def video_names(videos: VideoSet) -> tuple[str, ...]:
    """What else each video is called: the folder of its frames."""
    return videos.names if isinstance(videos, AnnotatedSet) else tuple(video.id for video in videos.videos)
