"""The queue: one job at a time goes to the worker, a bounded number waits, and every end of a job is tidied up.

A watchdog looks after it all twice a second: it ends a worker that does not stop when it is told to, or that has been
silent for too long, starts another where none is, writes what a full disk refused, and gives out the next job.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from tubelet.apps.web.jobs import supervised
from tubelet.apps.web.jobs.store import Film, Job, Store, new_id
from tubelet.apps.web.jobs.worker import LoadModel, Message, Worker
from tubelet.apps.web.limits import MEGABYTE, Limits
from tubelet.core.errors import InputError

RETRY_AFTER = 20  # seconds, when busy
GRACE = 3.0  # seconds that a job has to notice that it was cancelled, before its process is ended
MAX_ERRANDS = 4  # at the same time
MAX_FALSE_STARTS = 3
WATCH_EVERY = 0.5  # seconds
SPARE_BYTES = MEGABYTE  # free on the disk before a job is started
CRASHED = "the worker ended in the middle of this video, perhaps for want of memory; its files are removed"
SILENT = "nothing was heard of this video for too long, so it was given up; its files are removed"
UNKEPT = "the result of this video could not be kept, perhaps for want of space on the server's disk"
FULL = "the server's disk is full"

Known = TypeVar("Known")
log = logging.getLogger("tubelet.web")


class Busy(Exception):
    """As much is waiting as is allowed; its text is fit for a browser."""


class Full(Exception):
    """There is no space on the disk; its text is fit for a browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """How far a running job is."""

    stage: str = "starting"
    done: int = 0
    total: int = 0
    left: float | None = None  # seconds
    rate: float | None = None  # frames a second


@dataclass(slots=True)
class _Errand:
    address: str  # of who waits for it
    finished: threading.Event = field(default_factory=threading.Event)
    answer: Message | None = None


class Jobs:
    """Between the server's requests and the worker; all methods may be called from any thread."""

    def __init__(self, store: Store, limits: Limits, open_model: LoadModel, models: Sequence[str]) -> None:
        self.store, self.limits = store, limits
        self.models: list[Message] = []  # as the worker describes them
        self.waits_for_space = False  # the queue does
        self._open_model, self._names = open_model, models
        self._lock = threading.RLock()
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._worker: Worker | None = None
        self._refusal: str | None = None
        self._opened = False
        self._false_starts = 0
        self._closed = self._ending = False
        self._current: Job | None = None
        self._scratch: Path | None = None
        self._cancelled: float | None = None  # since when
        self._silent = False
        self._last_heard = time.monotonic()
        self._doomed: set[str] = set()  # videos to remove as soon as the current job lets go of them
        self._progress = JobProgress()
        self._errands: dict[str, _Errand] = {}
        self._numbers = itertools.count()

    def open(self) -> None:
        """Start the worker and wait for its models; raises InputError, in one line, where they cannot be loaded."""
        self._hire()
        supervised.repeat(self._watch, "the watchdog")
        self._ready.wait()
        if self._refusal is not None:
            self.close()
            raise InputError(self._refusal)
        self._opened = True

    def close(self) -> None:
        """End the worker. A running job is queued again for the next start; a cancelled one is gone."""
        with self._lock:
            self._closed = True
            self._stop.set()
            worker, self._worker = self._worker, None
            self._fail_errands()
            if worker is not None:
                worker.kill()
            self._put_back()
        if worker is not None:
            worker.join()
        self._drop_scratch()

    @property
    def ending(self) -> bool:
        """Whether the server is going down."""
        return self._ending or self._closed

    def end_streams(self) -> None:
        """The server is going down: who follows a job's progress is to let go."""
        self._ending = True

    @property
    def worker_pid(self) -> int | None:
        """Of the process that holds the models."""
        return None if self._worker is None else self._worker.pid

    def submit(self, film: Film, model: str, length: int | None = None, stride: int | None = None) -> Job:
        """A job in the queue, or the one that did the same before. Raises Busy where the queue is full."""
        with self._lock:
            known = self.store.find(film.id, model, length, stride)
            if known is not None:
                return known
            self.check_room()
            if not self.source(film).is_file():
                raise InputError("this video was removed after it had failed; send it again")
            if self.disk_is_full():
                raise Full(FULL)
            job = self.store.add_job(film.id, model, length, stride)
            self._next()
            return self.store.job(job.id) or job

    def check_room(self) -> None:
        """Raise Busy where the queue is full."""
        waiting = len(self.store.jobs("queued"))
        if waiting >= self.limits.waiting:
            raise Busy(f"busy: {waiting} videos are waiting already, which is all that fit; try again in a while")
        if self._false_starts >= MAX_FALSE_STARTS:
            raise Busy("the models cannot be loaded any more; whoever runs this server finds the reason in its log")

    def cancel(self, job: Job) -> None:
        """End a job and leave nothing of it, whatever its state."""
        with self._lock:
            if self._current is None or self._current.id != job.id:
                self.store.remove_job(job.id)
                return
            if self._cancelled is None:
                self._cancelled = time.monotonic()
                self._say({"do": "cancel", "key": job.id})

    def remove(self, film: Film) -> None:
        """Remove a video and all its jobs."""
        with self._lock:
            for job in self.store.jobs():
                if job.video == film.id:
                    self.cancel(job)
            if self._current is not None and self._current.video == film.id:
                self._doomed.add(film.id)
            else:
                self.store.remove_video(film.id)

    def make_room(self) -> None:
        """Remove the oldest videos over the number that is kept; those in use stay."""
        with self._lock:
            used = {job.video for job in self.store.jobs() if job.state in ("queued", "running")}
            for film in self.store.videos()[self.limits.kept :]:
                if film.id not in used:
                    self.store.remove_video(film.id)

    def disk_is_full(self) -> bool:
        """Whether a job had no space for its result."""
        return shutil.disk_usage(self.store.root).free < SPARE_BYTES

    def progress(self, job: Job) -> tuple[JobProgress | None, int]:
        """How far a running job is, else None; and how many jobs run or wait before it."""
        with self._lock:
            if self._current is not None and self._current.id == job.id:
                return self._progress, 0
            before = [other for other in self.store.jobs("queued") if other.created < job.created]
            return None, len(before) + (self._current is not None)

    def ask(self, errand: Message, timeout: float, address: str = "") -> Message:
        """Have the worker do something short; raises Busy, or InputError with a line fit for a browser.

        One address may wait for half of MAX_ERRANDS at the same time.
        """
        with self._lock:
            if len(self._errands) >= MAX_ERRANDS or self._worker is None or not self._ready.is_set():
                raise Busy("busy: others are waiting for downloads; try again in a while")
            if sum(waiting.address == address for waiting in self._errands.values()) >= MAX_ERRANDS // 2:
                raise Busy("busy: you are waiting for other downloads already; try again in a while")
            key = f"errand {next(self._numbers)}"
            mine = self._errands[key] = _Errand(address=address)
            self._say({**errand, "key": key})
        mine.finished.wait(timeout)
        with self._lock:
            self._errands.pop(key, None)
            if not mine.finished.is_set():
                self._say({"do": "cancel", "key": key})
                if self._current is None and self._worker is not None:
                    self._worker.kill()  # it may never come back from this
        if mine.answer is None or "error" in mine.answer:
            raise InputError(mine.answer["error"] if mine.answer else "this took too long and was given up")
        return mine.answer

    def source(self, film: Film) -> Path:
        """The file that was uploaded."""
        return self.store.video_folder(film.id) / "source"

    def play_file(self, film: Film) -> Path:
        """The file that browsers play: made by the first job where the source is none."""
        made = self.store.video_folder(film.id) / "play.mp4"
        return made if made.is_file() or not film.playable else self.source(film)

    def _watch(self) -> bool:
        """One look of the watchdog; whether there will be another."""
        if self._stop.wait(WATCH_EVERY):
            return False
        with self._lock:
            self.store.catch_up()
            if self._worker is None:
                self._replace_worker()
            elif self._is_overdue():
                self._worker.kill()  # its end is heard like any other
            self._next()
        return True

    def _is_overdue(self) -> bool:
        now = time.monotonic()
        if self._cancelled is not None:
            return now - self._cancelled > GRACE
        waits = self._current is not None or (self._opened and not self._ready.is_set())
        self._silent = waits and now - self._last_heard > self.limits.silence
        return self._silent

    def _hire(self) -> None:
        self._ready.clear()
        worker: Worker | None = None

        def heard(message: Message | None) -> None:
            with self._lock:
                if worker is self._worker or self._worker is None:
                    self._heard(message)

        with self._lock:
            self._last_heard = time.monotonic()
            self._worker = worker = Worker(self._open_model, self._names, heard)

    def _say(self, message: Message) -> None:
        if self._worker is not None:
            self._worker.send(message)

    def _heard(self, message: Message | None) -> None:
        if self._closed:
            self._ready.set()
        elif message is None:
            self._mourn()
        elif message["say"] == "ready":
            self.models, self._false_starts = message["models"], 0
            self._ready.set()
            self._next()
        elif message["say"] == "refused":
            self._refusal = message["error"]
        elif message["key"] in self._errands:
            errand = self._errands[message["key"]]
            errand.answer = message
            errand.finished.set()
        elif self._current is not None and message["key"] == self._current.id:
            self._last_heard = time.monotonic()  # errands do not count: a stuck job is not saved by them
            self._of_job(self._current, message)

    def _of_job(self, job: Job, message: Message) -> None:
        """An error here ends the job: else it stayed the current one for ever, and all others waited for it."""
        try:
            self._apply(job, message)
        except Exception as error:
            expected = isinstance(error, OSError)
            log.error("a job could not be settled: %s", error, exc_info=None if expected else error)
            self._say({"do": "cancel", "key": job.id})
            self._drop_scratch()
            self.store.fail(job.id, UNKEPT)
            self._leave(job)

    def _apply(self, job: Job, message: Message) -> None:
        assert self._scratch is not None
        if message["say"] == "progress":
            self._progress = JobProgress(**{name: message[name] for name in ("stage", "done", "total", "left", "rate")})
            return
        if message["say"] == "prepared":
            os.replace(self._scratch / "play.mp4", self.store.video_folder(job.video) / "play.mp4")
            return
        if message["say"] == "done" and self._cancelled is None:
            os.replace(self._scratch, self.store.job_folder(job.id))
            self.store.finish(job.id, message["objects"], message["seconds"])
        elif message["say"] == "failed" and self._cancelled is None:
            self._drop_scratch()
            self.store.fail(job.id, message["error"])
        else:
            self._drop_scratch()
            self.store.remove_job(job.id)
        self._leave(job)

    def _put_back(self) -> None:
        """The server ends in the middle of the current job."""
        job, self._current = self._current, None
        if job is None:
            return
        if job.video in self._doomed:
            self.store.remove_video(job.video)
        elif self._cancelled is not None:
            self.store.remove_job(job.id)
        else:
            self.store.put_back(job.id)

    def _leave(self, job: Job) -> None:
        """The current job is over: tidy up and take the next."""
        self._current = None
        self._cancelled = None
        self._drop_scratch()
        if job.video in self._doomed:
            self._doomed.discard(job.video)
            self.store.remove_video(job.video)
        self._next()

    def _next(self) -> None:
        """Give the worker the oldest job that waits, unless the disk is full: then the watchdog asks again."""
        if self._current is not None or not self._ready.is_set() or self._closed or self._worker is None:
            return
        self._fail_unserved()
        job = next(iter(self.store.jobs("queued")), None)
        self.waits_for_space = job is not None and self.disk_is_full()
        if job is None or self.waits_for_space:
            return
        scratch = self.store.root / "scratch" / new_id()
        try:
            scratch.mkdir()
        except OSError as error:
            log.warning("no job can be started: %s", error)
            return
        self._start(job, scratch)

    def _fail_unserved(self) -> None:
        for job in self.store.jobs("queued"):
            if job.model not in self._names:
                self.store.fail(job.id, f"the model {job.model!r} is not served any more")

    def _start(self, job: Job, scratch: Path) -> None:
        film = self.store.video(job.video)
        assert film is not None, "a video's jobs go with it"
        self._current, self._progress, self._cancelled = replace(job, state="running"), JobProgress(), None
        self._scratch = scratch
        self._last_heard = time.monotonic()
        self.store.start(job.id)
        order = {"do": "segment", "key": job.id, "model": job.model, "length": job.length, "stride": job.stride}
        self._say({**order, **self._files(film), "out": str(scratch)})

    def _files(self, film: Film) -> Message:
        has_play = (self.store.video_folder(film.id) / "play.mp4").is_file()
        return {"source": str(self.source(film)), "name": film.name, "playable": film.playable, "has_play": has_play}

    def _mourn(self) -> None:
        """The worker has ended; the watchdog settles its job and starts another one."""
        if self._opened and not self._ready.is_set():
            self._false_starts += 1
        self._worker = None
        self._ready.clear()
        self._fail_errands()
        if not self._opened:
            self._refusal = self._refusal or "the worker ended while it loaded the models"
            self._ready.set()

    def _replace_worker(self) -> None:
        """Settle the job of a worker that has ended, and start another one unless none comes up."""
        job = self._current
        self._drop_scratch()
        if job is not None and self._cancelled is not None:
            self.store.remove_job(job.id)
            self._leave(job)
        elif job is not None:
            log.warning("the worker ended in the middle of a job")
            self.store.fail(job.id, SILENT if self._silent else CRASHED)
            self._leave(job)
        self._silent = False
        if self._opened and self._false_starts < MAX_FALSE_STARTS:
            self._hire()

    def _fail_errands(self) -> None:
        for errand in self._errands.values():
            errand.answer = {"error": "the worker ended meanwhile; try again"}
            errand.finished.set()

    def _drop_scratch(self) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch = None


def known(value: Known | None) -> Known:
    """The value; raises KeyError for None: an id that nobody has."""
    if value is None:
        raise KeyError
    return value


def described(job: Job, progress: JobProgress | None, ahead: int, full: bool) -> dict[str, Any]:
    """A job as the page takes it; `full`: it waits for space on the disk."""
    told: dict[str, Any] = {
        "id": job.id, "video": job.video, "model": job.model, "length": job.length, "stride": job.stride,
        "state": job.state, "error": job.error, "objects": job.objects, "seconds": job.seconds,
    }  # fmt: skip
    if job.state == "queued":
        told["ahead"] = ahead
        told["full"] = full
    if progress is not None:
        told |= {"stage": progress.stage, "done": progress.done, "total": progress.total, "left": progress.left}
        told |= {"rate": progress.rate}
    return told
