"""Write files and folders atomically: they appear completely or not at all.

All files are written under a scratch name beside their target and then renamed:

    .partial-<machine>-<process>-<its start>-<random>-<target>     being written
    .complete-<machine>-<process>-<its start>-<random>-<target>    a complete group, being moved

The name identifies the process that writes, also on a disk that several machines share. So the next
process that writes to the folder can tell the scratch files of a killed process from those in use:
it removes partial files and moves the rest of complete groups.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path

from tubelet.core.errors import InputError, TubeletError, WriteError
from tubelet.core.text import printable

PARTIAL = ".partial"
COMPLETE = ".complete"
ABANDONED = 7 * 24 * 3600.0  # seconds after which scratch files of another machine are abandoned
LONGEST_NAME = 255  # bytes of a file name, on all usual file systems
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # what a path of s3://bucket/out begins with
_SCRATCH = re.compile(r"\.(partial|complete)-([0-9a-f]{12})-(\d+)-(\d+)-[0-9a-f]{8}-.*", re.DOTALL)


@contextmanager
def replacing(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Write a file: yield a scratch file, which replaces `path` at the end of the block.

    If the block raises an error, the scratch file is removed and `path` does not change. Raises
    WriteError if the system does not let us write.

    Args:
        path: The file to write.
        durable: Sync to disk, so that the file survives a power cut after the block.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.atomic import replacing
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "out.txt")
        ...     with replacing(path) as partial:
        ...         _ = partial.write_text("dog")
        ...     path.read_text()
        'dog'
    """
    path = Path(path)
    with _scratch(path, path.parent) as temporary:
        with temporary.open("xb"):
            mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some libraries put a file of their own there, which only its owner may read
        _move(temporary, path, durable=durable)


@contextmanager
def replacing_folder(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Write a folder: yield a scratch folder, which replaces `path` and its content at the end.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.atomic import replacing_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "out")
        ...     with replacing_folder(path) as partial:
        ...         (partial / "a.txt").touch()
        ...     [entry.name for entry in path.iterdir()]
        ['a.txt']
    """
    path = Path(path)
    with _scratch(path, path.parent) as temporary:
        temporary.mkdir()
        yield temporary
        _move(temporary, path, durable=durable)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Write a folder like `replacing_folder`. Raises InputError if `path` is not empty or a file.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.atomic import new_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "out")
        ...     with new_folder(path) as partial:
        ...         (partial / "a.txt").touch()
        ...     [entry.name for entry in path.iterdir()]
        ['a.txt']
    """
    check_new_folder(path)
    with replacing_folder(path) as temporary:
        yield temporary


@contextmanager
def together(folder: str | Path) -> Iterator[Path]:
    """Write several files into `folder`: yield a scratch folder whose entries are all moved there.

    Other files in `folder` stay. If the block raises an error, nothing is moved. If the process is
    killed while it moves files, the next process that writes to `folder` moves the others.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.atomic import together
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with together(folder) as partial:
        ...         (partial / "a.txt").touch()
        ...         (partial / "b.txt").touch()
        ...     sorted(entry.name for entry in Path(folder).iterdir())
        ['a.txt', 'b.txt']
    """
    folder = Path(folder)
    check_folder(folder)
    with _scratch(folder, folder if folder.is_dir() else folder.parent) as temporary:
        temporary.mkdir()
        yield temporary
        _check_entries(temporary, folder)
        if not folder.exists():
            with suppress(FileExistsError):  # another process has created it in the meantime
                _rename(temporary, folder)
                return

        complete = folder / f"{COMPLETE}{temporary.name.removeprefix(PARTIAL)}"
        _rename(temporary, complete)
        try:
            _finish(complete)
        except BaseException:  # a signal: move the others before raising it
            _finish(complete)
            raise


def append(path: str | Path, data: bytes) -> None:
    """Add to the end of a file in one piece, so that another process, or a kill, never finds half of it.

    For files that must be readable while they grow. Raises WriteError if the system does not let us write.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.atomic import append
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for line in (b"dog\\n", b"cat\\n"):
        ...         append(Path(folder, "out.txt"), line)
        ...     Path(folder, "out.txt").read_text()
        'dog\\ncat\\n'
    """
    with _plain_errors(Path(path)), open(path, "ab", buffering=0) as file:
        written = file.write(data)
        if written != len(data):  # the disk is full: the next call says so
            file.write(data[written:])


def move(source: Path, target: Path) -> None:
    """Rename a scratch file or folder to its target, replacing what is there.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.atomic import move, scratch_name
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "out.txt")
        ...     scratch = scratch_name(path)
        ...     _ = scratch.write_text("dog")
        ...     move(scratch, path)
        ...     path.read_text()
        'dog'
    """
    _move(source, target, durable=False)


def discard(path: Path) -> None:
    """Remove a file or folder atomically: rename it to a scratch name first.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.atomic import discard
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "out.txt")
        ...     path.touch()
        ...     discard(path)
        ...     path.exists()
        False
    """
    if os.path.lexists(path):
        scratch = scratch_name(path)
        _rename(path, scratch)
        _remove(scratch)


def scratch_name(path: Path) -> Path:
    """Return an unused scratch name beside `path`, with the same ending. Raises InputError for an address.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.core.atomic import scratch_name
        >>> scratch_name(Path("out/video.mp4"))
        PosixPath('out/.partial-...-video.mp4')
    """
    _check_no_address(path)
    head = f"{PARTIAL}-{_machine()}-{os.getpid()}-{_start_of(os.getpid())}-{uuid.uuid4().hex[:8]}-"
    name = os.fsencode(path.name)[-(LONGEST_NAME - len(head)) :]
    return path.with_name(head + os.fsdecode(name).lstrip("."))


def check_folder(folder: str | Path) -> None:
    """Raise InputError if `folder` cannot be written to, before results for it are computed.

    Creates and removes a folder to find out, and sweeps scratch files of killed processes.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.atomic import check_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_folder(Path(folder, "new"))
        ...     Path(folder, "new").exists()
        False
    """
    folder = Path(folder)
    _check_name(folder)

    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path) or path == path.parent)
    if not nearest.is_dir():
        raise InputError(f"{nearest}: expected a folder to write to, found a file")

    _sweep_once(folder, os.getpid())
    _sweep_once(folder.parent, os.getpid())
    with _plain_errors(nearest):
        trial = scratch_name(nearest / "trial")
        trial.mkdir()
        trial.rmdir()


def check_file(path: str | Path) -> None:
    """Raise InputError if no file can be written at `path`, before its content is computed.

    Example:
        >>> from tubelet.core.atomic import check_file
        >>> check_file(".")
        Traceback (most recent call last):
        ...
        tubelet.core.errors.InputError: .: expected a file to write, found a folder
    """
    path = Path(path)
    _check_name(path)
    check_folder(path.parent)
    if path.is_dir():
        raise InputError(f"{path}: expected a file to write, found a folder")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: expected a file to write, found a device or a pipe")


def check_new_folder(path: str | Path) -> None:
    """Raise InputError unless `path` does not exist or is an empty folder.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.atomic import check_new_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_new_folder(folder)
        ...     Path(folder, "a.txt").touch()
        ...     check_new_folder(folder)
        Traceback (most recent call last):
        ...
        tubelet.core.errors.InputError: ...: there is something already; remove it or choose another folder
    """
    path = Path(path)
    _check_name(path)
    if os.path.lexists(path) and not _is_empty_folder(path):
        _sweep_once(path, os.getpid())
        if not _is_empty_folder(path):
            raise InputError(f"{path}: there is something already; remove it or choose another folder")
    check_folder(path.parent)


def sweep(folder: Path) -> None:
    """Clean up scratch files in a folder whose processes have ended.

    Partial files are removed, and the rest of complete groups is moved into the folder.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.atomic import sweep
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "a.txt").touch()
        ...     sweep(Path(folder))
        ...     [entry.name for entry in Path(folder).iterdir()]
        ['a.txt']
    """
    with suppress(OSError):
        names = [name for name in os.listdir(folder) if _SCRATCH.fullmatch(name)]
        for name in names:
            with suppress(OSError):  # another process has cleaned it up
                if not _is_abandoned(folder / name):
                    continue
                if name.startswith(COMPLETE):
                    _finish(folder / name)
                else:
                    _remove(folder / name)


@contextmanager
def _scratch(target: Path, folder: Path) -> Iterator[Path]:
    """Yield a scratch name in `folder`; on an error, remove the folders that were created for it.

    Whatever still has the scratch name at the end is removed.
    """
    _check_name(target)
    path_down = [*reversed(folder.parents), folder]
    first_missing = next((parent for parent in path_down if not parent.exists()), None)
    with _plain_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
    _sweep_once(folder, os.getpid())
    temporary = scratch_name(folder / (target.name or "folder"))
    try:
        with _plain_errors(target, temporary):
            yield temporary
        first_missing = None
    finally:
        _remove(temporary)
        if first_missing is not None:
            _remove_empty(folder, first_missing)


@contextmanager
def _plain_errors(target: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turn errors of the system into a WriteError, and name the target instead of the scratch file."""
    scratch = str(temporary)
    try:
        yield
    except TubeletError as error:
        if scratch not in str(error):
            raise
        raise _renamed(error, scratch, str(target)) from None
    except OSError as error:
        filename = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        if temporary is not None and filename and not filename.startswith((scratch, str(target))):
            raise  # the error is about another file

        path = filename.replace(scratch, str(target)) if filename.startswith(scratch) else str(target)
        reason = (error.strerror or str(error)).lower()
        write_error = WriteError(f"{path}: cannot be written ({reason})")
        write_error.code = error.errno
        raise write_error from None


def _renamed(error: TubeletError, scratch: str, target: str) -> TubeletError:
    """The same error, naming the target instead of the scratch file."""
    renamed = type(error)(str(error).replace(scratch, target))
    if isinstance(error, WriteError) and isinstance(renamed, WriteError):
        renamed.code = error.code
    return renamed


def _check_name(path: Path) -> None:
    """Raise InputError if no file can have this path."""
    _check_no_address(path)
    try:
        path.lstat()
    except FileNotFoundError:
        return
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise InputError(f"{path}: no name for a file where names are {encoding}; set PYTHONUTF8=1") from None
    except ValueError:
        raise InputError(f"{printable(str(path))}: no name for a file") from None
    except NotADirectoryError:
        parent = next(parent for parent in path.parents if parent.exists())
        raise InputError(f"{parent}: expected a folder to write to, found a file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({str(error.strerror).lower()})") from None


def _check_no_address(path: Path) -> None:
    """Raise InputError if the path was an address, unless there is a folder with such a name."""
    first = path.parts[0] if path.parts else ""
    if _SCHEME.fullmatch(first) and not os.path.lexists(first):
        address = printable(path.as_posix()).replace("/", "//", 1)  # pathlib makes one slash of two
        raise InputError(f"{address}: expected a path to write to, found an address")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _check_entries(temporary: Path, folder: Path) -> None:
    """Raise InputError if a file would replace a folder, or a folder a file."""
    for entry in temporary.iterdir():
        target = folder / entry.name
        if target.exists() and target.is_dir() != entry.is_dir():
            raise InputError(f"{target}: a {'folder' if target.is_dir() else 'file'} is in the way")


def _finish(complete: Path) -> None:
    """Move the rest of a complete group into its folder."""
    for entry in sorted(complete.iterdir()):
        _move(entry, complete.parent / entry.name, durable=False)
    complete.rmdir()


def _move(source: Path, target: Path, *, durable: bool) -> None:
    if durable:
        for path in [*source.rglob("*"), source]:
            _sync(path)

    if source.is_dir() and target.is_dir():
        _move_folder(source, target)
    else:
        os.replace(source, target)

    if durable:
        _sync(target.parent)


def _move_folder(source: Path, target: Path) -> None:
    """Replace a folder: no system renames a folder to one that is not empty, so move that away first."""
    old = scratch_name(target)
    _rename(target, old)
    try:
        _rename(source, target)
    except OSError:
        _rename(old, target)
        raise
    _remove(old)


def _rename(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if target.is_dir():  # systems have several errors for an existing folder
            raise FileExistsError(error.errno, error.strerror, str(target)) from None
        raise


def _sync(path: Path) -> None:
    """Write to the disk now: else a renamed file could be empty after a power cut."""
    if path.is_dir() and os.name != "posix":
        return  # folders can be opened on posix only
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Remove a file or a folder as far as the system lets us; links are not followed."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            for entry in path.iterdir():
                _remove(entry)
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def _remove_empty(folder: Path, first_made: Path) -> None:
    """Remove `folder` and its parents up to `first_made`, as long as they are empty."""
    for path in [folder, *folder.parents]:
        try:
            path.rmdir()
        except OSError:
            return
        if path == first_made:
            return


@lru_cache(maxsize=4096)
def _sweep_once(folder: Path, process: int) -> None:
    """Sweep a folder once per process: thousands of files may be written to it."""
    sweep(folder)


def _is_abandoned(scratch: Path) -> bool:
    """Whether the process that wrote it has ended; on another machine, whether it is old."""
    parsed = _SCRATCH.fullmatch(scratch.name)
    owner = getattr(os, "geteuid", lambda: 0)()
    if parsed is None or (os.name == "posix" and scratch.lstat().st_uid != owner):
        return False

    _, machine, process, start = parsed.groups()
    if machine == _machine() and os.name == "posix":
        return not _is_alive(int(process), int(start))

    changed = max(path.lstat().st_mtime for path in (scratch, *scratch.rglob("*")))
    return time.time() - changed > ABANDONED


def _is_alive(process: int, start: int) -> bool:
    if Path("/proc/self/stat").exists():
        return _start_of(process) == start
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _start_of(process: int) -> int:
    """The start time of a process, in ticks since the machine started; 0 if it has ended or is unknown."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()  # the process name before may contain blanks and brackets
    return 0 if fields[0] in "ZX" else int(fields[19])


@cache
def _machine() -> str:
    """Identify this machine, since its last start, and the process namespace of a container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = str(uuid.getnode())
        namespace = ""
    return hashlib.sha256(f"{platform.node()}\n{boot}\n{namespace}".encode()).hexdigest()[:12]
