"""The worker process as the queue needs it: there is one, it has loaded the models, and another follows if it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tubelet.apps.web.jobs.worker import Message, Worker

MAX_FALSE_STARTS = 3  # workers in a row that ended while they loaded the models; then there is a pause
PAUSE = 60.0  # seconds before the next one is started: what ended them may have been another program's want of memory

OnMessage = Callable[[Message | None], None]


class RestartedWorker:
    """Starts the worker, and another one when it has ended. Guarded by the lock that is given, but for `wait`.

    `start` starts a worker that calls what it is given with its messages, and with None at its end. `on_message` is
    called with those of the latest worker, under the lock.
    """

    def __init__(self, lock: threading.RLock, start: Callable[[OnMessage], Worker], on_message: OnMessage) -> None:
        self._lock = lock
        self._start = start
        self._on_message = on_message
        self._worker: Worker | None = None
        self._loaded = threading.Event()  # or it is known that they never will be
        self._opened = False  # whether one was ready
        self._refusal: str | None = None  # why the first one could not load the models
        self._false_starts = 0
        self._last_false_start = 0.0

    def start(self) -> None:
        """Start a worker in the place of the one before."""
        self._loaded.clear()
        worker: Worker | None = None

        def on_message(message: Message | None) -> None:
            with self._lock:
                if worker is self._worker or self._worker is None:  # not of a worker that was replaced
                    self._on_message(message)

        with self._lock:
            worker = self._start(on_message)
            self._worker = worker

    def wait(self) -> str | None:
        """Wait until the first worker has loaded the models; returns why it could not, or None."""
        self._loaded.wait()
        self._opened = self._refusal is None
        return self._refusal

    def stop_waiting(self) -> None:
        """End `wait`: the server is shutting down."""
        self._loaded.set()

    @property
    def pid(self) -> int | None:
        """The id of the process; None if there is none."""
        return None if self._worker is None else self._worker.pid

    @property
    def is_there(self) -> bool:
        """Whether there is a process."""
        return self._worker is not None

    @property
    def is_ready(self) -> bool:
        """Whether it has loaded the models."""
        return self._worker is not None and self._loaded.is_set()

    @property
    def is_loading(self) -> bool:
        """Whether it is one that follows another and has not loaded the models yet."""
        return self._opened and not self._loaded.is_set()

    @property
    def is_failing(self) -> bool:
        """Whether the last MAX_FALSE_STARTS workers ended while they loaded the models."""
        return self._false_starts >= MAX_FALSE_STARTS

    def send(self, message: Message) -> None:
        """Send the worker a message, if there is one."""
        if self._worker is not None:
            self._worker.send(message)

    def kill(self) -> None:
        """Kill the worker; `on_message` gets None, as at any other end."""
        if self._worker is not None:
            self._worker.kill()

    def take(self) -> Worker | None:
        """Hand out the worker, of which nothing more is heard: the server is shutting down."""
        worker = self._worker
        self._worker = None
        return worker

    def on_ready(self) -> None:
        """Note that the worker has loaded the models."""
        self._false_starts = 0
        self._loaded.set()

    def on_refusal(self, line: str) -> None:
        """Note why it cannot load them."""
        self._refusal = line

    def on_end(self) -> None:
        """Note that the worker has ended."""
        if self.is_loading:
            self._false_starts += 1
            self._last_false_start = time.monotonic()
        self._worker = None
        self._loaded.clear()
        if not self._opened:
            self._refusal = self._refusal or "the worker ended while it loaded the models"
            self._loaded.set()

    def may_restart(self) -> bool:
        """Whether another one may be started now: not while the first loads, and not soon after some that failed."""
        is_paused = self.is_failing and time.monotonic() - self._last_false_start < PAUSE
        return self._opened and not is_paused
