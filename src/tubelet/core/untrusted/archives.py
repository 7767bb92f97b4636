"""Read files in zip archives, in memory, with limits on their unpacked sizes."""

from __future__ import annotations

import mmap
import zipfile
from pathlib import Path, PurePosixPath

from tubelet.core.errors import InputError
from tubelet.core.untrusted.files import check_file, exists, mapped

LARGEST_MEMBER = 1 << 31  # bytes of one file in an archive
LARGEST_RATIO = 200  # unpacked over packed bytes
ALWAYS_FINE = 1 << 26  # unpacked bytes up to which the ratio does not matter
MOST_MEMBERS = 2_000_000
LARGEST_ARCHIVE = 1 << 42  # bytes; an archive may contain the frames of a whole data set


def open_archive(path: str | Path) -> zipfile.ZipFile:
    """Open a zip archive for reading. Raises InputError if it is not one or its directory is damaged.

    Example:
        >>> import tempfile
        >>> import zipfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.archives import open_archive
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "frames.zip")
        ...     with zipfile.ZipFile(path, "w") as archive:
        ...         archive.writestr("dog/0.txt", "0")
        ...     with open_archive(path) as archive:
        ...         len(archive.infolist())
        1
    """
    check_file(path, largest=LARGEST_ARCHIVE)
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory makes the parser raise many types of errors
        raise InputError(f"{path}: not a zip archive that can be read ({_reason(error)})") from None
    if len(archive.infolist()) > MOST_MEMBERS:
        archive.close()
        raise InputError(f"{path}: expected at most {MOST_MEMBERS} files in an archive")
    return archive


def inside_archive(path: Path) -> tuple[Path, str] | None:
    """Split a path that leads into a zip archive into that of the archive and the name within; None for others.

    Example:
        >>> import tempfile
        >>> import zipfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.archives import inside_archive
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "set.zip")
        ...     zipfile.ZipFile(path, "w").close()
        ...     archive, name = inside_archive(path / "JPEGImages" / "dog")
        >>> archive.name, name
        ('set.zip', 'JPEGImages/dog')
    """
    for parent in path.parents:
        if parent.suffix.lower() == ".zip" and exists(parent) and not parent.is_dir():
            return parent, path.relative_to(parent).as_posix()
    return None


def read_anywhere(path: Path) -> bytes | mmap.mmap:
    """Map a file into memory, or read it from the zip archive that its path leads into.

    Raises InputError if it cannot be read.

    Example:
        >>> import tempfile
        >>> import zipfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.archives import read_anywhere
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "set.zip")
        ...     with zipfile.ZipFile(path, "w") as archive:
        ...         archive.writestr("train.json", "{}")
        ...     read_anywhere(path / "train.json")
        b'{}'
    """
    inside = inside_archive(path)
    if inside is None:
        return mapped(path)
    archive, name = inside
    with open_archive(archive) as file:
        return read_member(file, name, str(path))


def member_names(archive: zipfile.ZipFile) -> tuple[str, ...]:
    """List the files of an archive, sorted. Absolute names, names with ".." and empty ones are left out.

    Example:
        >>> import tempfile
        >>> import zipfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.archives import member_names, open_archive
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "frames.zip")
        ...     with zipfile.ZipFile(path, "w") as archive:
        ...         archive.writestr("dog/0.txt", "0")
        ...     with open_archive(path) as archive:
        ...         member_names(archive)
        ('dog/0.txt',)
    """
    names = archive.namelist()
    files = (name for name in names if name and not name.endswith("/"))  # is_dir() fails of an empty name
    return tuple(sorted(name for name in files if _stays_inside(name)))


def read_member(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    """Read a file of an archive.

    Raises InputError, with `where`, if it is missing, broken or too large.

    Example:
        >>> import tempfile
        >>> import zipfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.archives import open_archive, read_member
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "frames.zip")
        ...     with zipfile.ZipFile(path, "w") as archive:
        ...         archive.writestr("dog/0.txt", "0")
        ...     with open_archive(path) as archive:
        ...         read_member(archive, "dog/0.txt", "frames.zip/dog/0.txt")
        b'0'
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise InputError(f"{where}: no such file in the archive") from None

    if info.file_size > LARGEST_MEMBER:
        raise InputError(f"{where}: expected a file of at most {LARGEST_MEMBER} bytes, found {info.file_size}")
    if info.file_size > max(ALWAYS_FINE, LARGEST_RATIO * info.compress_size):
        packed = f"{info.compress_size} bytes that unpack to {info.file_size}"
        raise InputError(f"{where}: expected a file that shrinks by at most {LARGEST_RATIO}, found {packed}")

    try:
        with archive.open(info) as member:
            return member.read(info.file_size)
    except Exception as error:  # errors of zlib for broken streams, of struct for wrong headers, and others
        raise InputError(f"{where}: cannot be read from the archive ({_reason(error)})") from None


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
