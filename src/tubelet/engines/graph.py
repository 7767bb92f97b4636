"""A part of a network that is a pure function of tensors, computed by torch or by an engine.

A model declares its graphs beside the layers that they consist of, and calls them like functions:

    self.network = Graph("masks", self, self._logits, rows=True)
    ...
    (logits,) = self.network(crops)

Without an engine, and wherever gradients are computed, a call is a call of the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

Shape = tuple[int | None, ...]  # None: any number
Tensors = tuple[Tensor, ...]
Function = Callable[..., Tensors]  # of tensors


class Computer(Protocol):
    """What computes a graph in place of its function, for the weights that it has now."""

    on_torch: bool  # whether it uses torch's threads

    def __call__(self, *inputs: Tensor) -> Tensors:
        """Compute the outputs."""
        ...

    def forget(self) -> None:
        """Forget what depends on the weights: they may change."""
        ...


class Graph:
    """A pure function of tensors, with what an engine needs to compute it.

    An engine compiles it for the shapes of its inputs: for each size of images.

    Args:
        name: What it computes; unique in a model.
        owner: The module that has its parameters.
        function: Computes it with torch. A method of a module, so that a copy of the module has a
            graph of its own.
        rows: Whether the first axis of all inputs and outputs counts rows, in any number, as of
            regions.

    Example:
        >>> from tubelet.engines.graph import Graph
        >>> layer = torch.nn.Linear(3, 2)
        >>> graph = Graph("codes", layer, lambda x: (layer(x),), rows=True)
        >>> (codes,) = graph(torch.zeros(5, 3))
        >>> codes.shape, graph.shapes((torch.zeros(5, 3),))
        (torch.Size([5, 2]), ((None, 3),))
    """

    def __init__(self, name: str, owner: nn.Module, function: Function, *, rows: bool = False) -> None:
        self.name = name
        self.owner = owner
        self.function = function
        self.rows = rows
        self.engine: Computer | None = None

    def __call__(self, *inputs: Tensor) -> Tensors:
        if self.engine is None:
            return self.function(*inputs)
        if torch.is_grad_enabled():  # as in training, which changes the weights
            self.engine.forget()
            return self.function(*inputs)
        return self.engine(*inputs)

    def shapes(self, inputs: Tensors) -> tuple[Shape, ...]:
        """Return the shapes for which an engine compiles the graph to compute these inputs."""
        return tuple((None if self.rows else len(tensor), *tensor.shape[1:]) for tensor in inputs)
