"""A few processes on this machine that share a list of videos; one that ends is replaced, and its video done again.

Processes are spawned, never forked: CUDA and threads do not survive a fork. Both sides speak JSON over a pipe, so that
nothing is unpickled from a process that reads files from outside.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

from tubelet.core.errors import ConfigError, InputError
from tubelet.core.untrusted.documents import decode_json
from tubelet.inference.many.batch import OpenModel, Settings, VideoJob, VideoOutcome, line_of, segment, settle

MOST_BAD_STARTS = 3  # one after another, before a worker has opened its model
GRACE = 5.0  # seconds to leave in


def share(
    jobs: Sequence[VideoJob], open_model: OpenModel, out: Path, settings: Settings, devices: Sequence[str]
) -> Iterator[VideoOutcome]:
    """Outcomes as they come, in no order; a process for each of `devices`, which may name one device several times.

    `open_model(device)` is called in each process and must be picklable. Raises InputError where a model cannot be
    opened, ConfigError for settings that do not suit it. Left early, it ends its processes, which tidy up.
    """
    pool = _Pool(open_model, out, settings, jobs)
    try:
        yield from pool.run(devices)
    finally:
        pool.close()


class _Worker:
    """The parent's end of a process; `job` is what it is at."""

    def __init__(self, device: str, open_model: OpenModel, out: Path, settings: Settings) -> None:
        self.device, self.ready = device, False
        self.job: VideoJob | None = None
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, open_model, device, str(out), settings.model_dump_json())
        self.process = context.Process(target=_main, args=arguments, name=f"tubelet batch {device}", daemon=True)
        self.process.start()
        theirs.close()

    def do(self, job: VideoJob | None) -> None:
        """Hand it a video, or None to let it go; one that has just ended is noticed when it is listened to."""
        self.job = job
        with suppress(OSError):
            self.connection.send_bytes(json.dumps(job).encode())


class _Pool:
    def __init__(self, open_model: OpenModel, out: Path, settings: Settings, jobs: Sequence[VideoJob]) -> None:
        self._arguments = open_model, out, settings
        self._waiting = deque(jobs)
        self._workers: dict[Connection, _Worker] = {}
        self._leaving: list[_Worker] = []  # have nothing to do any more
        self._bad_starts = 0

    def run(self, devices: Sequence[str]) -> Iterator[VideoOutcome]:
        for device in devices[: len(self._waiting)]:
            self._hire(device)
        while self._workers:
            for connection in wait(list(self._workers)):
                assert isinstance(connection, Connection)
                outcome = self._hear(self._workers[connection])
                if outcome is not None:
                    yield outcome

    def close(self) -> None:
        for worker in self._workers.values():
            worker.process.terminate()
        for worker in (*self._workers.values(), *self._leaving):
            worker.process.join(GRACE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _hire(self, device: str) -> None:
        worker = _Worker(device, *self._arguments)
        self._workers[worker.connection] = worker

    def _hear(self, worker: _Worker) -> VideoOutcome | None:
        """What a worker says, or that it has ended; then it has something to do, or is replaced."""
        try:
            message = decode_json(worker.connection.recv_bytes(), "a worker")
        except (EOFError, OSError):
            self._replace(worker)
            return None
        if "refused" in message:
            raise (ConfigError if message["settings"] else InputError)(message["refused"])
        worker.ready, self._bad_starts = True, 0
        self._next(worker)
        return VideoOutcome(**message["outcome"]) if "outcome" in message else None

    def _next(self, worker: _Worker) -> None:
        if self._waiting:
            worker.do(self._waiting.popleft())
            return
        worker.do(None)
        self._leaving.append(self._workers.pop(worker.connection))

    def _replace(self, worker: _Worker) -> None:
        del self._workers[worker.connection]
        worker.process.join()
        if not worker.ready:
            self._bad_starts += 1
            if self._bad_starts >= MOST_BAD_STARTS:
                raise InputError(f"workers end before they are ready (exit code {worker.process.exitcode})")
        if worker.job is not None:
            self._waiting.appendleft(worker.job)
        if self._waiting:
            self._hire(worker.device)


def _main(connection: Connection, open_model: OpenModel, device: str, out: str, settings_json: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to end
    signal.signal(signal.SIGTERM, _leave)
    try:
        _work(connection, open_model, device, out, settings_json)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to tidy up: an end needs no traceback


def _work(connection: Connection, open_model: OpenModel, device: str, out: str, settings_json: str) -> None:
    settings = Settings.from_tree(decode_json(settings_json, "settings"))
    settle(settings)
    try:
        model = open_model(device)
    except (ValueError, OSError) as error:
        _send(connection, {"refused": line_of(error), "settings": False})
        return
    _send(connection, {"ready": os.getpid()})
    with suppress(EOFError, OSError):  # the parent has gone
        while (told := decode_json(connection.recv_bytes(), "the pool")) is not None:
            try:
                outcome = segment(model, VideoJob(*told), Path(out), settings)
            except ConfigError as error:
                _send(connection, {"refused": str(error), "settings": True})
                return
            _send(connection, {"outcome": asdict(outcome)})


def _send(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


def _leave(number: int, frame: FrameType | None) -> None:
    """Unwind, so that scratch files are removed."""
    raise SystemExit(128 + number)
