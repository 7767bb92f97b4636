"""Torch in bfloat16 with weights that are converted once.

Autocast converts the weights of every layer in every call: on a GPU that is a kernel for each of
them, as many as the layers have themselves. Here they are converted in the first call; the results
are the same to the last bit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tubelet.engines.graph import Graph, Tensors

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)  # autocast computes them in bfloat16


def convert_weights_once(graphs: Sequence[Graph]) -> None:
    """Let torch compute graphs that no engine computes from weights in bfloat16, under autocast.

    Example:
        >>> from tubelet.engines.graph import Graph
        >>> from tubelet.engines.low_precision import convert_weights_once
        >>> layer = torch.nn.Conv2d(3, 2, 1)
        >>> graph = Graph("maps", layer, lambda x: (layer(x),))
        >>> convert_weights_once([graph])
        >>> graph.engine.on_torch
        True
    """
    for graph in graphs:
        if graph.engine is None:
            graph.engine = LowPrecision(graph)


class LowPrecision:
    """Computes a graph by a copy of its layers whose weights are in bfloat16.

    The graph's function must be a method of its owner. Outside autocast the graph computes itself.
    """

    on_torch = True

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._weights = tuple(graph.owner.parameters())
        self._made_of: tuple[torch.device, int] | None = None
        self._copy = graph

    def __call__(self, *inputs: Tensor) -> Tensors:
        if not torch.is_autocast_enabled(inputs[0].device.type):
            return self.graph.function(*inputs)

        made_of = self._weights[0].device, sum(map(_changes, self._weights))
        if self._made_of != made_of:
            self._copy = _lowered(self.graph)
            self._made_of = made_of
        return self._copy.function(*inputs)

    def forget(self) -> None:
        """Forget the converted weights."""
        self._made_of = None

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a model computes with its own weights, which may be about to change."""
        return


def _changes(weight: Tensor) -> int:
    """How often a tensor was changed in place; those that were made in inference mode are not counted."""
    return 0 if weight.is_inference() else weight._version


def _lowered(graph: Graph) -> Graph:
    """A copy of the graph and of its owner, which share all tensors but the weights of layers."""
    shared = {id(tensor): tensor for tensor in (*graph.owner.parameters(), *graph.owner.buffers())}
    lowered = copy.deepcopy(graph, shared)
    for module in lowered.owner.modules():
        if isinstance(module, LAYERS):
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False))
    return lowered
