"""Run a model for inference: on its own device, without gradients, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Switch to evaluation and inference mode for one step; training mode comes back after it.

    Do not hold it across a `yield`: the mode would leak into the generator's caller.

    >>> model = nn.Linear(2, 2)
    >>> with evaluating(model):
    ...     model.training
    False
    >>> model.training
    True
    """
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
    """The device of a model's parameters; the CPU for a model without any.

    >>> device_of(nn.Linear(2, 2))
    device(type='cpu')
    """
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def is_training(model: object) -> bool:
    """Whether the model is in training mode.

    >>> is_training(nn.Linear(2, 2))
    True
    """
    return isinstance(model, nn.Module) and model.training
