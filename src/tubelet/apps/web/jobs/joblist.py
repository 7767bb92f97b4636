"""The list of videos, jobs and models: read from memory and written to SQLite, so that a full disk loses no state.

Every change is made in memory first and then in the file. A change that the disk refuses waits in memory, in order,
until `catch_up` can write it. Only a new row, a job or an edit, is refused on a full disk: a restart would forget it.

To make this rare, both of SQLite's files have pages in reserve: the database has free pages, and the write-ahead log
has its full length from the start, because it is copied back before it grows.
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
    webm INTEGER NOT NULL, created REAL NOT NULL, owner TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, video TEXT NOT NULL REFERENCES videos(id) ON DELETE CASCADE, model TEXT NOT NULL,
    length INTEGER, stride INTEGER, state TEXT NOT NULL, error TEXT, attempts INTEGER NOT NULL, objects INTEGER,
    seconds REAL, created REAL NOT NULL, classes TEXT);
CREATE TABLE IF NOT EXISTS steps (
    job TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, number INTEGER NOT NULL, step TEXT NOT NULL,
    PRIMARY KEY (job, number));
CREATE TABLE IF NOT EXISTS seen (
    job TEXT PRIMARY KEY REFERENCES jobs(id) ON DELETE CASCADE, frames TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trainings (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, model TEXT NOT NULL, videos TEXT NOT NULL, threshold REAL NOT NULL,
    steps INTEGER NOT NULL, state TEXT NOT NULL, error TEXT, attempts INTEGER NOT NULL, summary TEXT,
    created REAL NOT NULL, owner TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS models (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL, created REAL NOT NULL,
    owner TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS asked (
    owner TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS links (
    job TEXT PRIMARY KEY REFERENCES jobs(id) ON DELETE CASCADE, word TEXT NOT NULL, made REAL NOT NULL);
CREATE TABLE IF NOT EXISTS reserve (pages BLOB);
"""
OWNER = "owner TEXT NOT NULL DEFAULT ''"
EARLIER = {  # columns at the end of a table that lists of earlier versions lack
    "jobs": ("classes TEXT",),
    "videos": (OWNER,),
    "trainings": (OWNER,),
    "models": (OWNER,),
}
PAGE = 4096  # bytes
RESERVED_PAGES = 64
CHECKPOINT_PAGES = 16  # in the log when it is copied back; far fewer than the reserve

log = logging.getLogger("tubelet.web")


class JobList:
    """The list in one SQLite file, which stays locked until `close`. Thread-safe.

    Raises InputError if the file is in use, damaged, or the database of another program.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._unwritten: deque[tuple[str, Sequence[Any]]] = deque()  # changes that the disk refused
        if path.exists() and not path.is_file():
            raise self._cannot_open("expected a file")

        try:
            self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=1)
        except sqlite3.Error as error:
            raise self._cannot_open(str(error)) from None
        self._memory = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._memory.row_factory = sqlite3.Row

        try:
            self._prepare_file()
            self._file.backup(self._memory)
        except sqlite3.Error as error:
            self._file.close()
            reason = "is another server using it?" if "locked" in str(error) else str(error)
            raise self._cannot_open(reason) from None
        except InputError:
            self._file.close()
            raise
        self._memory.execute("PRAGMA foreign_keys = ON")

    def close(self) -> None:
        """Write what is left and close the file."""
        with self._lock:
            if not self.catch_up():
                log.warning("the disk is full: %d changes to the list of jobs are lost", len(self._unwritten))
            self._file.close()
            self._memory.close()

    def read(self, statement: str, *values: Any) -> Sequence[sqlite3.Row]:
        """The rows of a SELECT statement."""
        with self._lock:
            return self._memory.execute(statement, values).fetchall()

    def change(self, statement: str, *values: Any) -> None:
        """Update, replace or delete rows; on a full disk, the change is valid at once and written later."""
        with self._lock:
            self._memory.execute(statement, values)
            self._unwritten.append((statement, values))
            self.catch_up()

    def add(self, statement: str, *values: Any) -> None:
        """Insert a row. Raises sqlite3.OperationalError if the disk is full."""
        with self._lock:
            if not self.catch_up():
                raise sqlite3.OperationalError("database or disk is full")
            self._file.execute(statement, values)
            self._memory.execute(statement, values)

    def catch_up(self) -> bool:
        """Write the changes that the disk refused and refill the reserve; returns whether all are written."""
        with self._lock:
            try:
                while self._unwritten:
                    statement, values = self._unwritten[0]
                    self._file.execute(statement, values)
                    self._unwritten.popleft()
                self._fill_reserve()
            except sqlite3.Error as error:
                log.debug("the list of jobs cannot be written: %s", error)
            return not self._unwritten

    def _prepare_file(self) -> None:
        execute = self._file.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")  # a second server in this folder would run the same jobs
        self._check_schema()

        # a killed process loses nothing, a power cut at most the last moments, and few writes wait for the disk
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        execute("PRAGMA foreign_keys = ON")
        execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        execute("BEGIN IMMEDIATE")
        execute("COMMIT")
        self._add_columns()
        self._file.executescript(SCHEMA)
        self.catch_up()

    def _add_columns(self) -> None:
        """Give a list of an earlier version the columns that it lacks."""
        found = _columns(self._file)
        for table, columns in EARLIER.items():
            names = {column[1] for column in found.get(table, ())}
            for column in columns:
                if names and column.split()[0] not in names:
                    self._file.execute(f"ALTER TABLE {table} ADD COLUMN {column}")

    def _check_schema(self) -> None:
        """Raise InputError if the file is damaged or has other tables, before anything is changed in it."""
        execute = self._file.execute
        is_intact = execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        if not is_intact or execute("PRAGMA foreign_key_check").fetchall():
            raise self._cannot_open("it is damaged")

        empty_list = sqlite3.connect(":memory:")
        empty_list.executescript(SCHEMA)
        expected = _columns(empty_list)
        empty_list.close()
        for table, columns in _columns(self._file).items():
            known = expected.get(table, [])
            earlier = known[: len(known) - len(EARLIER.get(table, ()))]
            if not columns or columns not in (known, earlier):
                raise self._cannot_open("it is the database of another program")

    def _fill_reserve(self) -> None:
        """Write pages and free them again, which leaves them in both files."""
        execute = self._file.execute
        if execute("PRAGMA freelist_count").fetchone()[0] >= RESERVED_PAGES // 2:
            return
        execute("DELETE FROM reserve")
        execute("INSERT INTO reserve VALUES (zeroblob(?))", (RESERVED_PAGES * PAGE,))
        # a transaction of its own: pages that are freed in the one that made them are never written
        execute("DELETE FROM reserve")

    def _cannot_open(self, reason: str) -> InputError:
        return InputError(f"{self._path}: this list of jobs cannot be opened ({reason})")


def _columns(database: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Name, type and constraints of each column, by table."""
    tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type != 'index'")]
    columns = {}
    for table in tables:
        columns[table] = database.execute(f"SELECT * FROM pragma_table_info('{table}')").fetchall()
    return columns
