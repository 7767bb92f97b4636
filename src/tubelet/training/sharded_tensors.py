"""Tensors of which each process holds a slice: put together for files, and cut again when they are loaded.

Slices are DTensors. They are recognised by their methods, because importing their class takes longer
than most commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def is_slice(tensor: Tensor) -> bool:
    """Whether other processes hold the rest of a tensor.

    Example:
        >>> from tubelet.training.sharded_tensors import is_slice
        >>> is_slice(torch.zeros(3))
        False
    """
    return hasattr(tensor, "full_tensor")


def own(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds; writing to it writes to the slice.

    Example:
        >>> from tubelet.training.sharded_tensors import own
        >>> own(torch.zeros(3)).shape
        torch.Size([3])
    """
    given: Any = tensor
    return given.to_local() if is_slice(tensor) else tensor


def whole(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The full tensors where `keep` is true, else nothing; slices go to the CPU one by one.

    All processes must call it with the same names.

    Example:
        >>> from tubelet.training.sharded_tensors import whole
        >>> list(whole({"weight": torch.zeros(3)}, keep=True))
        ['weight']
    """
    full = {}
    for name, tensor in tensors.items():
        given: Any = tensor
        tensor = given.full_tensor().cpu() if is_slice(tensor) else tensor
        if keep:
            full[name] = tensor
    return full


def cut_like(tensor: Tensor, model: Tensor) -> Tensor:
    """This process's slice of a full tensor, cut as `model` of the same shape is; nothing is sent.

    Example:
        >>> from tubelet.training.sharded_tensors import cut_like
        >>> cut_like(torch.ones(3), torch.zeros(3))
        tensor([1., 1., 1.])
    """
    if not is_slice(model) or tensor.shape != model.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    like: Any = model
    return distribute_tensor(tensor.to(model.device), like.device_mesh, like.placements, src_data_rank=None)
