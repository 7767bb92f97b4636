"""The list of videos and jobs: read from memory, written to SQLite, so that a full disk loses no change of state.

Every change is made in memory first and then in the file. A change that the disk refuses waits in memory, in order, and
is written by `catch_up` as soon as the disk takes it. Only a new row is refused outright: nobody is to be promised a
job that a restart would forget.

So that a full disk need not refuse anything, pages are kept in reserve in both of SQLite's files: the database has free
pages, and the write-ahead log is as long as it will ever be, because it is copied back before it is full.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tubelet.core.errors import InputError

SCHEMA = """
CREATE TABLE IF NOT EXISTS videos (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, example INTEGER NOT NULL, bytes INTEGER NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, frames INTEGER NOT NULL, seconds REAL NOT NULL, playable INTEGER NOT NULL,
    webm INTEGER NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, video TEXT NOT NULL REFERENCES videos(id) ON DELETE CASCADE, model TEXT NOT NULL,
    length INTEGER, stride INTEGER, state TEXT NOT NULL, error TEXT, attempts INTEGER NOT NULL, objects INTEGER,
    seconds REAL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS reserve (pages BLOB);
"""
PAGE = 4096  # bytes
RESERVED_PAGES = 64
CHECKPOINT_PAGES = 16  # in the log before they are copied back; far fewer than are reserved

log = logging.getLogger("tubelet.web")


class JobList:
    """One list in one file, which stays locked until `close`. Safe to use from several threads.

    Raises InputError where the file is in use, broken, or not a list of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._owed: deque[tuple[str, Sequence[Any]]] = deque()
        if path.exists() and not path.is_file():
            raise self._unfit("expected a file")
        try:
            self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=1)
        except sqlite3.Error as error:
            raise self._unfit(str(error)) from None
        self._memory = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._memory.row_factory = sqlite3.Row
        try:
            self._open()
            self._file.backup(self._memory)
        except sqlite3.Error as error:
            self._file.close()
            raise self._unfit("is another server using it?" if "locked" in str(error) else str(error)) from None
        except InputError:
            self._file.close()
            raise
        self._memory.execute("PRAGMA foreign_keys = ON")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if not self.catch_up():
                log.warning("the disk is full: %d changes to the list of jobs are lost", len(self._owed))
            self._file.close()
            self._memory.close()

    def read(self, statement: str, *values: Any) -> Sequence[sqlite3.Row]:
        """Rows."""
        with self._lock:
            return self._memory.execute(statement, values).fetchall()

    def change(self, statement: str, *values: Any) -> None:
        """Update or delete rows. On a full disk the change counts at once and is written later."""
        with self._lock:
            self._memory.execute(statement, values)
            self._owed.append((statement, values))
            self.catch_up()

    def add(self, statement: str, *values: Any) -> None:
        """Insert a row; raises sqlite3.OperationalError where the disk is full."""
        with self._lock:
            if not self.catch_up():
                raise sqlite3.OperationalError("database or disk is full")
            self._file.execute(statement, values)
            self._memory.execute(statement, values)

    def catch_up(self) -> bool:
        """Write what is owed and fill the reserve up again; whether nothing is owed any more."""
        with self._lock:
            try:
                while self._owed:
                    self._file.execute(*self._owed[0])
                    self._owed.popleft()
                self._reserve()
            except sqlite3.Error as error:
                log.debug("the list of jobs cannot be written: %s", error)
            return not self._owed

    def _open(self) -> None:
        execute = self._file.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")  # a second server in this folder would take up the same jobs
        self._check()
        # a killed process loses nothing so, a power cut the last moments at most; and the disk is rarely waited for
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        execute("PRAGMA foreign_keys = ON")
        execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        execute("BEGIN IMMEDIATE")
        execute("COMMIT")
        self._file.executescript(SCHEMA)
        self.catch_up()

    def _check(self) -> None:
        """Raise InputError for a file that is not ours, before anything is changed in it."""
        execute = self._file.execute
        if execute("PRAGMA quick_check(1)").fetchone()[0] != "ok" or execute("PRAGMA foreign_key_check").fetchall():
            raise self._unfit("it is damaged")
        ours = sqlite3.connect(":memory:")
        ours.executescript(SCHEMA)
        expected = _columns(ours)
        ours.close()
        if any(expected.get(table) != columns for table, columns in _columns(self._file).items()):
            raise self._unfit("it is the database of another program")

    def _reserve(self) -> None:
        """Write pages and free them again, which leaves them in both files."""
        execute = self._file.execute
        if execute("PRAGMA freelist_count").fetchone()[0] >= RESERVED_PAGES // 2:
            return
        execute("DELETE FROM reserve")
        execute("INSERT INTO reserve VALUES (zeroblob(?))", (RESERVED_PAGES * PAGE,))
        # two transactions: pages that are freed in the one that made them are never written
        execute("DELETE FROM reserve")

    def _unfit(self, reason: str) -> InputError:
        return InputError(f"{self._path}: this list of jobs cannot be opened ({reason})")


def _columns(database: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Tables, and of each column its name, type and constraints."""
    tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type != 'index'")]
    return {table: database.execute(f"SELECT * FROM pragma_table_info('{table}')").fetchall() for table in tables}
