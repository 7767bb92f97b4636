"""Open SQLite databases; their errors become InputErrors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tubelet.core.errors import InputError
from tubelet.core.untrusted.files import check_file


def connect(path: Path, *, seconds: float = 5.0) -> sqlite3.Connection:
    """Open a database, or create it if it does not exist. Each statement is its own transaction.

    Raises InputError if the path is not a regular file or the database cannot be opened.

    Args:
        path: The database file.
        seconds: How long a statement waits for another process that has locked the database.

    Example:
        >>> import tempfile
        >>> from contextlib import closing
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.databases import connect
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with closing(connect(Path(folder, "jobs.db"))) as database:
        ...         database.execute("select 1 + 1").fetchone()
        (2,)
    """
    if path.exists() or path.is_symlink():
        check_file(path)
    with explained(path):
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=seconds)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of the database in this block into an InputError with the path.

    Example:
        >>> import sqlite3
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.databases import explained
        >>> with explained(Path("jobs.db")):
        ...     raise sqlite3.OperationalError("database is locked")
        Traceback (most recent call last):
        ...
        tubelet.core.errors.InputError: jobs.db: cannot be used as a database (database is locked)
    """
    try:
        yield
    except sqlite3.Error as error:
        raise InputError(f"{path}: cannot be used as a database ({error})") from None
