"""A process of its own that holds the models: it can be ended at any time, and takes nothing with it.

Both sides speak JSON over a pipe; nothing is unpickled from a process that reads files from outside. Within it, one
thread runs jobs, one makes downloads, one looks at attention, so that none of them keeps the others waiting.
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
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from tubelet.apps.web.jobs import supervised

Message = dict[str, Any]
LoadModel = Callable[[str], Any]

KINDS = ("segment", "download", "attend")  # of orders; each has a thread of its own

log = logging.getLogger("tubelet.web")


class Worker:
    """The server's end. `heard` gets each message, in a thread of ours; None when the process has ended."""

    def __init__(self, open_model: LoadModel, models: Sequence[str], heard: Callable[[Message | None], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._sending = threading.Lock()
        self._heard = heard
        arguments = (theirs, open_model, list(models))
        self._process = context.Process(target=_main, args=arguments, name="tubelet worker", daemon=True)
        self._process.start()
        theirs.close()
        supervised.repeat(self._listen, "the worker's listener")

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

    def _listen(self) -> bool:
        """Pass one message on; whether more can come."""
        try:
            message = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self._process.join(5)
            self._heard(None)
            return False
        self._heard(message)
        return True


def _main(connection: Connection, open_model: LoadModel, names: list[str]) -> None:
    for stop in (signal.SIGINT, signal.SIGTERM):  # they may reach the whole group; the server says when to end
        signal.signal(stop, signal.SIG_IGN)
    _Workshop(connection, open_model, names).run()


class _Workshop:
    """The worker's end."""

    def __init__(self, connection: Connection, open_model: LoadModel, names: list[str]) -> None:
        self._connection, self._open_model, self._names = connection, open_model, names
        self._models: dict[str, Any] = {}
        self._sending = threading.Lock()
        self._orders: dict[str, queue.Queue[Message]] = {kind: queue.Queue() for kind in KINDS}
        self._stops: dict[Any, threading.Event] = {}

    def run(self) -> None:
        from tubelet.core.errors import TubeletError

        try:
            self._models = {name: self._open_model(name) for name in self._names}
        except (TubeletError, OSError) as error:
            self._send({"say": "refused", "error": str(error)})
            return
        for kind, orders in self._orders.items():
            supervised.repeat(partial(self._work, orders), f"the worker's thread for orders to {kind}")
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
        self._orders[message["do"]].put(message)

    def _work(self, orders: queue.Queue[Message]) -> bool:
        """Carry out one order; there is always another."""
        from tubelet.apps.web.jobs import work

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
        return True

    def _do(self, order: Message, stop: threading.Event) -> Message:
        from tubelet.apps.web.jobs import work

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
