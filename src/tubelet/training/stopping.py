"""What stops a training early: a signal, too little memory, a reader process that dies, losses that diverge."""

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
    """Losses or gradients were not finite for too many steps in a row."""


class Signals:
    """A signal handler that notes in `stop` that the training should end.

    A second Ctrl-C interrupts at once, unless it comes within a second: torchrun repeats the first one.

    Example:
        >>> import signal
        >>> from tubelet.training.stopping import Signals
        >>> signals = Signals()
        >>> signals(signal.SIGTERM, None)
        >>> signals.stop
        True
    """

    def __init__(self) -> None:
        self.stop = False
        self._since = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.stop and time.monotonic() - self._since > 1:
            raise KeyboardInterrupt
        if not self.stop:
            self.stop = True
            self._since = time.monotonic()


@contextmanager
def stop_signals() -> Iterator[Signals]:
    """Let SIGINT and SIGTERM only set a flag, which the loop looks at after each step.

    Example:
        >>> from tubelet.training.stopping import stop_signals
        >>> with stop_signals() as signals:
        ...     signals.stop
        False
    """
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
    """Set up a process that reads clips: Ctrl-C does not end it, SIGTERM does."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes; workers are needed until the last step ends
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def plain_faults(batch_size: int, accumulate: int, workers: int) -> Iterator[None]:
    """Turn errors for want of memory, on the device or the host, into a TubeletError that says what to change."""
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
