"""Zip archives, read in place: nothing is unpacked to a disk, and no member grows beyond bounds."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from tubelet.core.errors import InputError
from tubelet.core.untrusted.files import check_file

LARGEST_MEMBER = 1 << 31  # bytes of one file in an archive
LARGEST_RATIO = 200  # unpacked over packed bytes, of members that are large
ALWAYS_FINE = 1 << 26  # unpacked bytes up to which the ratio is not asked for
MOST_MEMBERS = 2_000_000
LARGEST_ARCHIVE = 1 << 42  # bytes; frames of a whole data set may lie in one


def open_archive(path: str | Path) -> zipfile.ZipFile:
    """A zip archive to read members from; raises InputError where it is none, or its directory is damaged."""
    check_file(path, largest=LARGEST_ARCHIVE)
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory raises whatever the parser stumbles over
        raise InputError(f"{path}: not a zip archive that can be read ({_reason(error)})") from None
    if len(archive.infolist()) > MOST_MEMBERS:
        archive.close()
        raise InputError(f"{path}: expected at most {MOST_MEMBERS} files in an archive")
    return archive


def member_names(archive: zipfile.ZipFile) -> tuple[str, ...]:
    """The files of an archive, sorted; names that lead out of it are left out."""
    files = (info.filename for info in archive.infolist() if not info.is_dir())
    return tuple(sorted(name for name in files if _stays_inside(name)))


def read_member(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    """The bytes of a file in an archive; raises InputError, which names `where`, where it is broken or too large."""
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
    except Exception as error:  # broken streams raise zlib's errors, lying headers those of struct, and so on
        raise InputError(f"{where}: cannot be read from the archive ({_reason(error)})") from None


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
