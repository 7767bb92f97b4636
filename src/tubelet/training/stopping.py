"""What stops a training before its end: a signal, memory that runs out, a reader that dies, losses that diverge."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from tubelet.core.errors import TubeletError


class Diverged(TubeletError):
    """Losses or gradients stayed infinite or undefined for too many steps in a row."""


class Signals:
    """Whether a stop was asked for. A second Ctrl-C stops at once; torchrun's echo of the first does not."""

    def __init__(self) -> None:
        self.stop, self._since = False, 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.stop and time.monotonic() - self._since > 1:
            raise KeyboardInterrupt
        if not self.stop:
            self.stop, self._since = True, time.monotonic()


@contextmanager
def stop_signals() -> Iterator[Signals]:
    """SIGINT and SIGTERM only leave a mark in between, for the loop to see at the end of a step."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():  # Python handles signals there alone
        yield signals
        return
    before = {number: signal.signal(number, signals) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_signals_to_the_loop(worker: int) -> None:
    """In a process that reads clips."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; workers must outlive the last step
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def plain_faults(batch_size: int, accumulate: int, workers: int) -> Iterator[None]:
    """Too little memory, on the device or beside it, is a TubeletError that says what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TubeletError(
            f"too little memory on the device for train.batch_size={batch_size}: lower it and raise "
            f"train.accumulate={accumulate}, or use train.precision=bf16 ({_first_line(error)})"
        ) from error
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        raise TubeletError(
            f"a process that reads clips has died, most often for want of memory: lower train.workers="
            f"{workers} ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
