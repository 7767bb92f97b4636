"""What survives a restart: a list of videos and jobs in SQLite, their files in one folder each.

    DIR/jobs.sqlite                 the list; see joblist.py
    DIR/videos/<id>/source          as it was uploaded; the name it had is only a text in the list
    DIR/videos/<id>/play.mp4        where browsers cannot play the source
    DIR/jobs/<id>/result.json.gz    what the page shows; downloads made of it lie beside it
    DIR/scratch/                    whatever is not finished; emptied at every start

Names are made here and are random: nothing that a browser sends becomes part of a path.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from tubelet.apps.web.jobs.joblist import JobList
from tubelet.core.errors import InputError

JobState = Literal["queued", "running", "done", "failed"]
MAX_ATTEMPTS = 2  # a video that takes the worker down with it must not do so for ever
ID = re.compile(r"[0-9a-f]{16}")  # what new_id makes: the name of a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A video in the list."""

    id: str
    name: str  # as the user calls it: shown, never a path
    example: bool
    bytes: int
    width: int
    height: int
    frames: int
    seconds: float
    playable: bool  # as it was uploaded
    webm: bool
    created: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One model's run over one video."""

    id: str
    video: str
    model: str
    length: int | None  # frames at a time; None is the model's own way of reading
    stride: int | None
    state: JobState
    error: str | None  # one line for the user
    attempts: int
    objects: int | None
    seconds: float | None  # that the run took
    created: float


class Store:
    """The list and the folders. Safe to use from several threads.

    Raises InputError where the folder is in use, cannot be written to, or holds a list that is not ours.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            for name in ("videos", "jobs", "scratch"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"{root}: expected a folder that can be written to ({reason})") from None
        self._list = JobList(root / "jobs.sqlite")
        try:
            self._check_ids()
            self._recover()
        except BaseException:
            self._list.close()
            raise

    def close(self) -> None:
        """Let go of the folder."""
        self._list.close()

    def catch_up(self) -> bool:
        """Write the changes that a full disk refused; whether none is left."""
        return self._list.catch_up()

    def videos(self) -> list[Film]:
        """Newest first."""
        return [_film(row) for row in self._list.read("SELECT * FROM videos ORDER BY created DESC")]

    def video(self, id: str) -> Film | None:
        """None where there is none of this id."""
        return next((_film(row) for row in self._list.read("SELECT * FROM videos WHERE id = ?", id)), None)

    def example(self) -> Film | None:
        """The bundled video, where it is in the list."""
        return next((_film(row) for row in self._list.read("SELECT * FROM videos WHERE example = 1")), None)

    def jobs(self, state: JobState | None = None) -> list[Job]:
        """Oldest first."""
        rows = self._list.read("SELECT * FROM jobs WHERE ? IS NULL OR state = ? ORDER BY created, rowid", state, state)
        return [_job(row) for row in rows]

    def job(self, id: str) -> Job | None:
        """None where there is none of this id."""
        return next((_job(row) for row in self._list.read("SELECT * FROM jobs WHERE id = ?", id)), None)

    def find(self, video: str, model: str, length: int | None, stride: int | None) -> Job | None:
        """A run of the same model over the same video in the same way that has not failed."""
        same = "video = ? AND model = ? AND length IS ? AND stride IS ? AND state != 'failed'"
        rows = self._list.read(f"SELECT * FROM jobs WHERE {same}", video, model, length, stride)
        return next((_job(row) for row in rows), None)

    def add_video(self, film: Film, scratch: Path) -> None:
        """Take in an uploaded video whose folder is `scratch`."""
        os.replace(scratch, self.video_folder(film.id))
        try:
            self._insert("videos", film)
        except sqlite3.Error:
            shutil.rmtree(self.video_folder(film.id), ignore_errors=True)
            raise

    def add_job(self, video: str, model: str, length: int | None, stride: int | None) -> Job:
        """A new job at the end of the queue."""
        job = Job(
            id=new_id(), video=video, model=model, length=length, stride=stride, state="queued", error=None,
            attempts=0, objects=None, seconds=None, created=time.time(),
        )  # fmt: skip
        self._insert("jobs", job)
        return job

    def start(self, id: str) -> None:
        """The job runs, once more."""
        self._list.change("UPDATE jobs SET state = 'running', attempts = attempts + 1 WHERE id = ?", id)

    def put_back(self, id: str) -> None:
        """The job was left for no fault of its own: it waits again, and the attempt does not count."""
        self._list.change("UPDATE jobs SET state = 'queued', attempts = attempts - 1 WHERE id = ?", id)

    def finish(self, id: str, objects: int, seconds: float) -> None:
        """The job is done and its files are in their place."""
        self._list.change("UPDATE jobs SET state = 'done', objects = ?, seconds = ? WHERE id = ?", objects, seconds, id)

    def fail(self, id: str, error: str) -> None:
        """Keep the one line that says why; of the files nothing, nor of the video's where no other job needs them."""
        job = self.job(id)
        shutil.rmtree(self.job_folder(id), ignore_errors=True)
        if job is not None and not self._needed(job.video, but=id):
            shutil.rmtree(self.video_folder(job.video), ignore_errors=True)
        self._list.change("UPDATE jobs SET state = 'failed', error = ? WHERE id = ?", error, id)

    def remove_job(self, id: str) -> None:
        """Leave nothing of it, nor of its video where no other job was made for that."""
        job = self.job(id)
        shutil.rmtree(self.job_folder(id), ignore_errors=True)
        if job is not None and not self._needed(job.video, but=id):
            self.remove_video(job.video)  # and with it the job
        else:
            self._list.change("DELETE FROM jobs WHERE id = ?", id)

    def remove_video(self, id: str) -> None:
        """Leave nothing of it, nor of its jobs. Files go first: who does not see it any more finds none."""
        for job in self.jobs():
            if job.video == id:
                shutil.rmtree(self.job_folder(job.id), ignore_errors=True)
        shutil.rmtree(self.video_folder(id), ignore_errors=True)
        self._list.change("DELETE FROM videos WHERE id = ?", id)  # and with it its jobs

    def video_folder(self, id: str) -> Path:
        """Where the files of a video are."""
        return self.root / "videos" / id

    def job_folder(self, id: str) -> Path:
        """Where the files of a finished job are."""
        return self.root / "jobs" / id

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that is gone at the end, unless it was moved to its place."""
        folder = self.root / "scratch" / new_id()
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def clean_scratch(self) -> None:
        """Remove what a worker that ended in the middle left behind."""
        shutil.rmtree(self.root / "scratch", ignore_errors=True)
        (self.root / "scratch").mkdir(exist_ok=True)

    def _needed(self, video: str, but: str = "") -> bool:
        """Whether a job other than `but` uses the files of a video."""
        return any(job.video == video and job.state != "failed" and job.id != but for job in self.jobs())

    def _recover(self) -> None:
        """After a crash: jobs that ran are queued again, and files that nobody lists go."""
        self.clean_scratch()
        for job in self.jobs("running"):
            if job.attempts >= MAX_ATTEMPTS:
                self.fail(job.id, "the server stopped twice while this ran; it is not tried again")
            else:
                self._list.change("UPDATE jobs SET state = 'queued' WHERE id = ?", job.id)
        for film in self.videos():
            if not (self.video_folder(film.id) / "source").is_file() and self._needed(film.id):
                self.remove_video(film.id)
        for job in self.jobs("done"):
            if not self.job_folder(job.id).is_dir():
                self.remove_job(job.id)
        self._sweep("videos", {film.id for film in self.videos()})
        self._sweep("jobs", {job.id for job in self.jobs("done")})

    def _sweep(self, name: str, listed: set[str]) -> None:
        for folder in (self.root / name).iterdir():
            if folder.name not in listed:
                shutil.rmtree(folder, ignore_errors=True)

    def _check_ids(self) -> None:
        """An id becomes the name of a folder: a list with any other name in it was not written by us."""
        try:
            ids = [film.id for film in self.videos()] + [job.id for job in self.jobs()]
        except sqlite3.Error:  # a text that is not UTF-8
            ids = [""]
        if not all(isinstance(id, str) and ID.fullmatch(id) for id in ids):
            raise InputError(f"{self.root}: its list of jobs cannot be opened (it was not written by tubelet)")

    def _insert(self, table: str, row: Film | Job) -> None:
        names = [field.name for field in fields(row)]
        marks = ", ".join("?" * len(names))
        self._list.add(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", *(getattr(row, n) for n in names))


def new_id() -> str:
    """64 random bits, as hexadecimal digits."""
    return secrets.token_hex(8)


def _film(row: sqlite3.Row) -> Film:
    flags = {name: bool(row[name]) for name in ("example", "playable", "webm")}
    return Film(**{**dict(row), **flags})


def _job(row: sqlite3.Row) -> Job:
    return Job(**dict(row))
