"""Files as data sets hold them: a folder or a zip archive read in place, JSON, and images decoded when asked for."""

from __future__ import annotations

import os
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from tubelet.core.errors import FormatError, InputError
from tubelet.core.masks import MAX_PIXELS
from tubelet.core.untrusted import archives, files, images
from tubelet.video.frames import LazyFrames

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


class FormatWarning(UserWarning):
    """Something in a data set is odd, but its meaning is certain; the message counts how often."""


class Files(ABC):
    """A tree of files under names with forward slashes, relative to its root. `str(files)` says where it is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @cached_property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """All files, sorted."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of a file; raises InputError, which names it, where that cannot be."""

    def where(self, name: str) -> str:
        """How messages call a file."""
        return str(self.path / name)

    def below(self, folder: str) -> tuple[str, ...]:
        """The files in a folder and its subfolders."""
        prefix = f"{folder}/" if folder else ""
        return tuple(name for name in self.names if name.startswith(prefix))

    @abstractmethod
    def find(self, name: str) -> str | None:
        """The file itself, or else the only one beside it that differs in letters' case or an image's ending."""


class Folder(Files):
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._listed: dict[str, tuple[str, ...]] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        found = (Path(root, name) for root, _, names in os.walk(self.path) for name in names if name[0] != ".")
        return tuple(sorted(path.relative_to(self.path).as_posix() for path in found))

    def find(self, name: str) -> str | None:
        if (self.path / name).is_file():
            return name
        return _alike(name, self._beside(str(PurePosixPath(name).parent)))

    def _beside(self, folder: str) -> tuple[str, ...]:
        # only the one folder is listed: walking through a whole data set takes minutes on some disks
        if folder not in self._listed:
            place = self.path / folder
            entries = sorted(entry.name for entry in place.iterdir() if entry.is_file()) if place.is_dir() else []
            self._listed[folder] = tuple(str(PurePosixPath(folder) / name) for name in entries)
        return self._listed[folder]

    def read(self, name: str) -> bytes:
        return files.read(self.path / name)


class Archive(Files):
    """A zip archive. Each process opens it for itself, so that loader workers do not share a file position."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in archives.member_names(self._zip()) if not name.startswith("__MACOSX/"))

    def find(self, name: str) -> str | None:
        return name if name in self._members else _alike(name, self.below(str(PurePosixPath(name).parent)))

    @cached_property
    def _members(self) -> frozenset[str]:
        return frozenset(self.names)

    def read(self, name: str) -> bytes:
        return archives.read_member(self._zip(), name, self.where(name))

    def check(self) -> None:
        """Raise InputError where this is no zip archive."""
        self._zip()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _zip(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), archives.open_archive(self.path))
        return self._opened[1]


def open_files(path: str | Path) -> Files:
    """A folder or a zip archive as a tree of files; raises InputError for anything else."""
    path = Path(path)
    if path.is_dir():
        return Folder(path)
    if not files.exists(path):
        raise InputError(f"{path}: no such folder or zip archive")
    archive = Archive(path)
    try:
        archive.check()
    except InputError as error:
        raise InputError(f"{error}; expected a folder or a zip archive") from None
    return archive


class StoredFrames(LazyFrames):
    """Images of a tree of files as frames, uint8 [3, H, W] RGB, all of `size` (height, width).

    Images are taken as stored, because annotations count pixels before any rotation that a camera noted; where only
    the rotated image has the right size, that is taken. Reading raises InputError, which names the file; but images
    that are there under another ending or case of letters are taken, with one warning that counts them.
    """

    def __init__(self, files: Files, names: Sequence[str], size: tuple[int, int]) -> None:
        self.files = files
        self.names = tuple(names)
        self.size = size

    def __len__(self) -> int:
        return len(self.names)

    def read(self, t: int) -> Tensor:
        try:
            data = self.files.read(self.names[t])
        except InputError:
            if self._rename() == 0:
                raise
            data = self.files.read(self.names[t])
        image = images.decode_rgb(data, self.files.where(self.names[t]), size=self.size)
        return torch.from_numpy(image).permute(2, 0, 1)

    def stored_name(self, t: int) -> str:
        """The name of frame t's file as it is on disk."""
        return self.files.find(self.names[t]) or self.names[t]

    def _rename(self) -> int:
        """Take the names as they are on disk; how many were not."""
        found = tuple(self.files.find(name) or name for name in self.names)
        changed = [(name, other) for name, other in zip(self.names, found, strict=True) if name != other]
        if changed:
            example = f"{changed[0][1]} for {changed[0][0]}"
            warnings.warn(
                f"{self.files}: {len(changed)} of {len(found)} frames are there under another name, such as {example}",
                FormatWarning,
                stacklevel=2,
            )
        self.names = found
        return len(changed)


def clean_name(name: Any, where: str) -> str:
    """A file name from a file, with forward slashes whatever system wrote it.

    Raises FormatError for what is no name, or one that leads out of its folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise FormatError(f"{where}: expected a file name, got {name!r}")
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or ":" in relative.parts[0]:
        raise FormatError(f"{where}: the file name {name!r} leads out of its folder")
    return str(relative)


def check_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Height and width from a file; raises FormatError unless both are positive integers of a sane product."""
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in (height, width)):
        raise FormatError(f"{where}: expected height and width as positive integers, got {height!r} and {width!r}")
    if height * width > MAX_PIXELS:
        raise FormatError(f"{where}: {width}x{height} pixels are more than are supported")
    return height, width


def is_image(name: str) -> bool:
    """Whether the name ends as images do, in any case of letters."""
    return PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS


def _alike(name: str, others: Sequence[str]) -> str | None:
    found = [other for other in others if _plain(other) == _plain(name)]
    return found[0] if len(found) == 1 else None


def _plain(name: str) -> str:
    """What names that mean the same image have in common."""
    path = PurePosixPath(name.lower())
    return str(path.with_suffix("")) if path.suffix in IMAGE_ENDINGS else str(path)
