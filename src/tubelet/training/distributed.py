"""One process or many: what the loop must know about its fellows. Processes are started by torchrun.

How the model itself lies in them is `spreading`'s matter.
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
    """This process among its fellows: rank 0 alone writes files and shows progress."""

    rank: int = 0
    size: int = 1
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def spread(self, model: nn.Module, sharding: Literal["none", "full"] = "none", units: Sequence[str] = ()) -> Alone:
        """The model over all processes, from rank 0's weights: before the optimizer is built, which sharding alters."""
        if not dist.is_initialized():
            return Alone(model)
        return Copies(model) if sharding == "none" else Slices(model, units, self.device)

    def gather(self, value: Any) -> list[Any]:
        """The plain value of each rank, in rank order, on every rank."""
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
        """The value, which must be one on all ranks; raises TubeletError otherwise."""
        values = self.gather(value)
        if any(theirs != value for theirs in values):
            raise TubeletError(f"processes disagree on {what} ({values}): they must see the same folder --out")
        return value


@contextmanager
def join(device: str = "auto", patience: float = PATIENCE) -> Iterator[Processes]:
    """Join the processes that torchrun started (NCCL between CUDA devices, gloo otherwise), or be alone.

    Raises ConfigError for a device that is not here, and TubeletError when a fellow process does not come, stops in the
    middle, or is not heard of for `patience` seconds.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Processes(device=choose_device(device))
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", rank)))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    # both: plain values travel through the CPU and do not wait for the device
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
    """The first sentence, without the place in the source of gloo or PyTorch that leads it."""
    line = str(error).partition("\n")[0]
    return re.sub(r"^\[\S+\.\w+:\d+\] ", "", line).partition(". ")[0].rstrip(".")
