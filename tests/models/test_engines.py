"""Every family that declares graphs computes them by what is plugged into them, and predicts the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import tubelet
from tubelet.engines.graph import Graph, Tensors
from tubelet.recipes.small import RECIPES

GRAPHS = {
    "masktrack": ["pyramid", "proposals", "boxes", "masks", "descriptors"],
    "mask2former": ["maps"],
    "videomt": ["tokens"],
    "tags": [],
}


class Counting:
    """Computes a graph with torch, and counts the calls."""

    on_torch = True

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.calls = 0

    def __call__(self, *inputs: Tensor) -> Tensors:
        self.calls += 1
        return self.graph.function(*inputs)

    def forget(self) -> None:
        self.calls = 0


@pytest.mark.parametrize("system", GRAPHS)
def test_a_prediction_goes_through_every_graph(system: str) -> None:
    torch.manual_seed(0)
    model = RECIPES[f"small/{system}"].model.build(("dog", "cat")).eval()
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    expected = tubelet.predict(model, frames, threshold=0.0)
    graphs = model.graphs()
    assert [graph.name for graph in graphs] == GRAPHS[system]

    counters = [Counting(graph) for graph in graphs]
    for graph, counter in zip(graphs, counters, strict=True):
        graph.engine = counter
    found = tubelet.predict(model, frames, threshold=0.0)
    assert all(counter.calls for counter in counters)
    assert [(track.id, track.score) for track in found] == [(track.id, track.score) for track in expected]
