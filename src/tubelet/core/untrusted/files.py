"""Regular files, read within a limit: where everything that comes from outside enters.

A path may be anything that a user, a JSON file or a listing names: missing, a folder, a pipe that nobody writes to, a
device without end, a name that no system takes. Each gives one InputError, at once.
"""

from __future__ import annotations

import io
import mmap
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tubelet.core.errors import FormatError, InputError

LARGEST = 1 << 32  # bytes of one file; more is refused before anything is read
LARGEST_TEXT = 1 << 28  # bytes of a file that is read as text
PATIENCE = 2.0  # seconds for a pipe's writer to come
_SIZELESS = 1 << 20  # bytes taken of a file whose size the system states as 0, as in /proc
_CHUNK = 1 << 20

Buffer = bytes | memoryview | mmap.mmap

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextmanager
def opened(path: str | Path, *, largest: int = LARGEST) -> Iterator[io.BufferedReader]:
    """A regular file, opened for reading. Raises InputError for anything else, also for errors while it is read.

    with opened("train.json") as file:
        head = file.read(1024)
    """
    check_file(path, largest=largest)
    with _explained(path), open(path, "rb") as file:
        yield file


def check_file(path: str | Path, *, largest: int = LARGEST) -> int:
    """The size of a regular file in bytes; raises InputError for anything else. For files that a library opens."""
    status = _status(path)
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "something else")
        raise InputError(f"{path}: expected a file, found {kind}")
    if status.st_size > largest:
        raise InputError(f"{path}: expected a file of at most {largest} bytes, found {status.st_size}")
    return status.st_size


def exists(path: str | Path) -> bool:
    """Whether anything is there; a name that no system takes is no error."""
    try:
        _status(path)
    except InputError:
        return False
    return True


def is_file(path: str | Path) -> bool:
    """Whether a regular file is there; a name that no system takes is no error."""
    return exists(path) and stat.S_ISREG(_status(path).st_mode)


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there; a name that no system takes is no error."""
    return exists(path) and stat.S_ISDIR(_status(path).st_mode)


def as_path(value: object, what: str) -> Path:
    """The value as a path; raises InputError, which says what it is for, for anything that cannot be one."""
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{what}: expected a path, got something of type {type(value).__name__}")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InputError(f"{what}: expected a path, got {text!r}")
    return Path(text)


def read(path: str | Path, *, largest: int = LARGEST) -> bytes:
    """All bytes of a regular file, or of a pipe that somebody writes to; raises InputError for anything else."""
    if stat.S_ISFIFO(_status(path).st_mode):
        return _read_pipe(path, largest)
    with opened(path, largest=largest) as file:
        return file.read(_size(file) or min(_SIZELESS, largest))


def mapped(path: str | Path, *, largest: int = LARGEST) -> bytes | mmap.mmap:
    """What `read` gives, mapped into memory where the system can do that, so that nothing is copied."""
    if stat.S_ISFIFO(_status(path).st_mode):
        return _read_pipe(path, largest)
    with opened(path, largest=largest) as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (ValueError, OSError):  # an empty file, or a file system that cannot map
            return file.read(_size(file) or min(_SIZELESS, largest))


def read_text(path: str | Path, *, largest: int = LARGEST_TEXT) -> str:
    """A file of text in UTF-8, with or without a byte order mark; raises FormatError for another encoding."""
    return decode_text(read(path, largest=largest), str(path))


def decode_text(data: bytes, where: str) -> str:
    """Bytes as text in UTF-8, without the byte order mark; raises FormatError, which names `where`."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        came = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"the byte {data[error.start]:#04x}"
        raise FormatError(f"{where}: expected text in UTF-8, found {came} (at byte {error.start})") from None


def _status(path: str | Path) -> os.stat_result:
    try:
        with _explained(path):
            return os.stat(path)
    except ValueError as error:  # a NUL, or letters that no file name can hold
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r}: not a file name") from None


def _size(file: io.BufferedReader) -> int:
    return os.fstat(file.fileno()).st_size


def _read_pipe(path: str | Path, largest: int) -> bytes:
    """Everything that is written to a pipe; raises InputError where no writer comes."""
    deadline = time.monotonic() + PATIENCE
    with _explained(path), open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        start = pipe.read(_CHUNK)
        while start == b"":  # without a writer, a pipe ends at once; with a silent one, it gives None
            if time.monotonic() > deadline:
                raise InputError(f"{path}: expected a file, found a pipe that nobody writes to")
            time.sleep(0.02)
            start = pipe.read(_CHUNK)
        os.set_blocking(pipe.fileno(), True)
        parts = [start or b""]
        size = len(parts[0])
        while part := pipe.read(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > largest:
                raise InputError(f"{path}: expected at most {largest} bytes from a pipe")
    return b"".join(parts)


@contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    """An error of the system becomes an InputError that names the path."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from None
