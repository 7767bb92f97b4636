"""The queue of jobs: one at a time runs in the worker process, a limited number waits.

A watchdog runs twice a second. It kills a worker that ignores a cancellation or sends nothing for too long,
starts a new worker if there is none, writes changes that a full disk refused, and starts the next job.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tubelet.apps.web.jobs import quotas, supervised
from tubelet.apps.web.jobs.errands import Errands
from tubelet.apps.web.jobs.own_models import MOST, OwnModel, check_name
from tubelet.apps.web.jobs.refusals import Busy, Full
from tubelet.apps.web.jobs.store import Film, Job, Store
from tubelet.apps.web.jobs.tasks import QueuedTask, Segmentation, Teaching
from tubelet.apps.web.jobs.trainings import TrainingJob
from tubelet.apps.web.jobs.worker import LoadModel, Message, Worker
from tubelet.apps.web.limits import MEGABYTE, Limits
from tubelet.apps.web.sandbox import Room
from tubelet.apps.web.users import EVERYONE, User
from tubelet.core.errors import InputError

RETRY_AFTER = 20  # seconds after which a client may try again if the server is busy
MAX_FALSE_STARTS = 3  # workers in a row that ended while they loaded the models; then there is a pause
PAUSE = 60.0  # seconds before the next one is started: what ended them may have been another program's want of memory
WATCH_EVERY = 0.5  # seconds
SPARE_BYTES = MEGABYTE  # free on the disk before a job is started
CRASHED = (
    "the worker ended in the middle of this video, perhaps for want of memory; try it again, or with another model"
)
SILENT = "nothing was heard of this video for too long, so it was given up; try it again, or with another model"
UNKEPT = "the result of this video could not be kept, perhaps for want of space on the server's disk"
FULL = "the server's disk is full"
LOADING = "load"  # key of the worker's answers about models that were taught

Known = TypeVar("Known")
log = logging.getLogger("tubelet.web")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """Progress of a running job."""

    stage: str = "starting"
    done: int = 0  # frames
    total: int = 0  # frames
    left: float | None = None  # seconds
    rate: float | None = None  # frames a second


class Jobs:
    """Connects the server's requests with the store and the worker. Thread-safe."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        open_model: LoadModel,
        models: Sequence[str],
        room: Room | None = None,  # what the worker locks itself up in
    ) -> None:
        self.store = store
        self.limits = limits
        self.models: list[Message] = []  # described by the worker
        self.waits_for_space = False  # whether the next job cannot start because the disk is full
        self._open_model = open_model
        self._names = models
        self._room = room
        self._lock = threading.RLock()

        self._worker: Worker | None = None
        self._ready = threading.Event()  # the worker has loaded the models
        self._refusal: str | None = None  # why it could not
        self._false_starts = 0
        self._last_false_start = 0.0
        self._last_message = time.monotonic()  # of the current job
        self._started = time.monotonic()  # the current job
        self._overdue: str | None = None  # why the worker was killed

        self._opened = False
        self._ending = False
        self._closed = False
        self._stop = threading.Event()  # ends the watchdog

        self._current: QueuedTask | None = None
        self._progress = JobProgress()  # of the current task
        self._cancelled: float | None = None  # when it was cancelled
        self._videos_to_remove: set[str] = set()  # at the end of the current job

        self._errands = Errands(self._lock, lambda order: self._send(order), self._takes_errands, self._give_up_errand)

    def open(self) -> None:
        """Start the worker and wait until it has loaded the models. Raises InputError if it cannot."""
        self._start_worker()
        supervised.repeat(self._watch, "the watchdog")
        self._ready.wait()
        if self._refusal is not None:
            self.close()
            raise InputError(self._refusal)
        self._opened = True

    def close(self) -> None:
        """End the worker. A running job is queued again for the next start; a cancelled one is removed."""
        with self._lock:
            self._closed = True
            self._stop.set()
            worker = self._worker
            self._worker = None
            self._errands.fail()
            if worker is not None:
                worker.kill()
            ended = self._put_back_current()
        if worker is not None:
            worker.join()
        if ended is not None:
            ended.clean()

    @property
    def ending(self) -> bool:
        """Whether the server is shutting down."""
        return self._ending or self._closed

    def end_streams(self) -> None:
        """End the streams of progress, because the server is shutting down."""
        self._ending = True

    @property
    def worker_pid(self) -> int | None:
        """The id of the worker process; None if there is none."""
        return None if self._worker is None else self._worker.pid

    def submit(
        self,
        film: Film,
        model: str,
        length: int | None = None,
        stride: int | None = None,
        classes: Collection[str] | None = None,
        user: User = EVERYONE,
    ) -> Job:
        """Queue a job, or return the one of the same model, video, window and classes that has not failed.

        Raises Busy if the queue is full, Full if the disk is, Spent if the user has had enough for a day, InputError if
        the video's file was removed.
        """
        with self._lock:
            earlier = self.store.find(film.id, model, length, stride, classes)
            if earlier is not None:
                return earlier

            self.check_room(user)
            if not self.source(film).is_file():
                raise InputError("the file of this video is gone; send it again")
            if self.disk_is_full():
                raise Full(FULL)

            job = self.store.add_job(film.id, model, length, stride, classes)
            self._note_asked(user)
            self._start_next()
            return self.store.job(job.id) or job

    def teach(self, training: TrainingJob, scratch: Path, user: User = EVERYONE) -> None:
        """Queue a training; the folder `scratch` holds what is learned from.

        Raises InputError for a name that cannot be, Busy if the queue is full, Full if the disk is, Spent if the user
        has had enough for a day.
        """
        with self._lock:
            self.check_new_model(training.name, user)
            self.check_room(user)
            if self.disk_is_full():
                raise Full(FULL)
            self.store.trainings.add(training, scratch)
            self._note_asked(user)
            self._start_next()

    def stop_training(self, training: TrainingJob) -> None:
        """Stop a training so that it can go on later."""
        with self._lock:
            if self._current is not None and self._current.id == training.id:
                self._cancel_current()
            elif training.state == "queued":
                self.store.trainings.set_state(training.id, "stopped")

    def go_on(self, training: TrainingJob, user: User = EVERYONE) -> None:
        """Queue a training again that was stopped or has failed. Raises Busy if the queue is full."""
        with self._lock:
            if training.state in ("stopped", "failed"):
                self.check_room(user)
                self.store.trainings.go_on(training.id)
                self._start_next()

    def remove_training(self, training: TrainingJob) -> None:
        """Remove a training and its files; a running one is stopped first. The model that it has made stays."""
        with self._lock:
            current = self._current
            if current is None or current.id != training.id:
                self.store.trainings.remove(training.id)
                return
            assert isinstance(current, Teaching), "its id is a training's"
            current.removed = True
            self._cancel_current()

    def models_for(self, user: User) -> list[Message]:
        """The models that a user may ask: those that the server was started with, and the user's own."""
        own = {model.name for model in self.store.models.all() if user.sees(model.owner)}
        return [model for model in self.models if model["name"] in own or model["name"] in self._names]

    def model_for(self, user: User, name: str) -> Message | None:
        """The model of this name, if a user may ask it."""
        return next((model for model in self.models_for(user) if model["name"] == name), None)

    def check_new_model(self, name: str, user: User = EVERYONE) -> None:
        """Raise InputError unless a new model of a user can have this name, which is qualified."""
        models = self.store.models.all()
        pending = [other.name for other in self.store.trainings.all() if other.state != "done"]
        check_name(name, user.name, [*self._names, *(model.name for model in models), *pending])
        if sum(model.owner == user.name for model in models) >= MOST:
            raise InputError(f"there are {MOST} models of your own already; remove one first")

    def add_model(self, model: OwnModel, path: Path, description: Message, user: User = EVERYONE) -> None:
        """Add a model that the worker has loaded from `path`, which is moved."""
        with self._lock:
            self.check_new_model(model.name, user)
            self.store.models.add(model, path)
            self.models.append(description)

    def remove_model(self, model: OwnModel) -> None:
        """Remove a model of the page's own; results that it has given stay."""
        with self._lock:
            self.store.models.remove(model.id)
            self.models = [other for other in self.models if other["name"] != model.name]
            self._send({"do": "forget", "key": model.id, "name": model.name})

    def check_room(self, user: User = EVERYONE) -> None:
        """Raise Busy if the queue is full, Full or Spent if the user may have no more, Busy if there is no worker."""
        waiting = self._waiting()
        if len(waiting) >= self.limits.waiting:
            raise Busy(f"busy: {len(waiting)} videos are waiting already, which is all that fit; try again in a while")
        quotas.check_waiting(user, waiting, self.store)
        quotas.check_day(user, self.store)
        quotas.check_bytes(user, self.store)
        if self._false_starts >= MAX_FALSE_STARTS:
            raise Busy("the models cannot be loaded now; whoever runs this server finds the reason in its log")

    def cancel(self, job: Job) -> None:
        """Remove a job and its files, whatever its state; a running one is stopped first. Its video stays."""
        with self._lock:
            if self._current is None or self._current.id != job.id:
                self.store.remove_job(job.id)
            else:
                self._cancel_current()

    def remove(self, film: Film) -> None:
        """Remove a video and all its jobs."""
        with self._lock:
            for job in self.store.jobs():
                if job.video == film.id:
                    self.cancel(job)

            if self._current is not None and film.id in self._current.videos:
                self._videos_to_remove.add(film.id)
            else:
                self.store.remove_video(film.id)

    def make_room(self, owner: str = "") -> None:
        """Remove a user's oldest videos beyond `limits.kept`, except those that a queued or running job needs."""
        with self._lock:
            used = {job.video for job in self.store.jobs() if job.state in ("queued", "running")}
            for training in self.store.trainings.all():
                if training.state in ("queued", "running", "stopped"):
                    used.update(training.video_ids)
            films = [film for film in self.store.videos() if film.owner == owner]
            for film in films[self.limits.kept :]:
                if film.id not in used:
                    self.store.remove_video(film.id)

    def _note_asked(self, user: User) -> None:
        if user.name:
            self.store.note_asked(user.name, time.time())

    def disk_is_full(self) -> bool:
        """Whether less than SPARE_BYTES are free, too little for a result."""
        return shutil.disk_usage(self.store.root).free < SPARE_BYTES

    def progress(self, job: Job | TrainingJob) -> tuple[JobProgress | None, int]:
        """A running job's progress, else None; and the number of jobs that run or wait before it."""
        with self._lock:
            if self._current is not None and self._current.id == job.id:
                return self._progress, 0
            num_earlier = sum(other.created < job.created for other in self._waiting())
            num_running = int(self._current is not None)
            return None, num_earlier + num_running

    def ask(
        self,
        errand: Message,
        timeout: float,
        address: str = "",
        hear: Callable[[Message], None] = lambda progress: None,
        stop: threading.Event | None = None,
    ) -> Message:
        """Have the worker do a short task and wait for its answer.

        One address may wait for half of errands.MOST at the same time. `hear` is called with progress, if the task
        sends any; it is cancelled when `stop` is set. Raises Busy if there are too many, InputError if the task fails
        or sends nothing for `timeout` seconds.
        """
        return self._errands.ask(errand, timeout, address, hear, stop)

    def tell(self, message: Message) -> None:
        """Send the worker a message that it does not answer."""
        with self._lock:
            self._send(message)

    def source(self, film: Film) -> Path:
        """The path of the uploaded file."""
        return self.store.video_folder(film.id) / "source"

    def play_file(self, film: Film) -> Path:
        """The path of the file that browsers play: the source, or the copy that the first job makes."""
        play_copy = self.store.video_folder(film.id) / "play.mp4"
        if play_copy.is_file() or not film.playable:
            return play_copy
        return self.source(film)

    def _watch(self) -> bool:
        """One round of the watchdog; returns whether there will be another."""
        if self._stop.wait(WATCH_EVERY):
            return False
        with self._lock:
            self.store.catch_up()
            if self._worker is None:
                self._replace_worker()
            elif self._is_overdue():
                self._worker.kill()  # _on_message gets None, as at any other end
            self._start_next()
        return True

    def _is_overdue(self) -> bool:
        now = time.monotonic()
        if self._cancelled is not None:
            return self._current is not None and now - self._cancelled > self._current.grace
        is_working = self._current is not None or (self._opened and not self._ready.is_set())
        minutes = self.limits.minutes if self._current is not None and self._current.is_bounded else 0
        if is_working and now - self._last_message > self.limits.silence:
            self._overdue = SILENT
        elif minutes and now - self._started > 60 * minutes:
            self._overdue = f"this took longer than the {minutes} minutes that a video may take; its files are removed"
        return self._overdue is not None

    def _start_worker(self) -> None:
        self._ready.clear()
        worker: Worker | None = None

        def on_message(message: Message | None) -> None:
            with self._lock:
                if worker is self._worker or self._worker is None:  # not of a worker that was replaced
                    self._on_message(message)

        with self._lock:
            self._last_message = time.monotonic()
            own = {model.name: str(self.store.models.path(model.id)) for model in self.store.models.all()}
            worker = Worker(self._open_model, self._names, on_message, own, self._room)
            self._worker = worker

    def _send(self, message: Message) -> None:
        if self._worker is not None:
            self._worker.send(message)

    def _on_message(self, message: Message | None) -> None:
        """Handle a message of the worker; None if it has ended."""
        if self._closed:
            self._ready.set()
        elif message is None:
            self._on_worker_end()
        elif message["say"] == "ready":
            self.models = message["models"]
            self._false_starts = 0
            self._ready.set()
            self._start_next()
        elif message["say"] == "refused":
            self._refusal = message["error"]
        elif self._errands.on_message(message):
            pass
        elif message["key"] == LOADING:
            self._on_model(message)
        elif self._current is not None and message["key"] == self._current.id:
            self._last_message = time.monotonic()  # not for errands: they go on while a job is stuck
            self._on_job_message(self._current, message)

    def _on_job_message(self, task: QueuedTask, message: Message) -> None:
        """Handle a message about the current task; an error here fails the task, so that the others can run."""
        try:
            self._apply(task, message)
        except Exception as error:
            is_expected = isinstance(error, OSError)
            log.error("a job could not be settled: %s", error, exc_info=None if is_expected else error)
            self._send({"do": "cancel", "key": task.id})
            task.fail(UNKEPT)
            self._end_current(task)

    def _apply(self, task: QueuedTask, message: Message) -> None:
        if message["say"] == "progress":
            fields = {name: message[name] for name in ("stage", "done", "total", "left", "rate")}
            self._progress = JobProgress(**fields)
            return
        if message["say"] == "prepared":
            task.hear(message)
            return

        if message["say"] == "done" and self._cancelled is None:
            task.finish(message)
            self._load_new_models()
        elif message["say"] == "failed" and self._cancelled is None:
            task.fail(message["error"])
        else:
            task.cancel()
        self._end_current(task)

    def _load_new_models(self) -> None:
        """Have the worker load the models that were taught since it started."""
        loaded = [model["name"] for model in self.models]
        for model in self.store.models.all():
            if model.name not in loaded:
                order = {
                    "do": "load",
                    "key": LOADING,
                    "name": model.name,
                    "source": str(self.store.models.path(model.id)),
                }
                self._send(order)

    def _on_model(self, message: Message) -> None:
        if message["say"] == "failed":
            log.error("a model of the page cannot be loaded: %s", message["error"])
        else:
            self.models.append(message["model"])

    def _cancel_current(self) -> None:
        if self._current is not None and self._cancelled is None:
            self._cancelled = time.monotonic()
            self._send({"do": "cancel", "key": self._current.id})

    def _put_back_current(self) -> QueuedTask | None:
        """Queue the current task again, because the server is shutting down; settle it if it was cancelled."""
        task = self._current
        self._current = None
        if task is None:
            return None
        gone = self._videos_to_remove.intersection(task.videos)
        for video in gone:
            self.store.remove_video(video)
        if not gone and self._cancelled is not None:
            task.cancel()
        elif not gone:
            task.put_back()
        return task

    def _end_current(self, task: QueuedTask) -> None:
        """Clean up after the current task and start the next one."""
        self._current = None
        self._cancelled = None
        task.clean()
        for video in self._videos_to_remove.intersection(task.videos):
            self._videos_to_remove.discard(video)
            self.store.remove_video(video)
        self._start_next()

    def _waiting(self) -> list[Job | TrainingJob]:
        """Jobs and trainings that wait, oldest first."""
        waiting: list[Job | TrainingJob] = [*self.store.jobs("queued"), *self.store.trainings.all("queued")]
        return sorted(waiting, key=lambda job: job.created)

    def _start_next(self) -> None:
        """Start the oldest waiting task, if the worker is idle; if the disk is full, the watchdog tries again."""
        if self._current is not None or not self._ready.is_set() or self._closed or self._worker is None:
            return
        self._fail_unserved()

        job = next(iter(self._waiting()), None)
        self.waits_for_space = job is not None and self.disk_is_full()
        if job is None or self.waits_for_space:
            return

        task = self._task(job)
        try:
            order = task.start()
        except OSError as error:
            log.warning("no job can be started: %s", error)
            return
        self._current = task
        self._progress = JobProgress()
        self._cancelled = None
        self._started = time.monotonic()
        self._last_message = self._started
        self._send(order)

    def _task(self, job: Job | TrainingJob) -> QueuedTask:
        if isinstance(job, Job):
            return Segmentation(self.store, job)
        own = next((model for model in self.store.models.all() if model.name == job.model), None)
        return Teaching(self.store, job, job.model if own is None else str(self.store.models.path(own.id)))

    def _fail_unserved(self) -> None:
        served = [*self._names, *(model.name for model in self.store.models.all())]
        for job in self._waiting():
            if job.model in served:
                continue
            line = f"the model {job.model!r} is not served any more"
            if isinstance(job, Job):
                self.store.fail(job.id, line)
            else:
                self.store.trainings.set_state(job.id, "failed", line)

    def _on_worker_end(self) -> None:
        """Note that the worker has ended; the watchdog ends its job and starts another worker."""
        if self._opened and not self._ready.is_set():
            self._false_starts += 1
            self._last_false_start = time.monotonic()
        self._worker = None
        self._ready.clear()
        self._errands.fail()
        if not self._opened:
            self._refusal = self._refusal or "the worker ended while it loaded the models"
            self._ready.set()

    def _replace_worker(self) -> None:
        """End the task of a worker that has ended, and start another worker unless too many failed to start."""
        task = self._current
        if task is not None and self._cancelled is not None:
            task.clean()
            task.cancel()
            self._end_current(task)
        elif task is not None:
            log.warning("the worker ended in the middle of a job")
            task.clean()
            task.fail(self._overdue or CRASHED)
            self._end_current(task)

        self._overdue = None
        is_paused = self._false_starts >= MAX_FALSE_STARTS and time.monotonic() - self._last_false_start < PAUSE
        if self._opened and not is_paused:
            self._start_worker()

    def _takes_errands(self) -> bool:
        return self._worker is not None and self._ready.is_set()

    def _give_up_errand(self) -> None:
        """Kill a worker that does nothing else: it may never return from an errand."""
        if self._current is None and self._worker is not None:
            self._worker.kill()


def known(value: Known | None) -> Known:
    """The value itself. Raises KeyError, which the server answers with 404, if it is None."""
    if value is None:
        raise KeyError
    return value


def described(job: Job, progress: JobProgress | None, ahead: int, full: bool) -> dict[str, Any]:
    """A job as JSON for the page: `ahead` jobs run before it; `full` if it waits for space on the disk."""
    description: dict[str, Any] = {
        "id": job.id,
        "video": job.video,
        "model": job.model,
        "length": job.length,
        "stride": job.stride,
        "classes": job.class_names,
        "state": job.state,
        "error": job.error,
        "objects": job.objects,
        "seconds": job.seconds,
    }
    if job.state == "queued":
        description["ahead"] = ahead
        description["full"] = full
    if progress is not None:
        description |= asdict(progress)
    return description
