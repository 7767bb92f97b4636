"""A YouTube-VIS data set in memory, and the ids of its videos and classes in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tubelet.core.errors import InputError
from tubelet.core.records import VideoSet
from tubelet.core.untrusted.archives import inside_archive
from tubelet.core.untrusted.files import exists

if TYPE_CHECKING:
    from torch import Tensor

    from tubelet.formats.files import Files


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedSet(VideoSet):
    """A data set with the ids and names of its file; videos and classes are sorted by id.

    Example:
        >>> from tubelet.formats.ytvis import AnnotatedSet
        >>> AnnotatedSet(videos=(), classes=("dog",), category_ids=(7,), names=()).category_ids
        (7,)
    """

    category_ids: tuple[int, ...]  # of each class
    names: tuple[str, ...]  # of each video: its name in the file, else the folder of its frames
    subsets: tuple[str, ...] = ()  # of each video ("short", "long"), if the file gives any
    # OVIS: (video id, track id) -> how occluded the object is, 0 to 0.75
    occlusion: Mapping[tuple[str, int], float] = field(default_factory=dict)


class Frames(Sequence["Tensor"]):
    """The frames of a video by file name, uint8 [3, H, W] each; files are opened at the first use.

    Of the folders, the first that has the first frame is used, or `beside`, that of the JSON file, if it has it.
    Raises InputError at the first use if no folder is there.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.formats.ytvis.numbering import Frames
        >>> frames = Frames((Path("JPEGImages"),), ("dog/00000.jpg", "dog/00001.jpg"), (4, 6), "video 1")
        >>> len(frames)
        2
    """

    def __init__(
        self,
        folders: tuple[Path, ...],
        files: tuple[str, ...],
        size: tuple[int, int],
        where: str,
        beside: Path | None = None,
    ) -> None:
        self.folders = folders
        self.files = files
        self.size = size
        self.where = where  # for error messages
        self.beside = beside

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, t: Any) -> Any:
        return self.stored[t]

    @cached_property
    def stored(self) -> Sequence[Tensor]:
        """The frames in their folder or archive; raises InputError if there is none."""
        from tubelet.formats.files import StoredFrames, clean_name  # imports torch

        names = tuple(clean_name(name, self.where) for name in self.files)
        usual = [folder for folder in self.folders if _has_files(folder)]
        possible = usual if self.beside is None else [*usual, self.beside]
        folder = next((folder for folder in possible if names and _opened(folder).find(names[0])), None)
        if folder is None and not usual:
            raise InputError(f"{self.where}: its frames are expected in {self.folders[0]}, which is not there")
        return StoredFrames(_opened(folder or usual[0]), names, self.size)


def _has_files(folder: Path) -> bool:
    """Whether there is such a folder or archive, on the disk or within an archive."""
    if inside_archive(folder) is None:
        return exists(folder)
    try:
        _opened(folder)
    except InputError:
        return False
    return True


@lru_cache(maxsize=16)
def _opened(path: Path) -> Files:
    from tubelet.formats.files import open_files

    return open_files(path)


def video_numbers(videos: VideoSet) -> list[int]:
    """Return the id of each video in files: its own if all ids are integers, else its position from 1.

    Example:
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats.ytvis.numbering import video_numbers
        >>> videos = [tubelet.Video(id=name, size=(4, 6), frames=[None]) for name in ("dog", "cat")]
        >>> video_numbers(VideoSet(videos=videos, classes=()))
        [1, 2]
    """
    return numbers_of([video.id for video in videos.videos])


def numbers_of(ids: Sequence[str]) -> list[int]:
    """Convert ids to integers if all are integers in plain notation, else return positions from 1.

    Example:
        >>> from tubelet.formats.ytvis.numbering import numbers_of
        >>> numbers_of(["7", "9"]), numbers_of(["007", "9"])
        ([7, 9], [1, 2])
    """
    digits = [name.removeprefix("-") for name in ids]
    if all(name.isascii() and name.isdigit() for name in digits):
        numbers = [int(name) for name in ids]
        if [str(number) for number in numbers] == list(ids):
            return numbers
    return list(range(1, len(ids) + 1))


def category_numbers(videos: VideoSet) -> tuple[int, ...]:
    """Return the id of each class in files: as read, if the set was read from a file, else from 1.

    Example:
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats.ytvis.numbering import category_numbers
        >>> category_numbers(VideoSet(videos=(), classes=("dog", "cat")))
        (1, 2)
    """
    if isinstance(videos, AnnotatedSet):
        return videos.category_ids
    return tuple(range(1, len(videos.classes) + 1))


def video_names(videos: VideoSet) -> tuple[str, ...]:
    """Return the name of each video in its file, or its id if the set was not read from a file.

    Example:
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats.ytvis.numbering import video_names
        >>> video_names(VideoSet(videos=[tubelet.Video(id="dog", size=(4, 6), frames=[None])], classes=()))
        ('dog',)
    """
    if isinstance(videos, AnnotatedSet):
        return videos.names
    return tuple(video.id for video in videos.videos)
