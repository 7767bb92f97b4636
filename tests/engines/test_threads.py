"""While an engine computes, torch leaves it the cores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tubelet.engines.graph import Graph, Tensors
from tubelet.engines.threads import torch_on_one_thread


class Engine:
    """Computes nothing."""

    on_torch = False

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        return inputs

    def forget(self) -> None:
        pass


@pytest.fixture
def graph() -> Iterator[Graph]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield Graph("nothing", torch.nn.Identity(), lambda x: (x,))
    torch.set_num_threads(before)


def test_torch_has_one_thread_beside_an_engine_and_all_of_them_after_it(graph: Graph) -> None:
    graph.engine = Engine()
    with torch_on_one_thread([graph]):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_without_an_engine_nothing_changes(graph: Graph) -> None:
    with torch_on_one_thread([graph]):
        assert torch.get_num_threads() == 2


def test_an_error_gives_the_threads_back(graph: Graph) -> None:
    graph.engine = Engine()
    with pytest.raises(ZeroDivisionError), torch_on_one_thread([graph]):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
