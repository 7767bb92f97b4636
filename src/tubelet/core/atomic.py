"""The one place that writes files: they appear whole or not at all, and those that belong together appear together.

Everything is written under a scratch name beside its target and then moved there:

    .partial-<machine>-<process>-<its start>-<random>-<target>     being written
    .complete-<machine>-<process>-<its start>-<random>-<target>    a group, all written, on its way into its folder

The name says who writes it, so that what a killed process left can be told from what a living one is at, on a disk that
other machines share too. The next one that writes in that folder removes the first kind and finishes the second.
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

PARTIAL, COMPLETE = ".partial", ".complete"
ABANDONED = 7 * 24 * 3600.0  # seconds after which scratch of a machine that cannot be asked is nobody's
LONGEST_NAME = 255  # bytes, of one name on all usual file systems
_SCRATCH = re.compile(r"\.(partial|complete)-([0-9a-f]{12})-(\d+)-(\d+)-[0-9a-f]{8}-.*", re.DOTALL)


@contextmanager
def replacing(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """A scratch file to write, which takes the place of `path` when the block ends.

    On any error it is removed and `path` is as before. With `durable` the content survives a power cut from then on.
    Raises WriteError where the system refuses.
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
    """A scratch folder to fill, which takes the place of `path`, and of all that was in it, when the block ends."""
    path = Path(path)
    with _scratch(path, path.parent) as temporary:
        temporary.mkdir()
        yield temporary
        _move(temporary, path, durable=durable)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Like `replacing_folder`; raises InputError where there is something already."""
    check_new_folder(path)
    with replacing_folder(path) as temporary:
        yield temporary


@contextmanager
def together(folder: str | Path) -> Iterator[Path]:
    """A scratch folder whose entries move into `folder` when the block ends: all of them or none.

    What `folder` holds under other names stays. A process that is killed between two moves has decided already: the
    next one that writes there makes the others.
    """
    folder = Path(folder)
    check_folder(folder)
    with _scratch(folder, folder if folder.is_dir() else folder.parent) as temporary:
        temporary.mkdir()
        yield temporary
        _check_entries(temporary, folder)
        if not folder.exists():
            with suppress(FileExistsError):  # someone has made it in the meantime
                _rename(temporary, folder)
                return
        complete = folder / f"{COMPLETE}{temporary.name.removeprefix(PARTIAL)}"
        _rename(temporary, complete)
        try:
            _finish(complete)
        except BaseException:  # a signal; the decision has been taken
            _finish(complete)
            raise


def move(source: Path, target: Path) -> None:
    """Let a scratch file or folder take the place of its target, whatever is there."""
    _move(source, target, durable=False)


def discard(path: Path) -> None:
    """Remove a file or folder that must not be taken for a whole one while it goes."""
    if os.path.lexists(path):
        doomed = scratch_name(path)
        _rename(path, doomed)
        _remove(doomed)


def scratch_name(path: Path) -> Path:
    """A name beside `path` that nobody else uses, with the same ending."""
    head = f"{PARTIAL}-{_machine()}-{os.getpid()}-{_start_of(os.getpid())}-{uuid.uuid4().hex[:8]}-"
    name = os.fsencode(path.name)[-(LONGEST_NAME - len(head)) :]
    return path.with_name(head + os.fsdecode(name).lstrip("."))


def check_folder(folder: str | Path) -> None:
    """Raise InputError where results cannot be put into `folder`: called before any work is done for them.

    Tries it, and clears away what killed processes left there.
    """
    folder = Path(folder)
    _look(folder)
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
    """Raise InputError where no file can be written at `path`, before any work is done for it."""
    path = Path(path)
    check_folder(path.parent)
    _look(path)
    if path.is_dir():
        raise InputError(f"{path}: expected a file to write, found a folder")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: expected a file to write, found a device or a pipe")


def check_new_folder(path: str | Path) -> None:
    """Raise InputError unless `path` can become a new folder: nothing is there, or an empty one."""
    path = Path(path)
    _look(path)
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        _sweep_once(path, os.getpid())
        if not path.is_dir() or any(path.iterdir()):
            raise InputError(f"{path}: there is something already; remove it or choose another folder")
    check_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove, or finish, what processes that have ended left in a folder; what a living one is at stays."""
    with suppress(OSError):
        names = [name for name in os.listdir(folder) if _SCRATCH.fullmatch(name)]
        for name in names:
            with suppress(OSError):  # another process is faster
                if _is_abandoned(folder / name):
                    (_finish if name.startswith(COMPLETE) else _remove)(folder / name)


@contextmanager
def _scratch(target: Path, folder: Path) -> Iterator[Path]:
    """A scratch name in `folder`; what is left under it, and the folders made for it, go again at the end."""
    _look(target)
    missing = next((parent for parent in [*reversed(folder.parents), folder] if not parent.exists()), None)
    with _plain_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
    _sweep_once(folder, os.getpid())
    temporary = scratch_name(folder / (target.name or "folder"))
    try:
        with _plain_errors(target, temporary):
            yield temporary
        missing = None
    finally:
        _remove(temporary)
        if missing is not None:
            _remove_empty(folder, missing)


@contextmanager
def _plain_errors(target: Path, temporary: Path | None = None) -> Iterator[None]:
    """What the system refuses is a WriteError of one line; no error names the scratch file, unknown to the user."""
    scratch = str(temporary)
    try:
        yield
    except TubeletError as error:
        if scratch not in str(error):
            raise
        raise _renamed(error, scratch, str(target)) from None
    except OSError as error:
        about = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        if temporary is not None and about and not about.startswith((scratch, str(target))):
            raise  # something else could not be read
        path = about.replace(scratch, str(target)) if about.startswith(scratch) else str(target)
        refused = WriteError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})")
        refused.code = error.errno
        raise refused from None


def _renamed(error: TubeletError, scratch: str, target: str) -> TubeletError:
    renamed = type(error)(str(error).replace(scratch, target))
    if isinstance(error, WriteError) and isinstance(renamed, WriteError):
        renamed.code = error.code
    return renamed


def _look(path: Path) -> None:
    """Raise InputError for a path that no file can have."""
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


def _check_entries(temporary: Path, folder: Path) -> None:
    for entry in temporary.iterdir():
        target = folder / entry.name
        if target.exists() and target.is_dir() != entry.is_dir():
            raise InputError(f"{target}: a {'folder' if target.is_dir() else 'file'} is in the way")


def _finish(complete: Path) -> None:
    """Move what is left in a complete group into the folder that it lies in."""
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
    """No system moves a folder over one that is not empty: the old one steps aside first."""
    aside = scratch_name(target)
    _rename(target, aside)
    try:
        _rename(source, target)
    except OSError:
        _rename(aside, target)
        raise
    _remove(aside)


def _rename(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if target.is_dir():  # systems call a folder in the way by several names
            raise FileExistsError(error.errno, error.strerror, str(target)) from None
        raise


def _sync(path: Path) -> None:
    """Onto the disk now: a rename may otherwise survive a power cut that the content does not."""
    if path.is_dir() and os.name != "posix":
        return  # only there can a folder be opened
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Remove a file or a folder as far as the system lets us; never through a link."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            for entry in path.iterdir():
                _remove(entry)
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def _remove_empty(folder: Path, first_made: Path) -> None:
    """Undo the folders that were made, from `folder` up to `first_made`, as far as they are empty."""
    for path in [folder, *folder.parents]:
        try:
            path.rmdir()
        except OSError:
            return
        if path == first_made:
            return


@lru_cache(maxsize=4096)
def _sweep_once(folder: Path, process: int) -> None:
    """Once for each folder in each process: some are written into thousands of times."""
    sweep(folder)


def _is_abandoned(scratch: Path) -> bool:
    """Whether the process that wrote it has ended: asked where it ran on this machine, else judged by age."""
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
    """When a process began, in ticks since this machine started; 0 for one that has ended or cannot be asked."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()  # the name before may hold blanks and brackets
    return 0 if fields[0] in "ZX" else int(fields[19])


@cache
def _machine() -> str:
    """Stands for this machine since it was started and, in a container, for its own numbering of processes."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        numbering = os.readlink("/proc/self/ns/pid")
    except OSError:
        started, numbering = str(uuid.getnode()), ""
    return hashlib.sha256(f"{platform.node()}\n{started}\n{numbering}".encode()).hexdigest()[:12]
