"""One process or many, started by torchrun: who writes, and how values travel between them.

How a model is spread over processes is in `training.parallel`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn

from tubelet.core.devices import choose_device
from tubelet.core.errors import TubeletError
from tubelet.training.parallel import Alone, Copies, Slices

LOST_PEER = ("connection closed by peer", "connection reset by peer", "broken pipe", "gloo", "nccl")
PATIENCE = 600.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """This process among those of a run; rank 0 alone writes files and shows progress.

    Example:
        >>> from tubelet.training.distributed import Processes
        >>> alone = Processes(device=torch.device("cpu"))
        >>> alone.main, alone.gather(3)
        (True, [3])
    """

    rank: int = 0
    size: int = 1
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def spread(self, model: nn.Module, sharding: Literal["none", "full"] = "none", units: Sequence[str] = ()) -> Alone:
        """Spread a model over all processes, with rank 0's weights; the optimizer must be built afterwards."""
        if not dist.is_initialized():
            return Alone(model)
        return Copies(model) if sharding == "none" else Slices(model, units, self.device)

    def gather(self, value: Any) -> list[Any]:
        """Collect a value from each rank, in rank order; every rank gets all of them."""
        if not dist.is_initialized():
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    @torch.no_grad()
    def share(self, model: nn.Module) -> None:
        """Overwrite the model's parameters and buffers with rank 0's; all processes must call it."""
        if not dist.is_initialized():
            return
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)

    def same(self, value: Any, what: str) -> Any:
        """Return a value that must be equal on all ranks; raises TubeletError otherwise."""
        values = self.gather(value)
        if any(theirs != value for theirs in values):
            raise TubeletError(f"processes disagree on {what} ({values}): they must see the same folder --out")
        return value


@contextmanager
def join(device: str = "auto", patience: float = PATIENCE) -> Iterator[Processes]:
    """Join the processes that torchrun started (NCCL between CUDA devices, else gloo); without torchrun, be alone.

    Raises ConfigError for a device that is not there, and TubeletError if another process does not start, stops
    early, or does not answer for `patience` seconds.

    Example:
        >>> from tubelet.training.distributed import join
        >>> with join("cpu") as world:
        ...     world.size
        1
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Processes(device=choose_device(device))
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", rank)))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    # both: Python values are sent through the CPU and do not wait for the device
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=patience))
    except (dist.DistError, RuntimeError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise TubeletError(
            f"process {rank} of {size} did not find the others at {where} within {patience:g} seconds: all machines "
            f"must be started with the same address and number of processes ({_cause(error)})"
        ) from error
    try:
        yield Processes(rank=rank, size=size, device=chosen)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in LOST_PEER):
            silent = "timed out" in str(error).lower()
            what = f"has not answered for {patience:g} seconds" if silent else "has stopped"
            raise TubeletError(
                f"process {rank} of {size} stops because another process of this run {what}: look there for the "
                f"cause, then start all again with --resume ({_cause(error)})"
            ) from error
        raise
    dist.destroy_process_group()  # not after a fault: it would wait for a process that is gone


def _cause(error: Exception) -> str:
    """The first sentence of an error, without the source location that gloo and PyTorch put before it."""
    line = str(error).partition("\n")[0]
    return re.sub(r"^\[\S+\.\w+:\d+\] ", "", line).partition(". ")[0].rstrip(".")
