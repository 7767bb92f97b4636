"""Choose the device of a model, for training and prediction alike; what some devices cannot do."""

from __future__ import annotations

import torch
from torch import Tensor

from tubelet.core.arguments import short
from tubelet.core.errors import ConfigError


def choose_device(name: str | torch.device = "auto", local_rank: int | None = None) -> torch.device:
    """Return the torch device of this name.

    Args:
        name: "cpu", "cuda", "cuda:N", "mps", or "auto" for the first of CUDA, MPS and CPU that is
            available.
        local_rank: Number of this process on its machine, in distributed training; "cuda" is then
            the GPU of this number.

    Raises:
        ConfigError: if the name is unknown or the device is not available.

    Example:
        >>> from tubelet.core.devices import choose_device
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if not isinstance(name, str | torch.device):
        raise ConfigError(f"device: expected auto, cpu, cuda, cuda:N or mps, got {short(name)}")

    name = str(name)
    if name == "auto":
        name = _best_available()

    kind, _, index = name.partition(":")
    is_number = index.isascii() and index.isdecimal() and len(index) < 4
    if kind not in ("cpu", "cuda", "mps") or (":" in name and not is_number):
        raise ConfigError(f"device: expected auto, cpu, cuda, cuda:N or mps, got {short(name)}")

    device = torch.device(name)
    if device.type == "cuda" and local_rank is not None and device.index is None:
        device = torch.device("cuda", local_rank)
    _check_available(device, name)
    return device


def has_half_kernels(device: torch.device) -> bool:
    """Whether every operator takes float16 and bfloat16; on Apple GPUs some do not, such as transposed 3-D convolution.

    Example:
        >>> from tubelet.core.devices import has_half_kernels
        >>> has_half_kernels(torch.device("cuda")), has_half_kernels(torch.device("mps"))
        (True, False)
    """
    return device.type in ("cpu", "cuda", "meta")


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the device; to a CUDA GPU it is copied while both go on with their work.

    Example:
        >>> from tubelet.core.devices import upload
        >>> upload(torch.ones(2), torch.device("cpu"))
        tensor([1., 1.])
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _best_available() -> str:
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _check_available(device: torch.device, name: str) -> None:
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise ConfigError(f"device: {name} asked for, but {torch.cuda.device_count()} CUDA devices are here")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: mps asked for, but no Apple GPU is here")
