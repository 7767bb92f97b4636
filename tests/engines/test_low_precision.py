"""Weights that are converted to bfloat16 once give what autocast gives."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from tubelet.engines.graph import Graph
from tubelet.engines.low_precision import convert_weights_once
from tubelet.engines.threads import torch_on_one_thread


class Network(nn.Module):
    """Two layers, a norm and a map of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 4, 1))
        self.position = nn.Parameter(torch.rand(1, 4, 6, 6))
        self.graph = Graph("maps", self, self.maps)

    def maps(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.layers(pixels) + self.position,)


@pytest.fixture(autouse=True)
def in_bfloat16() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        yield


@pytest.fixture
def network() -> Network:
    return Network().eval()


PIXELS = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_results_are_those_of_autocast_to_the_last_bit(network: Network) -> None:
    (expected,) = network.graph(PIXELS)
    convert_weights_once([network.graph])
    for _ in range(2):
        (found,) = network.graph(PIXELS)
        assert torch.equal(found, expected)


def test_the_models_own_weights_stay_in_float32_and_are_shared_where_they_are_no_layers(network: Network) -> None:
    convert_weights_once([network.graph])
    network.graph(PIXELS)
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    used = network.graph.engine._copy.owner  # type: ignore[union-attr]
    assert used.position is network.position
    assert used.layers[0].weight.dtype == torch.bfloat16


def test_outside_autocast_the_graph_computes_in_float32(network: Network) -> None:
    convert_weights_once([network.graph])
    network.graph(PIXELS)
    with torch.autocast("cpu", enabled=False):
        assert torch.equal(network.graph(PIXELS)[0], network.maps(PIXELS)[0])


def test_weights_that_change_are_converted_again(network: Network) -> None:
    convert_weights_once([network.graph])
    network.graph(PIXELS)
    network.layers[3].bias += 1
    assert torch.equal(network.graph(PIXELS)[0], network.maps(PIXELS)[0])
    network.load_state_dict(Network().state_dict())
    torch.clear_autocast_cache()  # which has the weights of the line before
    assert torch.equal(network.graph(PIXELS)[0], network.maps(PIXELS)[0])


def test_gradients_reach_the_models_own_weights(network: Network) -> None:
    convert_weights_once([network.graph])
    with torch.enable_grad():
        network.graph(PIXELS)[0].float().sum().backward()
    assert network.layers[0].weight.grad is not None


def test_a_copy_of_a_model_has_weights_of_its_own(network: Network) -> None:
    convert_weights_once([network.graph])
    copied = deepcopy(network)
    assert copied.graph.engine is None
    assert copied.graph.owner is copied


def test_torch_keeps_its_threads(network: Network) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    convert_weights_once([network.graph])
    with torch_on_one_thread([network.graph]):
        assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
