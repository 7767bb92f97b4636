"""SQLite databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tubelet.core.errors import InputError
from tubelet.core.untrusted.files import check_file


def connect(path: Path, *, seconds: float = 5.0) -> sqlite3.Connection:
    """A database, made where there is none; each statement is a transaction, and waits so long for other processes.

    Raises InputError where the path leads to anything but a regular file.
    """
    if path.exists() or path.is_symlink():
        check_file(path)
    with explained(path):
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=seconds)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Around statements: an error of the database becomes an InputError that names its file."""
    try:
        yield
    except sqlite3.Error as error:
        raise InputError(f"{path}: cannot be used as a database ({error})") from None
