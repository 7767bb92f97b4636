"""How clips come to the loop: by number, so that their order hangs on nothing but the step."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Protocol

from torch.utils.data import DataLoader, Dataset

from tubelet.core.errors import TubeletError
from tubelet.core.types import Clip
from tubelet.training.distributed import Processes
from tubelet.training.stopping import leave_signals_to_the_loop


class Clips(Protocol):
    """Samples by number: any n >= 0 gives a clip, the same one at each call; `len` of them are one epoch."""

    def __len__(self) -> int: ...
    def __getitem__(self, n: int, /) -> Clip: ...


def numbers(first: int, batches: int, batch_size: int, world: Processes) -> list[list[int]]:
    """The numbers of the clips of this process's next `batches`: rank r takes every size-th batch from `first` on."""
    starts = [first + (i * world.size + world.rank) * batch_size for i in range(batches)]
    return [list(range(start, start + batch_size)) for start in starts]


def read(clips: Clips, batches: Sequence[list[int]], workers: int) -> Generator[list[Clip]]:
    """Batches of clips in order, read ahead by that many processes; raises what the clips raise."""
    loader = DataLoader(
        _Faults(clips),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=leave_signals_to_the_loop,
    )
    try:
        for batch in loader:
            yield [_clip(value) for value in batch]
    except (ConnectionError, EOFError):  # a reader died while handing over: torch raises the reason a moment later
        time.sleep(2)
        raise


class _Faults(Dataset[Clip | TubeletError]):
    """A fault of the data comes back as a value: raised in a worker, it would arrive wrapped in a traceback's text."""

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
