"""Reading training clips by number, so that their order depends on the step alone."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from typing import Protocol

from torch.utils.data import DataLoader, Dataset

from tubelet.core.errors import TubeletError
from tubelet.core.types import Clip
from tubelet.training.distributed import Processes
from tubelet.training.stopping import leave_signals_to_the_loop


class Clips(Protocol):
    """Training clips by number: any n >= 0 gives a clip, always the same one; the length is that of an epoch."""

    def __len__(self) -> int: ...
    def __getitem__(self, n: int, /) -> Clip: ...


def numbers(first: int, batches: int, batch_size: int, world: Processes) -> list[list[int]]:
    """The clip numbers of this process's next `batches`: rank r takes every size-th batch from `first` on.

    Example:
        >>> from tubelet.training.distributed import Processes
        >>> from tubelet.training.loading import numbers
        >>> second_of_two = Processes(rank=1, size=2, device=torch.device("cpu"))
        >>> numbers(100, batches=2, batch_size=3, world=second_of_two)
        [[103, 104, 105], [109, 110, 111]]
    """
    starts = [first + (batch * world.size + world.rank) * batch_size for batch in range(batches)]
    return [list(range(start, start + batch_size)) for start in starts]


def read(clips: Clips, batches: Sequence[list[int]], workers: int) -> Generator[list[Clip]]:
    """Read batches of clips in order, ahead of time in `workers` processes; raises what the clips raise.

    There are no more processes than cores: on one core, several are no faster, and PyTorch would warn.
    """
    loader = DataLoader(
        _ErrorsAsValues(clips),
        batch_sampler=batches,
        num_workers=min(workers, _num_cores()),
        collate_fn=list,
        worker_init_fn=leave_signals_to_the_loop,
    )
    try:
        for batch in loader:
            yield [_clip(value) for value in batch]
    except (ConnectionError, EOFError):  # a reader died while handing over: torch raises the reason a moment later
        time.sleep(2)
        raise


def _num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _ErrorsAsValues(Dataset[Clip | TubeletError]):
    """Return errors instead of raising them: raised in a worker, they would arrive wrapped in a traceback's text."""

    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    def __getitem__(self, n: int) -> Clip | TubeletError:
        try:
            return self.clips[n]
        except TubeletError as error:
            return error


def _clip(value: Clip | TubeletError) -> Clip:
    if isinstance(value, TubeletError):
        raise value
    return value
