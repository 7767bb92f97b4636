"""Errands: short tasks of the worker that a request waits for, such as a download, beside the queue of jobs."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tubelet.apps.web.jobs.refusals import Busy
from tubelet.apps.web.jobs.worker import Message
from tubelet.core.errors import InputError

MOST = 4  # at the same time
LOOK_EVERY = 0.5  # seconds, at whether it was stopped


@dataclass(slots=True)
class _Errand:
    address: str  # of the client that waits
    hear: Callable[[Message], None]  # called with its progress
    heard: float = field(default_factory=time.monotonic)  # when it last sent some
    finished: threading.Event = field(default_factory=threading.Event)
    answer: Message | None = None


class Errands:
    """The errands of one worker. Thread-safe by the lock that is given.

    `send` sends an order to the worker, `is_ready` says whether there is one, and `give_up` is called when an errand
    has not ended in its time.
    """

    def __init__(
        self,
        lock: threading.RLock,
        send: Callable[[Message], None],
        is_ready: Callable[[], bool],
        give_up: Callable[[], None],
    ) -> None:
        self._lock = lock
        self._send = send
        self._is_ready = is_ready
        self._give_up = give_up
        self._waiting: dict[str, _Errand] = {}
        self._numbers = itertools.count()

    def ask(
        self,
        order: Message,
        timeout: float,
        address: str,
        hear: Callable[[Message], None],
        stop: threading.Event | None,
    ) -> Message:
        """Have the worker do an errand and wait for its answer; see `Jobs.ask`."""
        key, errand = self._begin(order, address, hear)
        while not errand.finished.wait(LOOK_EVERY) and time.monotonic() - errand.heard < timeout:
            if stop is not None and stop.is_set():
                self._send({"do": "cancel", "key": key})

        with self._lock:
            self._waiting.pop(key, None)
            if not errand.finished.is_set():
                self._send({"do": "cancel", "key": key})
                self._give_up()
        if errand.answer is None:
            raise InputError("this took too long and was given up")
        if "error" in errand.answer:
            raise InputError(errand.answer["error"])
        return errand.answer

    def on_message(self, message: Message) -> bool:
        """Take a message of the worker; returns whether it was about an errand."""
        errand = self._waiting.get(message["key"])
        if errand is None:
            return False
        if message["say"] == "progress":
            errand.heard = time.monotonic()
            errand.hear(message)
        else:
            errand.answer = message
            errand.finished.set()
        return True

    def fail(self) -> None:
        """Answer all that wait: the worker has ended."""
        for errand in self._waiting.values():
            errand.answer = {"error": "the worker ended meanwhile; try again"}
            errand.finished.set()

    def _begin(self, order: Message, address: str, hear: Callable[[Message], None]) -> tuple[str, _Errand]:
        with self._lock:
            if len(self._waiting) >= MOST or not self._is_ready():
                raise Busy("busy: others are waiting for downloads; try again in a while")
            if sum(other.address == address for other in self._waiting.values()) >= MOST // 2:
                raise Busy("busy: you are waiting for other downloads already; try again in a while")

            key = f"errand {next(self._numbers)}"
            errand = _Errand(address=address, hear=hear)
            self._waiting[key] = errand
            self._send({**order, "key": key})
            return key, errand
