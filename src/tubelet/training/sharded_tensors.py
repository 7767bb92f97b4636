"""A tensor of which each process holds a slice, made whole and cut again: so that what is at rest is always whole.

Slices are DTensors; they are told by their methods, because importing their class takes longer than most commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def is_slice(tensor: Tensor) -> bool:
    """Whether other processes hold the rest of it."""
    return hasattr(tensor, "full_tensor")


def own(tensor: Tensor) -> Tensor:
    """What this process holds of it; writing to it writes to the slice."""
    given: Any = tensor
    return given.to_local() if is_slice(tensor) else tensor


def whole(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The tensors in full, where `keep`; slices go to the CPU one by one. All processes must call it alike."""
    full = {}
    for name, tensor in tensors.items():
        given: Any = tensor
        tensor = given.full_tensor().cpu() if is_slice(tensor) else tensor
        if keep:
            full[name] = tensor
    return full


def cut_like(tensor: Tensor, model: Tensor) -> Tensor:
    """This process's slice of a whole tensor, where `model` is one of the same shape; no message is sent."""
    if not is_slice(model) or tensor.shape != model.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    like: Any = model
    return distribute_tensor(tensor.to(model.device), like.device_mesh, like.placements, src_data_rank=None)
