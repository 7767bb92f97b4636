"""A few processes on this machine that share a list of videos; one that ends is replaced, and its video done again.

Processes are spawned, never forked: CUDA and threads do not survive a fork. Both sides speak JSON over a pipe, so that
nothing is unpickled from a process that reads files from outside.

Messages to a worker are a video, or EMPTY where none is left. A worker answers with its outcome, or with READY once its
model is open, or with a refusal: an error that ends the whole job.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType

from tubelet.core.errors import ConfigError, InputError
from tubelet.core.text import plain
from tubelet.core.untrusted.documents import decode_json
from tubelet.inference.many.batch import (
    MOST_TRIES,
    OpenModel,
    Segment,
    Settings,
    VideoJob,
    VideoOutcome,
    gave_up,
    line_of,
    segment,
    settle,
)
from tubelet.inference.many.messages import decode_job, decode_outcome, encode_job, encode_outcome

MOST_BAD_STARTS = 3  # one after another, before a worker has opened its model
GRACE = 5.0  # seconds a process has to end by itself

# the first byte of what a worker says
READY = b"+"
OUTCOME = b"="
BAD_SETTINGS = b"?"
REFUSED = b"!"

EMPTY = b""  # no video is left


def share(
    jobs: Sequence[VideoJob],
    open_model: OpenModel,
    out: Path,
    settings: Settings,
    devices: Sequence[str],
    segment: Segment = segment,
) -> Iterator[VideoOutcome]:
    """Segment videos in one process for each of `devices`, which may name a device several times.

    Yields outcomes as they come, in no order. `open_model(device)` is called in each process, then
    `segment(model, job, out, settings)` for each video; both must be picklable. Closed early, the generator ends its
    processes, which remove their scratch files. Raises InputError if a model
    cannot be opened, ConfigError if the settings do not suit it.
    """
    pool = _Pool(jobs, open_model, out, settings, segment)
    try:
        yield from pool.run(devices)
    finally:
        pool.close()


class _Worker:
    """The parent's end of a process; `job` is the video it works on."""

    def __init__(self, device: str, open_model: OpenModel, out: Path, settings: Settings, segment: Segment) -> None:
        self.device = device
        self.ready = False
        self.job: VideoJob | None = None
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, open_model, device, str(out), settings.model_dump_json(), segment)
        self.process = context.Process(target=_main, args=arguments, name=f"tubelet batch {device}", daemon=True)
        self.process.start()
        theirs.close()

    def send(self, job: VideoJob | None) -> None:
        """Send the next video, or None if there is none; a worker that has just ended is noticed when it is read."""
        self.job = job
        message = EMPTY if job is None else encode_job(job).encode()
        with suppress(OSError):
            self.connection.send_bytes(message)

    def end(self) -> None:
        """Wait until the process has ended; kill it if it takes too long."""
        self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class _Pool:
    def __init__(
        self, jobs: Sequence[VideoJob], open_model: OpenModel, out: Path, settings: Settings, segment: Segment
    ) -> None:
        self._arguments = (open_model, out, settings, segment)
        self._waiting = deque(jobs)
        self._workers: dict[Connection, _Worker] = {}
        self._leaving: list[_Worker] = []  # have nothing to do any more
        self._bad_starts = 0
        self._lost: Counter[VideoJob] = Counter()  # how many workers each video has ended

    def run(self, devices: Sequence[str]) -> Iterator[VideoOutcome]:
        for device in devices[: len(self._waiting)]:
            self._start(device)
        while self._workers:
            for connection in wait(list(self._workers)):
                assert isinstance(connection, Connection)
                outcome = self._receive(self._workers[connection])
                if outcome is not None:
                    yield outcome

    def close(self) -> None:
        for worker in self._workers.values():
            worker.process.terminate()
        for worker in (*self._workers.values(), *self._leaving):
            worker.end()

    def _start(self, device: str) -> None:
        worker = _Worker(device, *self._arguments)
        self._workers[worker.connection] = worker

    def _receive(self, worker: _Worker) -> VideoOutcome | None:
        """Read one message, or that the worker has ended; then give it the next video, or replace it."""
        try:
            message = worker.connection.recv_bytes()
        except (EOFError, OSError):
            return self._replace(worker)
        kind = message[:1]
        text = message[1:]
        if kind == BAD_SETTINGS:
            raise ConfigError(text.decode())
        if kind == REFUSED:
            raise InputError(text.decode())
        outcome = decode_outcome(text) if kind == OUTCOME else None
        worker.ready = True
        self._bad_starts = 0
        self._send_next(worker)
        return outcome

    def _send_next(self, worker: _Worker) -> None:
        if self._waiting:
            worker.send(self._waiting.popleft())
            return
        worker.send(None)
        self._leaving.append(self._workers.pop(worker.connection))

    def _replace(self, worker: _Worker) -> VideoOutcome | None:
        """Start another worker for one that has ended, and do its video again; a failure after MOST_TRIES times.

        `segment` counts its own tries on disk. What ends a worker before or after it is counted here alone.
        """
        del self._workers[worker.connection]
        worker.end()
        if not worker.ready:
            self._bad_starts += 1
            if self._bad_starts >= MOST_BAD_STARTS:
                raise InputError(f"workers end before they are ready (exit code {worker.process.exitcode})")
        failure = self._try_again(worker.job)
        if self._waiting:
            self._start(worker.device)
        return failure

    def _try_again(self, job: VideoJob | None) -> VideoOutcome | None:
        if job is None:
            return None
        self._lost[job] += 1
        if self._lost[job] > MOST_TRIES:
            return gave_up(job)
        self._waiting.appendleft(job)
        return None


def _main(
    connection: Connection, open_model: OpenModel, device: str, out: str, settings_json: str, segment: Segment
) -> None:
    """What a worker's process runs; any error becomes one line for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to end
    signal.signal(signal.SIGTERM, _leave)
    try:
        _work(connection, open_model, device, out, settings_json, segment)
    except ConfigError as error:
        _send(connection, BAD_SETTINGS, str(error))
    except Exception as error:
        _send(connection, REFUSED, line_of(error))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to tidy up: an end needs no traceback


def _work(
    connection: Connection, open_model: OpenModel, device: str, out: str, settings_json: str, segment: Segment
) -> None:
    settings = Settings.from_tree(decode_json(settings_json, "settings"))
    settle(settings)
    model = open_model(device)
    _send(connection, READY)
    while message := _next_message(connection):
        outcome = segment(model, decode_job(message), Path(out), settings)
        _send(connection, OUTCOME, encode_outcome(outcome))


def _next_message(connection: Connection) -> bytes:
    """EMPTY too if the parent has gone."""
    try:
        return connection.recv_bytes()
    except (EOFError, OSError):
        return EMPTY


def _send(connection: Connection, kind: bytes, text: str = "") -> None:
    with suppress(OSError):  # the parent has gone: the next read says so
        connection.send_bytes(kind + plain(text).encode())


def _leave(number: int, frame: FrameType | None) -> None:
    """Unwind, so that scratch files are removed."""
    raise SystemExit(128 + number)
