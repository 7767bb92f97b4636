"""Run a command in a child process, and let one place that changes the disk fail or kill it.

A place is a call of Python that opens a file for writing, renames, removes, makes a folder or syncs, below one folder;
Python reports them all to an audit hook, so no code of the program needs to know of this. Writing by libraries in C is
cut off by a limit on the size of files.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["none", "kill", "full", "broken", "limit"]
KINDS: tuple[Kind, ...] = ("kill", "full", "broken", "limit")  # SIGKILL, ENOSPC, EIO, EFBIG in the middle of a file

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ERRORS = {"full": errno.ENOSPC, "broken": errno.EIO}


@dataclass(frozen=True)
class Fault:
    """What goes wrong: the n-th place fails or kills, or files end after `place` bytes."""

    kind: Kind = "none"
    place: int = -1


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int  # -9 if it was killed
    error: str  # what it wrote to stderr
    places: int  # of the places that it passed; 0 if it was killed
    reached: bool  # the fault happened


def places_of(total: int, most: int) -> list[int]:
    """At most `most` places, spread over all, with the first and the last."""
    if total <= most:
        return list(range(total))
    return sorted({round(n * (total - 1) / (most - 1)) for n in range(most)})


def run(command: Callable[[], int], folder: Path, fault: Fault) -> Outcome:
    """Run a command in a child process whose working folder is `folder`, with a fault below it."""
    reading, writing = os.pipe()  # files are limited in size, pipes are not
    telling, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.close(telling)
        _child(command, folder, fault, writing, told)  # never returns

    os.close(writing)
    os.close(told)
    with os.fdopen(reading, "rb") as errors, os.fdopen(telling, "rb") as notes:
        error = errors.read().decode(errors="replace")
        note = notes.read()
    _, status = os.waitpid(child, 0)
    places, reached = json.loads(note) if note else (0, True)
    return Outcome(os.waitstatus_to_exitcode(status), error, places, reached)


def _child(command: Callable[[], int], folder: Path, fault: Fault, errors: int, told: int) -> None:
    code = 99
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    try:
        os.dup2(errors, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        os.chdir(folder)

        places = _Places(folder.resolve(), fault)
        sys.addaudithook(places.see)
        if fault.kind == "limit":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.place, most))
        code = command()
        os.write(told, json.dumps([places.seen, places.reached]).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def watching(folder: Path, fault: Fault) -> Iterator[_Places]:
    """Count the places of the block, one of which may fail or kill this process."""
    fsync = os.fsync
    places = _Places(folder.resolve(), fault)
    sys.addaudithook(places.see)
    try:
        yield places
    finally:
        places.ended = True  # a hook stays for as long as its process
        os.fsync = fsync


class _Places:
    """Counts places below a folder, and lets one of them fail."""

    def __init__(self, folder: Path, fault: Fault) -> None:
        self.folder = str(folder)
        self.fault = fault
        self.seen = 0
        self.reached = False
        self.ended = False
        fsync = os.fsync

        def synced(handle: int) -> None:
            self._pass()
            fsync(handle)

        os.fsync = synced

    def see(self, event: str, arguments: Sequence[Any]) -> None:
        """The audit hook."""
        if self.ended or not (event in CHANGES or (event == "open" and _writes(arguments))):
            return
        path = arguments[0]
        if isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(self.folder):
            self._pass()

    def _pass(self) -> None:
        place = self.seen
        self.seen += 1
        if place != self.fault.place or self.fault.kind in ("none", "limit"):
            return
        self.reached = True
        if self.fault.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        code = ERRORS[self.fault.kind]
        raise OSError(code, os.strerror(code))


def _writes(arguments: Sequence[Any]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & WRITING)
