"""Where to compute: one way to say it, for training and prediction."""

from __future__ import annotations

import torch

from tubelet.core.arguments import short
from tubelet.core.errors import ConfigError


def choose_device(name: str | torch.device = "auto", local_rank: int | None = None) -> torch.device:
    """auto: CUDA (the one of this local rank), else Apple's GPU, else the CPU. Raises ConfigError for one not here."""
    if not isinstance(name, str | torch.device):
        raise ConfigError(f"device: expected auto, cpu, cuda, cuda:N or mps, got {short(name)}")
    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    is_number = index.isascii() and index.isdecimal() and len(index) < 4
    if kind not in ("cpu", "cuda", "mps") or (":" in name and not is_number):
        raise ConfigError(f"device: expected auto, cpu, cuda, cuda:N or mps, got {short(name)}")
    device = torch.device(name)
    if device.type == "cuda" and local_rank is not None and device.index is None:
        device = torch.device("cuda", local_rank)
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise ConfigError(f"device: {name} asked for, but {torch.cuda.device_count()} CUDA devices are here")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: mps asked for, but no Apple GPU is here")
    return device
