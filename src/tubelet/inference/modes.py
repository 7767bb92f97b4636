"""How a model is run: where its parameters are, without gradients, and in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Around each step alone: a mode left on while a generator pauses would leak into its caller."""
    network = model if isinstance(model, nn.Module) and model.training else None
    if network is not None:
        network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if network is not None:
            network.train()


def device_of(model: object) -> torch.device:
    """Where a model's parameters are; the CPU for one without."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
