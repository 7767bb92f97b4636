"""The server's videos and jobs on the disk: a list in SQLite, and a folder of files for each.

    DIR/jobs.sqlite                 the list; see joblist.py
    DIR/videos/<id>/source          the uploaded file; its name is only a text in the list
    DIR/videos/<id>/play.mp4        a copy for browsers, if they cannot play the source
    DIR/jobs/<id>/result.json.gz    what the page shows; downloads are stored beside it
    DIR/trainings/<id>/, DIR/models/<id>/   see trainings.py and own_models.py
    DIR/scratch/, DIR/temporary/    unfinished files, and what libraries of the worker put aside; emptied at every start

Ids are random and made here: nothing that a browser sends becomes part of a path.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tubelet.apps.web.jobs.joblist import JobList
from tubelet.apps.web.jobs.links import SharedLinks
from tubelet.apps.web.jobs.own_models import OwnModels
from tubelet.apps.web.jobs.trainings import Trainings
from tubelet.core.atomic import check_folder
from tubelet.core.errors import InputError

JobState = Literal["queued", "running", "done", "failed"]
MAX_ATTEMPTS = 2  # after a crash, so that a video which crashes the server is not tried for ever
TEMPORARY = "temporary"
DAY = 86400.0  # seconds
ID = re.compile(r"[0-9a-f]{16}")  # what new_id returns; the name of a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A video in the list."""

    id: str
    name: str  # of the uploaded file; only shown, never used as a path
    example: bool
    bytes: int
    width: int
    height: int
    frames: int
    seconds: float
    playable: bool  # whether browsers play the uploaded file
    webm: bool
    created: float  # seconds since 1970
    owner: str = ""  # name of the user who sent it


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One model's run over one video."""

    id: str
    video: str
    model: str
    length: int | None  # frames in a window; None for the model's own window
    stride: int | None
    state: JobState
    error: str | None  # one line for the user
    attempts: int
    objects: int | None
    seconds: float | None  # duration of the run
    created: float  # seconds since 1970
    classes: str | None = None  # names of those to keep, as a JSON list in alphabetical order; None for all

    @property
    def class_names(self) -> list[str] | None:
        """The names of the classes to keep; None for all."""
        return None if self.classes is None else json.loads(self.classes)


class Store:
    """The list and the folders. Thread-safe.

    Raises InputError if the folder is in use, cannot be written to, or contains another program's list.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        check_folder(root)
        try:
            for name in ("videos", "jobs", "trainings", "models", "scratch", TEMPORARY):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"{root}: expected a folder that can be written to ({reason})") from None

        self._list = JobList(root / "jobs.sqlite")
        self.trainings = Trainings(self._list, root)
        self.models = OwnModels(self._list, root)
        self.links = SharedLinks(self._list)
        try:
            self._check_ids()
            self._recover()
        except BaseException:
            self._list.close()
            raise

    def close(self) -> None:
        """Close the list and unlock the folder."""
        self._list.close()

    def catch_up(self) -> bool:
        """Write the changes that a full disk refused; returns whether all are written."""
        return self._list.catch_up()

    def videos(self) -> list[Film]:
        """All videos, newest first."""
        rows = self._list.read("SELECT * FROM videos ORDER BY created DESC")
        return [_film(row) for row in rows]

    def video(self, id: str) -> Film | None:
        """The video of this id; None if there is none."""
        rows = self._list.read("SELECT * FROM videos WHERE id = ?", id)
        return _film(rows[0]) if rows else None

    def example(self, owner: str = "") -> Film | None:
        """The bundled video as a user added it; None if it is not in the list."""
        rows = self._list.read("SELECT * FROM videos WHERE example = 1 AND owner = ?", owner)
        return _film(rows[0]) if rows else None

    def jobs(self, state: JobState | None = None) -> list[Job]:
        """All jobs, or those in this state, oldest first."""
        rows = self._list.read("SELECT * FROM jobs WHERE ? IS NULL OR state = ? ORDER BY created, rowid", state, state)
        return [_job(row) for row in rows]

    def job(self, id: str) -> Job | None:
        """The job of this id; None if there is none."""
        rows = self._list.read("SELECT * FROM jobs WHERE id = ?", id)
        return _job(rows[0]) if rows else None

    def find(
        self, video: str, model: str, length: int | None, stride: int | None, classes: Collection[str] | None = None
    ) -> Job | None:
        """A job of the same model, video, window and classes that has not failed; None if there is none."""
        same = "video = ? AND model = ? AND length IS ? AND stride IS ? AND classes IS ? AND state != 'failed'"
        values = (video, model, length, stride, _as_text(classes))
        rows = self._list.read(f"SELECT * FROM jobs WHERE {same}", *values)
        return _job(rows[0]) if rows else None

    def add_video(self, film: Film, scratch: Path) -> None:
        """Add a video and move the folder `scratch`, which contains its file, to its place."""
        os.replace(scratch, self.video_folder(film.id))
        try:
            self._insert("videos", film)
        except sqlite3.Error:
            shutil.rmtree(self.video_folder(film.id), ignore_errors=True)
            raise

    def add_job(
        self, video: str, model: str, length: int | None, stride: int | None, classes: Collection[str] | None = None
    ) -> Job:
        """Add a job at the end of the queue."""
        job = Job(
            id=new_id(),
            video=video,
            model=model,
            length=length,
            stride=stride,
            state="queued",
            error=None,
            attempts=0,
            objects=None,
            seconds=None,
            created=time.time(),
            classes=_as_text(classes),
        )
        self._insert("jobs", job)
        return job

    def start(self, id: str) -> None:
        """Mark a job as running and count the attempt."""
        self._list.change("UPDATE jobs SET state = 'running', attempts = attempts + 1 WHERE id = ?", id)

    def put_back(self, id: str) -> None:
        """Queue a running job again without counting the attempt: the server was stopped."""
        self._list.change("UPDATE jobs SET state = 'queued', attempts = attempts - 1 WHERE id = ?", id)

    def finish(self, id: str, objects: int, seconds: float) -> None:
        """Mark a job as done; its files must be in its folder."""
        self._list.change("UPDATE jobs SET state = 'done', objects = ?, seconds = ? WHERE id = ?", objects, seconds, id)

    def fail(self, id: str, error: str) -> None:
        """Mark a job as failed and remove its files; its video stays, to be tried again."""
        shutil.rmtree(self.job_folder(id), ignore_errors=True)
        self._list.change("UPDATE jobs SET state = 'failed', error = ? WHERE id = ?", error, id)

    def remove_job(self, id: str) -> None:
        """Remove a job and its files; its video stays, to be tried again."""
        shutil.rmtree(self.job_folder(id), ignore_errors=True)
        self._list.change("DELETE FROM jobs WHERE id = ?", id)

    def remove_video(self, id: str) -> None:
        """Remove a video, its jobs and all their files. Files go first, so that none remains without a row."""
        for job in self.jobs():
            if job.video == id:
                shutil.rmtree(self.job_folder(job.id), ignore_errors=True)
        shutil.rmtree(self.video_folder(id), ignore_errors=True)
        self._list.change("DELETE FROM videos WHERE id = ?", id)  # removes its jobs, too

    def steps(self, job: str) -> list[str]:
        """The steps in which a result was edited, in order; see edited.py."""
        rows = self._list.read("SELECT step FROM steps WHERE job = ? ORDER BY number", job)
        return [row["step"] for row in rows]

    def num_edits(self, job: str) -> int:
        """How many steps a result was edited in."""
        return int(self._list.read("SELECT COUNT(*) AS number FROM steps WHERE job = ?", job)[0]["number"])

    def add_step(self, job: str, number: int, step: str) -> None:
        """Add a step. Raises sqlite3.IntegrityError if there is one with this number."""
        self._list.add("INSERT INTO steps VALUES (?, ?, ?)", job, number, step)

    def seen(self, job: str) -> list[tuple[int, int]]:
        """First and last of each run of frames of a result that a person has looked at."""
        rows = self._list.read("SELECT frames FROM seen WHERE job = ?", job)
        return [(first, last) for first, last in json.loads(rows[0]["frames"])] if rows else []

    def set_seen(self, job: str, spans: list[tuple[int, int]]) -> None:
        """Replace the frames that a person has looked at. Raises KeyError if the job was removed."""
        try:
            self._list.change("INSERT OR REPLACE INTO seen VALUES (?, ?)", job, json.dumps(spans))
        except sqlite3.IntegrityError:
            raise KeyError(job) from None

    def owner(self, kind: str, id: str) -> str | None:
        """The user whom a video, job, training or model belongs to; None if there is none of this id."""
        owners = {
            "videos": "SELECT owner FROM videos WHERE id = ?",
            "jobs": "SELECT owner FROM videos WHERE id = (SELECT video FROM jobs WHERE id = ?)",
            "trainings": "SELECT owner FROM trainings WHERE id = ?",
            "models": "SELECT owner FROM models WHERE id = ?",
        }
        rows = self._list.read(owners[kind], id)
        return rows[0]["owner"] if rows else None

    def bytes_of(self, owner: str) -> int:
        """How many bytes the files of a user take: videos, results and downloads, trainings, models."""
        films = [film.id for film in self.videos() if film.owner == owner]
        folders = [self.video_folder(id) for id in films]
        folders += [self.job_folder(job.id) for job in self.jobs() if job.video in films]
        folders += [self.trainings.folder(one.id) for one in self.trainings.all() if one.owner == owner]
        folders += [self.models.folder(model.id) for model in self.models.all() if model.owner == owner]
        return sum(_size(folder) for folder in folders)

    def note_asked(self, owner: str, now: float) -> None:
        """Note that a user has asked for a job; what is older than a day is forgotten."""
        self._list.change("DELETE FROM asked WHERE at < ?", now - DAY)
        self._list.change("INSERT INTO asked VALUES (?, ?)", owner, now)

    def asked(self, owner: str, now: float) -> list[float]:
        """When a user has asked for jobs in the last 24 hours, oldest first; removed jobs count too."""
        rows = self._list.read("SELECT at FROM asked WHERE owner = ? AND at > ? ORDER BY at", owner, now - DAY)
        return [row["at"] for row in rows]

    def video_folder(self, id: str) -> Path:
        """The folder of a video's files."""
        return self.root / "videos" / id

    def source(self, film: Film) -> Path:
        """The path of the uploaded file."""
        return self.video_folder(film.id) / "source"

    def play_file(self, film: Film) -> Path:
        """The path of the file that browsers play: the source, or the copy that the first job makes."""
        play_copy = self.video_folder(film.id) / "play.mp4"
        if play_copy.is_file() or not film.playable:
            return play_copy
        return self.source(film)

    def job_folder(self, id: str) -> Path:
        """The folder of a finished job's files."""
        return self.root / "jobs" / id

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new folder, removed at the end of the block unless it was moved away."""
        folder = self.root / "scratch" / new_id()
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def clean_scratch(self) -> None:
        """Remove the unfinished files of a worker that was killed."""
        for name in ("scratch", TEMPORARY):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir(exist_ok=True)

    def _recover(self) -> None:
        """After a crash, queue interrupted jobs again and make the list and the folders agree."""
        self.clean_scratch()

        for job in self.jobs("running"):
            if job.attempts >= MAX_ATTEMPTS:
                self.fail(job.id, "the server stopped twice while this ran; it is not tried again by itself")
            else:
                self._list.change("UPDATE jobs SET state = 'queued' WHERE id = ?", job.id)

        for film in self.videos():
            if not (self.video_folder(film.id) / "source").is_file():
                self.remove_video(film.id)
        for job in self.jobs("done"):
            if not self.job_folder(job.id).is_dir():
                self.remove_job(job.id)

        self.trainings.recover()
        self.models.recover()
        self._remove_unlisted("trainings", {training.id for training in self.trainings.all()})
        self._remove_unlisted("models", {model.id for model in self.models.all()})
        self._remove_unlisted("videos", {film.id for film in self.videos()})
        self._remove_unlisted("jobs", {job.id for job in self.jobs("done")})

    def _remove_unlisted(self, name: str, ids: set[str]) -> None:
        for folder in (self.root / name).iterdir():
            if folder.name not in ids:
                shutil.rmtree(folder, ignore_errors=True)

    def _check_ids(self) -> None:
        """Raise InputError if an id is not one of `new_id`: it becomes the name of a folder."""
        try:
            ids = [film.id for film in self.videos()] + [job.id for job in self.jobs()]
            ids += [training.id for training in self.trainings.all()] + [model.id for model in self.models.all()]
        except sqlite3.Error:  # a text that is not UTF-8
            ids = [""]
        if not all(isinstance(id, str) and ID.fullmatch(id) for id in ids):
            raise InputError(f"{self.root}: its list of jobs cannot be opened (it was not written by tubelet)")

    def _insert(self, table: str, row: Film | Job) -> None:
        columns = asdict(row)
        names = ", ".join(columns)
        placeholders = ", ".join("?" * len(columns))
        self._list.add(f"INSERT INTO {table} ({names}) VALUES ({placeholders})", *columns.values())


def new_id() -> str:
    """A random id: 64 bits as 16 hexadecimal digits."""
    return secrets.token_hex(8)


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; what goes away meanwhile counts nothing."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.stat(os.path.join(parent, name)).st_size
    return size


def _as_text(classes: Collection[str] | None) -> str | None:
    """Names of classes as the list stores them, so that the same ones give the same text."""
    return None if classes is None else json.dumps(sorted(set(classes)))


def _film(row: sqlite3.Row) -> Film:
    flags = {name: bool(row[name]) for name in ("example", "playable", "webm")}
    return Film(**{**dict(row), **flags})


def _job(row: sqlite3.Row) -> Job:
    return Job(**dict(row))
