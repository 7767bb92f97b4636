"""Read regular files up to a size limit; all untrusted data is read with this module.

A path may be missing, a folder, a pipe that nobody writes to, an endless device or an invalid name.
Each of them raises an InputError at once.
"""

from __future__ import annotations

import io
import mmap
import os
import stat
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tubelet.core.errors import FormatError, InputError

LARGEST = 1 << 32  # bytes of a file; a larger one is refused before it is read
LARGEST_TEXT = 1 << 28  # bytes of a text file
PATIENCE = 2.0  # seconds to wait until a process writes to a pipe
_SIZELESS = 1 << 20  # bytes read from a file that the system says is empty, as in /proc
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
    """Open a regular file for reading.

    Raises InputError if the path is anything else, or if reading fails inside the block.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.files import opened
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "classes.txt")
        ...     _ = path.write_text("dog")
        ...     with opened(path) as file:
        ...         file.read(2)
        b'do'
    """
    check_file(path, largest=largest)
    with _explained(path), open(path, "rb") as file:
        yield file


class OpenFile:
    """A regular file that stays open, to read parts of it, in any thread.

    If the path is replaced, the old content stays readable. Raises InputError if it cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.files import OpenFile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "classes.txt")
        ...     _ = path.write_text("dog")
        ...     OpenFile(path).read(start=1, length=2)
        b'og'
    """

    def __init__(self, path: str | Path) -> None:
        check_file(path)
        self._path = path
        self._lock = threading.Lock()
        with _explained(path):
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115, closed with this object
        weakref.finalize(self, self._file.close)

    def read(self, start: int, length: int) -> bytes:
        """The bytes from `start` on. Raises InputError if there are fewer than `length`."""
        with self._lock, _explained(self._path):
            self._file.seek(start)
            data = self._file.read(length)
        if len(data) < length:
            raise InputError(f"{self._path}: expected {length} bytes at byte {start}; the file has become shorter")
        return data


def check_file(path: str | Path, *, largest: int = LARGEST) -> int:
    """Return the size of a regular file in bytes, before a library opens it.

    Raises InputError if the path is anything else or the file is too large.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.files import check_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "classes.txt")
        ...     _ = path.write_text("dog")
        ...     check_file(path)
        3
    """
    status = _status(path)
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "something else")
        raise InputError(f"{path}: expected a file, found {kind}")
    if status.st_size > largest:
        raise InputError(f"{path}: expected a file of at most {largest} bytes, found {status.st_size}")
    return status.st_size


def exists(path: str | Path) -> bool:
    """Return whether the path exists; False for an invalid name.

    Example:
        >>> from tubelet.core.untrusted.files import exists
        >>> exists("."), exists("a\\0b")
        (True, False)
    """
    try:
        _status(path)
    except InputError:
        return False
    return True


def is_file(path: str | Path) -> bool:
    """Return whether the path is a regular file; False for an invalid name.

    Example:
        >>> from tubelet.core.untrusted.files import is_file
        >>> is_file("."), is_file("a\\0b")
        (False, False)
    """
    return exists(path) and stat.S_ISREG(_status(path).st_mode)


def is_folder(path: str | Path) -> bool:
    """Return whether the path is a folder; False for an invalid name.

    Example:
        >>> from tubelet.core.untrusted.files import is_folder
        >>> is_folder("."), is_folder("a\\0b")
        (True, False)
    """
    return exists(path) and stat.S_ISDIR(_status(path).st_mode)


def as_path(value: object, what: str) -> Path:
    """Convert to a Path. Raises InputError, which begins with `what`, if the value is not a path.

    Example:
        >>> from tubelet.core.untrusted.files import as_path
        >>> as_path(3, "a video")
        Traceback (most recent call last):
        ...
        tubelet.core.errors.InputError: a video: expected a path, got something of type int
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{what}: expected a path, got something of type {type(value).__name__}")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InputError(f"{what}: expected a path, got {text!r}")
    return Path(text)


def read(path: str | Path, *, largest: int = LARGEST) -> bytes:
    """Read a regular file, or a pipe that a process writes to. Raises InputError for anything else.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.files import read
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "classes.txt")
        ...     _ = path.write_text("dog")
        ...     read(path)
        b'dog'
    """
    if stat.S_ISFIFO(_status(path).st_mode):
        return _read_pipe(path, largest)
    with opened(path, largest=largest) as file:
        return file.read(_size(file) or min(_SIZELESS, largest))


def mapped(path: str | Path, *, largest: int = LARGEST) -> bytes | mmap.mmap:
    """Map a file into memory, without a copy; `read` it if the system cannot map it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.files import mapped
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "classes.txt")
        ...     _ = path.write_text("dog")
        ...     mapped(path)[:]
        b'dog'
    """
    if stat.S_ISFIFO(_status(path).st_mode):
        return _read_pipe(path, largest)
    with opened(path, largest=largest) as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (ValueError, OSError):  # an empty file, or a file system that cannot map
            return file.read(_size(file) or min(_SIZELESS, largest))


def read_text(path: str | Path, *, largest: int = LARGEST_TEXT) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises FormatError if it has another encoding, InputError if it cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.files import read_text
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "classes.txt")
        ...     _ = path.write_text("dog")
        ...     read_text(path)
        'dog'
    """
    return decode_text(read(path, largest=largest), str(path))


def decode_text(data: bytes, where: str) -> str:
    """Decode text in UTF-8, with or without a byte order mark; line ends of Windows become "\\n".

    Raises FormatError, with `where`, if it has another encoding.

    Example:
        >>> from tubelet.core.untrusted.files import decode_text
        >>> decode_text(b"dog", "a file")
        'dog'
    """
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        actual = "UTF-16" if is_utf16 else f"the byte {data[error.start]:#04x}"
        raise FormatError(f"{where}: expected text in UTF-8, found {actual} (at byte {error.start})") from None


def _status(path: str | Path) -> os.stat_result:
    try:
        with _explained(path):
            return os.stat(path)
    except ValueError as error:  # a NUL, or characters that no file name can contain
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r}: not a file name") from None


def _size(file: io.BufferedReader) -> int:
    return os.fstat(file.fileno()).st_size


def _read_pipe(path: str | Path, largest: int) -> bytes:
    """Read a pipe to its end. Raises InputError if nobody writes to it or the data is too large."""
    deadline = time.monotonic() + PATIENCE
    with _explained(path), open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        start = pipe.read(_CHUNK)
        while start == b"":  # no process has opened the pipe for writing; None if one has
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
    """Turn errors of the system in this block into an InputError with the path."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from None
