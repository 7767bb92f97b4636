"""The process that holds the models; it can be killed at any time without harm to the server.

The server and the worker send JSON over a pipe: nothing is unpickled from a process that reads untrusted files. The
worker has one thread for each kind of order, so that none waits for another.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from tubelet.apps.web import sandbox
from tubelet.apps.web.jobs import supervised
from tubelet.apps.web.sandbox import Room

Message = dict[str, Any]
LoadModel = Callable[[str], Any]

KINDS = ("segment", "teach", "download", "attend", "follow", "load", "camera")  # of orders; each has its own thread

log = logging.getLogger("tubelet.web")


class Worker:
    """Starts the worker process and exchanges messages with it.

    `on_message` is called in a thread for each message from the worker, and with None when the process has ended. `own`
    are files of further models by name; the worker does without those that cannot be loaded. It locks itself up in
    `room`; after the first models are loaded it has no network.
    """

    def __init__(
        self,
        open_model: LoadModel,
        models: Sequence[str],
        on_message: Callable[[Message | None], None],
        own: Mapping[str, str],
        room: Room | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, worker_connection = context.Pipe()
        self._send_lock = threading.Lock()
        self._on_message = on_message

        arguments = (worker_connection, open_model, list(models), dict(own), room)
        self._process = context.Process(target=_main, args=arguments, name="tubelet worker", daemon=True)
        self._process.start()
        worker_connection.close()
        supervised.repeat(self._receive, "the worker's listener")

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Send a message to the worker; if it has just ended, the message is lost and `on_message` gets None."""
        try:
            with self._send_lock:
                self._connection.send_bytes(json.dumps(message).encode())
        except (OSError, ValueError):
            log.debug("the worker has ended")

    def kill(self) -> None:
        """Kill the process, whatever it is doing."""
        self._process.kill()

    def join(self) -> None:
        """Wait at most 5 seconds until the process has ended."""
        self._process.join(5)

    def _receive(self) -> bool:
        """Pass one message on; returns whether more can come."""
        try:
            message = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self._process.join(5)
            self._on_message(None)
            return False
        self._on_message(message)
        return True


def _main(
    connection: Connection, open_model: LoadModel, names: list[str], own: dict[str, str], room: Room | None
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the server decides when the worker ends
        signal.signal(number, signal.SIG_IGN)
    _OrderLoop(connection, open_model, names, own, room).run()


class _OrderLoop:
    """The worker's side: loads the models, then carries out orders."""

    def __init__(
        self, connection: Connection, open_model: LoadModel, names: list[str], own: dict[str, str], room: Room | None
    ) -> None:
        self._connection = connection
        self._open_model = open_model
        self._names = names
        self._own = own
        self._room = room
        self._models: dict[str, Any] = {}
        self._send_lock = threading.Lock()
        self._orders: dict[str, queue.Queue[Message]] = {kind: queue.Queue() for kind in KINDS}
        self._cameras: Any = None  # made in `run`, because it needs torch
        self._torch_threads = 1  # found out there too
        self._stops: dict[Any, threading.Event] = {}  # by the order's key; set when it is cancelled

    def run(self) -> None:
        import torch

        from tubelet.apps.web.jobs.cameras import Cameras
        from tubelet.core.errors import TubeletError

        self._cameras = Cameras()
        self._torch_threads = torch.get_num_threads()
        try:
            if self._room is not None:
                sandbox.lock_up(self._room)  # before a library starts threads, which would stay outside
            self._models = {name: self._open_model(name) for name in self._names}
            if self._room is not None:
                sandbox.deny_calls()
        except (TubeletError, OSError) as error:
            self._send({"say": "refused", "error": str(error)})
            return
        for name, path in self._own.items():
            try:
                self._models[name] = self._open_model(path)
            except (TubeletError, OSError) as error:
                log.error("the model %r cannot be loaded any more: %s", name, error)

        for kind, orders in self._orders.items():
            supervised.repeat(partial(self._work, orders), f"the worker's thread for orders to {kind}")
        descriptions = [_described(name, model) for name, model in self._models.items()]
        self._send({"say": "ready", "models": descriptions})

        try:
            while True:
                self._accept(json.loads(self._connection.recv_bytes()))
        except (EOFError, OSError):
            os._exit(0)  # the server has ended: nobody waits for what is still running

    def _accept(self, message: Message) -> None:
        """Queue an order, or cancel one."""
        key = message["key"]
        if message["do"] == "cancel":
            if key in self._stops:
                self._stops[key].set()
            return
        if message["do"] == "forget":
            self._models.pop(message["name"], None)
            return
        if message["do"] == "leave":
            self._cameras.end(key)
            return

        self._stops[key] = threading.Event()
        self._orders[message["do"]].put(message)

    def _work(self, orders: queue.Queue[Message]) -> bool:
        """Carry out the next order and send its answer; always returns True, as `supervised.repeat` continues then."""
        import torch

        from tubelet.apps.web.jobs import work

        order = orders.get()
        # one that first uses torch beside an engine's prediction would have a single thread for ever
        torch.set_num_threads(self._torch_threads)
        key = order["key"]
        try:
            result = self._do(order, self._stops[key])
            answer = {"say": "done", "key": key, **result}
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

        def send(message: Message) -> None:
            self._send({**message, "key": order["key"]})

        if order["do"] == "segment":
            return work.segment(self._models[order["model"]], order, check, send)
        if order["do"] == "teach":
            from tubelet.apps.web.jobs import teaching

            return teaching.teach(self._models[order["model"]], order, check, send)
        if order["do"] == "load":
            model = self._open_model(order["source"])
            self._models[order["name"]] = model
            return {"model": _described(order["name"], model)}
        if order["do"] == "follow":
            return work.follow(self._models[order["model"]], order, check, send)
        if order["do"] == "camera":
            return {"result": self._cameras.look(self._models[order["model"]], order)}
        if order["do"] == "attend":
            return work.attend(self._models[order["model"]], order)
        assert order["do"] == "download"
        return work.download(order, check)

    def _send(self, message: Message) -> None:
        with self._send_lock:
            self._connection.send_bytes(json.dumps(message).encode())


def _described(name: str, model: Any) -> Message:
    """A model as JSON for the page."""
    from tubelet.apps.web.attention import can_attend
    from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
    from tubelet.models.rcnn.model import MaskTrackRCNN

    learns = isinstance(model, MaskTrackRCNN) and isinstance(model.config.detector, NanoDetConfig)

    window = {"length": model.window.length, "stride": model.window.stride}
    return {
        "name": name,
        "classes": list(model.classes),
        "attends": can_attend(model),
        "follows": model.traits.guided,
        "learns": learns,  # the recipe finetune can go on from it
        "window": window,
    }
