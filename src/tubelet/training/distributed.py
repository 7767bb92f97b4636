"""One process or many: what the loop must know about its fellows. Processes are started by torchrun.

Everything that depends on how the model is spread over processes is here (today: DistributedDataParallel, a whole
model in each process), so that another way of spreading it changes this file alone.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tubelet.core.devices import choose_device
from tubelet.core.errors import TubeletError

LOST_PEER = ("connection closed by peer", "connection reset by peer", "broken pipe", "gloo", "nccl")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among its fellows: rank 0 alone writes files and shows progress."""

    rank: int = 0
    size: int = 1
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def spread(self, model: nn.Module) -> nn.Module:
        """The model whose backward averages gradients over processes; all start from rank 0's weights."""
        if not dist.is_initialized():
            return model
        # a head may get no gradient in a step (no object in the batch), on some ranks only
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        return DistributedDataParallel(model, find_unused_parameters=True)

    def gather(self, value: Any) -> list[Any]:
        """The plain value of each rank, in rank order, on every rank."""
        if not dist.is_initialized():
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def same(self, value: Any, what: str) -> Any:
        """The value, which must be one on all ranks; raises TubeletError otherwise."""
        values = self.gather(value)
        if any(theirs != value for theirs in values):
            raise TubeletError(f"processes disagree on {what} ({values}): they must see the same folder --out")
        return value


def accumulating(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Around forward and backward of one part of a step: gradients cross between processes only with the last part."""
    if last or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


@contextmanager
def join(device: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started (NCCL between CUDA devices, gloo otherwise), or be alone.

    Raises ConfigError for a device that is not here, and TubeletError when a fellow process stops in the middle.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield World(device=choose_device(device))
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", rank)))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    # both: plain values travel through the CPU and do not wait for the device
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(rank=rank, size=size, device=chosen)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in LOST_PEER):
            raise TubeletError(
                f"process {rank} of {size} stops because another process of this run has stopped: look there for the "
                f"cause, then start all again with --resume ({str(error).splitlines()[0]})"
            ) from error
        raise
    dist.destroy_process_group()  # not after a fault: it would wait for a process that is gone
