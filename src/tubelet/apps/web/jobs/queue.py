"""The queue of jobs: one at a time runs in the worker process, a limited number waits.

A watchdog runs twice a second. It kills a worker that ignores a cancellation or sends nothing for too long
(deadlines.py), starts a new worker if there is none (restarts.py), writes changes that a full disk refused, and starts
the next job.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tubelet.apps.web.jobs import quotas, supervised
from tubelet.apps.web.jobs.deadlines import Deadlines
from tubelet.apps.web.jobs.errands import Errands
from tubelet.apps.web.jobs.own_models import OwnModel
from tubelet.apps.web.jobs.refusals import FULL, Busy, Full
from tubelet.apps.web.jobs.restarts import OnMessage, RestartedWorker
from tubelet.apps.web.jobs.served_models import ServedModels
from tubelet.apps.web.jobs.store import Film, Job, Store
from tubelet.apps.web.jobs.tasks import JobProgress, QueuedTask, Segmentation, Teaching
from tubelet.apps.web.jobs.trainings import TrainingJob
from tubelet.apps.web.jobs.worker import LoadModel, Message, Worker
from tubelet.apps.web.limits import MEGABYTE, Limits
from tubelet.apps.web.sandbox import Room
from tubelet.apps.web.users import EVERYONE, User
from tubelet.core.errors import InputError

WATCH_EVERY = 0.5  # seconds
SPARE_BYTES = MEGABYTE  # free on the disk before a job is started
CRASHED = (
    "the worker ended in the middle of this video, perhaps for want of memory; try it again, or with another model"
)
UNKEPT = "the result of this video could not be kept, perhaps for want of space on the server's disk"
LOADING = "load"  # key of the worker's answers about models that were taught

log = logging.getLogger("tubelet.web")


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
        self.models = ServedModels(store, models)
        self.waits_for_space = False  # whether the next job cannot start because the disk is full
        self._open_model = open_model
        self._room = room
        self._lock = threading.RLock()

        self._ending = False
        self._closed = False
        self._stop = threading.Event()  # ends the watchdog

        self._current: QueuedTask | None = None
        self._progress = JobProgress()  # of the current task
        self._deadlines = Deadlines(limits)  # of the current task
        self._videos_to_remove: set[str] = set()  # at the end of the current job

        self._worker = RestartedWorker(self._lock, self._new_worker, self._on_message)
        self._errands = Errands(
            self._lock, lambda order: self._send(order), lambda: self._worker.is_ready, self._give_up_errand
        )

    def open(self) -> None:
        """Start the worker and wait until it has loaded the models. Raises InputError if it cannot."""
        self._start_worker()
        supervised.repeat(self._watch, "the watchdog")
        refusal = self._worker.wait()
        if refusal is not None:
            self.close()
            raise InputError(refusal)

    def close(self) -> None:
        """End the worker. A running job is queued again for the next start; a cancelled one is removed."""
        with self._lock:
            self._closed = True
            self._stop.set()
            worker = self._worker.take()
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
        return self._worker.pid

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
            if not self.store.source(film).is_file():
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
            self.models.check_new(training.name, user)
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

    def add_model(self, model: OwnModel, path: Path, description: Message, user: User = EVERYONE) -> None:
        """Add a model that the worker has loaded from `path`, which is moved."""
        with self._lock:
            self.models.check_new(model.name, user)
            self.models.add(model, path, description)

    def remove_model(self, model: OwnModel) -> None:
        """Remove a model of the page's own; results that it has given stay."""
        with self._lock:
            self.models.remove(model)
            self._send({"do": "forget", "key": model.id, "name": model.name})

    def check_room(self, user: User = EVERYONE) -> None:
        """Raise Busy if the queue is full, Full or Spent if the user may have no more, Busy if there is no worker."""
        waiting = self._waiting()
        if len(waiting) >= self.limits.waiting:
            raise Busy(f"busy: {len(waiting)} videos are waiting already, which is all that fit; try again in a while")
        quotas.check_waiting(user, waiting, self.store)
        quotas.check_day(user, self.store)
        quotas.check_bytes(user, self.store)
        if self._worker.is_failing:
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

    def _watch(self) -> bool:
        """One round of the watchdog; returns whether there will be another."""
        if self._stop.wait(WATCH_EVERY):
            return False
        with self._lock:
            if self._closed:  # meanwhile: no worker may start after the last one has ended
                return False
            self.store.catch_up()
            if not self._worker.is_there:
                self._replace_worker()
            elif self._is_overdue():
                self._worker.kill()
            self._start_next()
        return True

    def _is_overdue(self) -> bool:
        return self._deadlines.are_over(self._current, is_loading=self._worker.is_loading)

    def _start_worker(self) -> None:
        with self._lock:
            self._deadlines.note_message()
            self._worker.start()

    def _new_worker(self, on_message: OnMessage) -> Worker:
        return Worker(self._open_model, self.models.started_with, on_message, self.models.own_files(), self._room)

    def _send(self, message: Message) -> None:
        self._worker.send(message)

    def _on_message(self, message: Message | None) -> None:
        """Handle a message of the worker; None if it has ended."""
        if self._closed:
            self._worker.stop_waiting()
        elif message is None:
            self._worker.on_end()  # the watchdog ends its job and starts another worker
            self._errands.fail()
        elif message["say"] == "ready":
            self.models.described = message["models"]
            self._worker.on_ready()
            self._start_next()
        elif message["say"] == "refused":
            self._worker.on_refusal(message["error"])
        elif self._errands.on_message(message):
            pass
        elif message["key"] == LOADING:
            self._on_model(message)
        elif self._current is not None and message["key"] == self._current.id:
            self._deadlines.note_message()  # not for errands: they go on while a job is stuck
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

        if message["say"] == "done" and self._deadlines.cancelled is None:
            task.finish(message)
            self._load_new_models()
        elif message["say"] == "failed" and self._deadlines.cancelled is None:
            task.fail(message["error"])
        else:
            task.cancel()
        self._end_current(task)

    def _load_new_models(self) -> None:
        """Have the worker load the models that were taught since it started."""
        for name, path in self.models.not_loaded():
            self._send({"do": "load", "key": LOADING, "name": name, "source": path})

    def _on_model(self, message: Message) -> None:
        if message["say"] == "failed":
            log.error("a model of the page cannot be loaded: %s", message["error"])
        else:
            self.models.described.append(message["model"])

    def _cancel_current(self) -> None:
        if self._current is not None and self._deadlines.cancelled is None:
            self._deadlines.cancel()
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
        if not gone and self._deadlines.cancelled is not None:
            task.cancel()
        elif not gone:
            task.put_back()
        return task

    def _end_current(self, task: QueuedTask) -> None:
        """Clean up after the current task and start the next one."""
        self._current = None
        self._deadlines.cancelled = None
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
        if self._current is not None or not self._worker.is_ready or self._closed:
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
        self._deadlines.begin()
        self._send(order)

    def _task(self, job: Job | TrainingJob) -> QueuedTask:
        if isinstance(job, Job):
            return Segmentation(self.store, job)
        return Teaching(self.store, job, self.models.source(job.model))

    def _fail_unserved(self) -> None:
        served = self.models.names()
        for job in self._waiting():
            if job.model in served:
                continue
            line = f"the model {job.model!r} is not served any more"
            if isinstance(job, Job):
                self.store.fail(job.id, line)
            else:
                self.store.trainings.set_state(job.id, "failed", line)

    def _replace_worker(self) -> None:
        """End the task of a worker that has ended, and start another worker unless too many failed to start."""
        task = self._current
        if task is not None and self._deadlines.cancelled is not None:
            task.clean()
            task.cancel()
            self._end_current(task)
        elif task is not None:
            log.warning("the worker ended in the middle of a job")
            task.clean()
            task.fail(self._deadlines.reason or CRASHED)
            self._end_current(task)

        self._deadlines.reason = None
        if self._worker.may_restart():
            self._start_worker()

    def _give_up_errand(self) -> None:
        """Kill a worker that does nothing else: it may never return from an errand."""
        if self._current is None:
            self._worker.kill()
