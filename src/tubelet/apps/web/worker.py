"""A process of its own that holds the models: it can be ended at any time, and takes nothing with it.

Both sides speak JSON over a pipe; nothing is unpickled from a process that reads files from outside. Within it, one
thread runs jobs, one runs errands (downloads, attention), so that a long job keeps nobody waiting.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

Message = dict[str, Any]
OpenModel = Callable[[str], Any]

log = logging.getLogger("tubelet.web")


class Worker:
    """The server's end. `heard` gets each message, in a thread of ours; None when the process has ended."""

    def __init__(self, open_model: OpenModel, models: Sequence[str], heard: Callable[[Message | None], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._sending = threading.Lock()
        self._heard = heard
        arguments = (theirs, open_model, list(models))
        self._process = context.Process(target=_main, args=arguments, name="tubelet worker", daemon=True)
        self._process.start()
        theirs.close()
        threading.Thread(target=self._listen, name="ear of the worker", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Say something; a worker that has just ended does not hear it, and `heard` tells so."""
        try:
            with self._sending:
                self._connection.send_bytes(json.dumps(message).encode())
        except (OSError, ValueError):
            log.debug("the worker has ended")

    def kill(self) -> None:
        """End it now, in the middle of whatever it does."""
        self._process.kill()

    def join(self) -> None:
        """Wait until the process is gone."""
        self._process.join(5)

    def _listen(self) -> None:
        try:
            while True:
                self._heard(json.loads(self._connection.recv_bytes()))
        except (EOFError, OSError):
            pass
        self._process.join(5)
        self._heard(None)


def load_model(name: str, device: str) -> Any:
    """What `tubelet serve` gives as `open_model`, with the device filled in."""
    from tubelet.models import weights

    return weights.load(name, device=device)


def _main(connection: Connection, open_model: OpenModel, names: list[str]) -> None:
    for stop in (signal.SIGINT, signal.SIGTERM):  # they may reach the whole group; the server says when to end
        signal.signal(stop, signal.SIG_IGN)
    _Workshop(connection, open_model, names).run()


class _Workshop:
    """The worker's end."""

    def __init__(self, connection: Connection, open_model: OpenModel, names: list[str]) -> None:
        self._connection, self._open_model, self._names = connection, open_model, names
        self._models: dict[str, Any] = {}
        self._sending = threading.Lock()
        self._jobs: queue.Queue[Message] = queue.Queue()
        self._errands: queue.Queue[Message] = queue.Queue()
        self._stops: dict[Any, threading.Event] = {}

    def run(self) -> None:
        from tubelet.core.errors import TubeletError

        try:
            self._models = {name: self._open_model(name) for name in self._names}
        except (TubeletError, OSError) as error:
            self._send({"say": "refused", "error": str(error)})
            return
        threading.Thread(target=self._work, args=(self._jobs,), daemon=True).start()
        threading.Thread(target=self._work, args=(self._errands,), daemon=True).start()
        self._send({"say": "ready", "models": [_described(name, model) for name, model in self._models.items()]})
        try:
            while True:
                self._take(json.loads(self._connection.recv_bytes()))
        except (EOFError, OSError):
            os._exit(0)  # the server is gone: nobody waits for what is still running

    def _take(self, message: Message) -> None:
        if message["do"] == "cancel":
            if message["key"] in self._stops:
                self._stops[message["key"]].set()
            return
        self._stops[message["key"]] = threading.Event()
        (self._jobs if message["do"] == "segment" else self._errands).put(message)

    def _work(self, orders: queue.Queue[Message]) -> None:
        from tubelet.apps.web import work

        while True:
            order = orders.get()
            key = order["key"]
            try:
                answer = {"say": "done", "key": key, **self._do(order, self._stops[key])}
            except work.Stopped:
                answer = {"say": "stopped", "key": key}
            except Exception as error:
                answer = {"say": "failed", "key": key, "error": work.line_of(error, order)}
            del self._stops[key]
            self._send(answer)

    def _do(self, order: Message, stop: threading.Event) -> Message:
        from tubelet.apps.web import work

        def check() -> None:
            if stop.is_set():
                raise work.Stopped

        if order["do"] == "segment":
            model = self._models[order["model"]]
            return work.segment(model, order, check, lambda told: self._send({**told, "key": order["key"]}))
        if order["do"] == "attend":
            return work.attend(self._models[order["model"]], order)
        assert order["do"] == "download"
        return work.download(order, check)

    def _send(self, message: Message) -> None:
        with self._sending:
            self._connection.send_bytes(json.dumps(message).encode())


def _described(name: str, model: Any) -> Message:
    from tubelet.apps.web.attention import can_attend

    window = {"length": model.window.length, "stride": model.window.stride}
    return {"name": name, "classes": len(model.classes), "attends": can_attend(model), "window": window}
