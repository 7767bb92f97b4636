"""The files of a data set: a folder or a zip archive, read in place, and images as lazy frames."""

from __future__ import annotations

import os
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
    """A data set departs from its format, but what it means is clear; the message counts how often.

    Example:
        >>> import warnings
        >>> from tubelet.formats.files import FormatWarning
        >>> warnings.simplefilter("error", FormatWarning)  # to be strict
    """


class Files(ABC):
    """A tree of files. Names are relative to its root, with forward slashes.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.files import open_files
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "00000.JPG").write_bytes(b"not an image")
        ...     files = open_files(folder)
        ...     files.names, files.find("00000.png"), files.read("00000.JPG")
        (('00000.JPG',), '00000.JPG', b'not an image')
    """

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
        """Read a file; raises InputError, which names it, if that fails."""

    def where(self, name: str) -> str:
        """Return what error messages call a file."""
        return str(self.path / name)

    def below(self, folder: str) -> tuple[str, ...]:
        """Return the files in a folder and its subfolders, sorted."""
        prefix = f"{folder}/" if folder else ""
        return tuple(name for name in self.names if name.startswith(prefix))

    @abstractmethod
    def find(self, name: str) -> str | None:
        """Return the name if it exists, else the only one in its folder that differs in case or image suffix.

        None if there is no such file, or if there are several.
        """


class Folder(Files):
    """A folder on disk.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.formats.files import Folder
        >>> Folder(Path("images")).where("dog.jpg")
        'images/dog.jpg'
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._listed: dict[str, tuple[str, ...]] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        paths = []
        for root, _, names in os.walk(self.path):
            folder = Path(root).relative_to(self.path)
            paths += [(folder / name).as_posix() for name in names if name[0] != "."]
        return tuple(sorted(paths))

    def find(self, name: str) -> str | None:
        if files.is_file(self.path / name):
            return name
        folder = str(PurePosixPath(name).parent)
        return _similar(name, self._directly_in(folder))

    def _directly_in(self, folder: str) -> tuple[str, ...]:
        # `names` would walk through the whole data set, which takes minutes on some disks
        if folder not in self._listed:
            path = self.path / folder
            names = sorted(entry.name for entry in path.iterdir() if entry.is_file()) if files.is_folder(path) else []
            self._listed[folder] = tuple(str(PurePosixPath(folder) / name) for name in names)
        return self._listed[folder]

    def read(self, name: str) -> bytes:
        return files.read(self.path / name)


class Archive(Files):
    """A zip archive, or a folder within one.

    Each process opens it anew, so that loader workers do not share a file position.

    Example:
        >>> import tempfile, zipfile
        >>> from pathlib import Path
        >>> from tubelet.formats.files import Archive
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "images.zip")
        ...     with zipfile.ZipFile(path, "w") as file:
        ...         file.writestr("dog/00000.jpg", b"not an image")
        ...     Archive(path).below("dog")
        ('dog/00000.jpg',)
    """

    def __init__(self, path: Path, folder: str = "") -> None:
        super().__init__(path / folder)
        self.archive = path
        self.prefix = f"{folder}/" if folder else ""
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        members = archives.member_names(self._zip())
        inside = (name.removeprefix(self.prefix) for name in members if name.startswith(self.prefix))
        return tuple(name for name in inside if not name.startswith("__MACOSX/"))

    def find(self, name: str) -> str | None:
        if name in self._members:
            return name
        folder = str(PurePosixPath(name).parent)
        return _similar(name, self.below(folder))

    @cached_property
    def _members(self) -> frozenset[str]:
        return frozenset(self.names)

    def read(self, name: str) -> bytes:
        return archives.read_member(self._zip(), self.prefix + name, self.where(name))

    def check(self) -> None:
        """Raise InputError if this is not a zip archive."""
        self._zip()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _zip(self) -> zipfile.ZipFile:
        process = os.getpid()
        if self._opened is None or self._opened[0] != process:
            self._opened = (process, archives.open_archive(self.archive))
        return self._opened[1]


def open_files(path: str | Path) -> Files:
    """Open a folder, a zip archive or a folder within one; raises InputError for anything else.

    Example:
        >>> import tempfile
        >>> from tubelet.formats.files import open_files
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     open_files(folder).names
        ()
    """
    path = Path(path)
    if path.is_dir():
        return Folder(path)
    inside = archives.inside_archive(path)
    if inside is not None:
        part = Archive(*inside)
        if part.names:
            return part
        raise InputError(f"{path}: no such folder in the archive")
    if not files.exists(path):
        raise InputError(f"{path}: no such folder or zip archive")

    archive = Archive(path)
    try:
        archive.check()
    except InputError as error:
        raise InputError(f"{error}; expected a folder or a zip archive") from None
    return archive


def open_inner(path: str | Path, is_mark: Callable[[str], bool]) -> Files:
    """Open a folder or archive, or the only folder in it, if a file of its format is there.

    An archive that was made of a folder holds that folder.

    Args:
        path: The folder or archive.
        is_mark: Whether a file of this name is at the top of data sets of the format.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.files import open_inner
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "set").mkdir()
        ...     _ = Path(folder, "set", "data.yaml").write_text("names: [dog]")
        ...     open_inner(folder, lambda name: name == "data.yaml").names
        ('data.yaml',)
    """
    files = open_files(path)
    names = [PurePosixPath(name) for name in files.names]
    tops = {name.parts[0] for name in names}
    is_inside = any(len(name.parts) == 2 and is_mark(name.name) for name in names)
    return open_files(Path(path) / tops.pop()) if is_inside and len(tops) == 1 else files


class StoredFrames(LazyFrames):
    """Images in a folder or archive as frames, uint8 [3, H, W] RGB, each decoded when it is used.

    Images are not rotated by their EXIF orientation, because annotations count stored pixels;
    unless only the rotated image has the right size. Reading raises InputError, which names the
    file. If names differ from those on disk in case or suffix, the files are found, with one
    warning that counts them.

    Args:
        files: The folder or archive.
        names: The image of each frame.
        size: Height and width that every image must have.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tubelet.formats.files import StoredFrames, open_files
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (6, 4)).save(Path(folder, "00000.png"))
        ...     StoredFrames(open_files(folder), ["00000.png"], size=(4, 6))[0].shape
        torch.Size([3, 4, 6])
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
        """Return the name of frame t's file on disk."""
        return self.files.find(self.names[t]) or self.names[t]

    def _rename(self) -> int:
        """Replace names by those on disk; return how many differ."""
        names = tuple(self.files.find(name) or name for name in self.names)
        changed = [(old, new) for old, new in zip(self.names, names, strict=True) if old != new]
        if changed:
            old, new = changed[0]
            warnings.warn(
                f"{self.files}: {len(changed)} of {len(names)} frames are there under another name, "
                f"such as {new} for {old}",
                FormatWarning,
                stacklevel=2,
            )
        self.names = names
        return len(changed)


def clean_name(name: Any, where: str) -> str:
    """Check a file name from a file, and replace backslashes by slashes.

    Raises FormatError if it is not a name or leads out of its folder.

    Example:
        >>> from tubelet.formats.files import clean_name
        >>> clean_name("dog\\\\00000.jpg", "train.json")
        'dog/00000.jpg'
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise FormatError(f"{where}: expected a file name, got {name!r}")

    relative = PurePosixPath(name.replace("\\", "/"))
    if not relative.parts:
        raise FormatError(f"{where}: expected a file name, got {name!r}")
    if relative.is_absolute() or ".." in relative.parts or ":" in relative.parts[0]:
        raise FormatError(f"{where}: the file name {name!r} leads out of its folder")
    return str(relative)


def check_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Check height and width from a file.

    Raises FormatError unless both are positive integers and their product is supported.

    Example:
        >>> from tubelet.formats.files import check_size
        >>> check_size(4, 6, "train.json")
        (4, 6)
    """
    for side in (height, width):
        if not isinstance(side, int) or isinstance(side, bool) or side <= 0:
            raise FormatError(f"{where}: expected height and width as positive integers, got {height!r} and {width!r}")
    if height * width > MAX_PIXELS:
        raise FormatError(f"{where}: {width}x{height} pixels are more than are supported")
    return height, width


def is_image(name: str) -> bool:
    """Whether the name has the suffix of an image, in lower or upper case.

    Example:
        >>> from tubelet.formats.files import is_image
        >>> is_image("dog.JPG"), is_image("dog.txt")
        (True, False)
    """
    return PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS


def _similar(name: str, others: Sequence[str]) -> str | None:
    """The only other name that differs in case or image suffix alone; None if there are none or several."""
    matches = [other for other in others if _normalised(other) == _normalised(name)]
    return matches[0] if len(matches) == 1 else None


def _normalised(name: str) -> str:
    """The name in lower case, without an image suffix."""
    path = PurePosixPath(name.lower())
    return str(path.with_suffix("")) if path.suffix in IMAGE_ENDINGS else str(path)
