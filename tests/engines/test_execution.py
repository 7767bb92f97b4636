"""An engine computes a graph only where it agrees with torch; files are exported once and found by their content."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tubelet.core.errors import EngineError
from tubelet.engines import store
from tubelet.engines.execution import MOST, Execution
from tubelet.engines.graph import Function, Graph, Shape, Tensors

REGIONS = torch.linspace(-1, 1, 2 * 3 * 6 * 6).view(2, 3, 6, 6)


class EngineOfTorch:
    """Computes with torch what the file stands for, `error` beside the truth."""

    name = "ours"

    def __init__(self, graph: Graph, error: float = 0.0) -> None:
        self.graph = graph
        self.error = error
        self.compiled: list[tuple[Shape, ...]] = []
        self.calls = 0

    def compile(self, path: Path, shapes: Sequence[Shape]) -> Function:
        if path.read_bytes() != b"whole":
            raise EngineError(f"{path}: damaged")
        self.compiled.append(tuple(shapes))
        return self.compute

    def compute(self, *inputs: Tensor) -> Tensors:
        self.calls += 1
        return tuple(output + self.error for output in self.graph.function(*inputs))


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where graphs were exported to; the files hold a word."""
    written: list[Path] = []

    def write(graph: Graph, shapes: Sequence[Shape], path: Path) -> None:
        path.write_bytes(b"whole")
        written.append(path)

    monkeypatch.setattr(store, "write_graph", write)
    return written


def run(graph: Graph, engines: Sequence[Any], inputs: Tensor, *, fallback: bool = False, bf16: bool = False) -> Tensors:
    precision = torch.bfloat16 if bf16 else torch.float32
    graph.engine = Execution(graph, engines, precision, fallback=fallback)
    with torch.no_grad():
        return graph(inputs)


def test_an_engine_computes_what_torch_would(network: Any, exports: list[Path]) -> None:
    engine = EngineOfTorch(network.graph, error=1e-4)
    outputs = run(network.graph, [engine], REGIONS)
    torch.testing.assert_close(outputs[0], network.maps(REGIONS)[0] + 1e-4)
    assert engine.compiled == [((None, 3, 6, 6),)]
    assert len(exports) == 1


def test_an_engine_that_differs_is_refused_with_the_difference(network: Any, exports: list[Path]) -> None:
    with pytest.raises(EngineError, match=r"engine ours: its maps differ by 0\.5 from torch, expected at most 0\.001"):
        run(network.graph, [EngineOfTorch(network.graph, error=0.5)], REGIONS)


def test_an_engine_that_gives_no_number_is_refused(network: Any, exports: list[Path]) -> None:
    with pytest.raises(EngineError, match="differ by inf"):
        run(network.graph, [EngineOfTorch(network.graph, error=float("nan"))], REGIONS)


def test_bfloat16_may_differ_as_far_as_torchs_own(network: Any, exports: list[Path]) -> None:
    run(network.graph, [EngineOfTorch(network.graph, error=2e-3)], REGIONS, bf16=True)
    with pytest.raises(EngineError, match="differ"):
        run(network.graph, [EngineOfTorch(network.graph, error=2e-3)], REGIONS)
    with pytest.raises(EngineError, match="differ"):
        run(network.graph, [EngineOfTorch(network.graph, error=0.2)], REGIONS, bf16=True)


def test_the_first_engine_that_agrees_is_taken_and_else_torch(network: Any, exports: list[Path]) -> None:
    wrong = EngineOfTorch(network.graph, error=1.0)
    right = EngineOfTorch(network.graph)
    run(network.graph, [wrong, right], REGIONS, fallback=True)
    assert right.calls == 2  # the check, then the call

    (first, _) = run(network.graph, [wrong], REGIONS, fallback=True)
    assert torch.equal(first, network.maps(REGIONS)[0])


def test_a_file_is_exported_once_for_all_numbers_of_rows(network: Any, exports: list[Path], cache: Path) -> None:
    engine = EngineOfTorch(network.graph)
    run(network.graph, [engine], REGIONS)
    with torch.no_grad():
        network.graph(REGIONS[:1])
    run(network.graph, [engine], REGIONS)
    assert len(exports) == 1
    assert len(engine.compiled) == 2  # once for each Execution
    assert len(list(cache.iterdir())) == 1


def test_every_size_of_images_is_compiled(image_network: Any, exports: list[Path]) -> None:
    engine = EngineOfTorch(image_network.graph)
    run(image_network.graph, [engine], REGIONS)
    with torch.no_grad():
        image_network.graph(REGIONS[:, :, :4])
        image_network.graph(REGIONS)
    assert engine.compiled == [((2, 3, 6, 6),), ((2, 3, 4, 6),)]
    assert len(exports) == 2


def test_a_damaged_file_is_written_again(network: Any, exports: list[Path], cache: Path) -> None:
    engine = EngineOfTorch(network.graph)
    run(network.graph, [engine], REGIONS)
    (path,) = cache.iterdir()
    path.write_bytes(b"who")
    run(network.graph, [engine], REGIONS)
    assert path.read_bytes() == b"whole"
    assert len(exports) == 2


def test_other_weights_and_other_versions_have_other_files(
    network: Any, exports: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EngineOfTorch(network.graph)
    run(network.graph, [engine], REGIONS)
    with torch.no_grad():
        network.second.bias += 1
    (_, second) = run(network.graph, [engine], REGIONS)
    assert torch.equal(second, network.maps(REGIONS)[1])
    monkeypatch.setattr(store, "__version__", "0.0.0")
    run(network.graph, [engine], REGIONS)
    assert len(set(exports)) == len(list(cache.iterdir())) == 3


def test_training_is_torchs_and_new_weights_are_exported_anew(network: Any, exports: list[Path]) -> None:
    engine = EngineOfTorch(network.graph)
    run(network.graph, [engine], REGIONS)
    calls = engine.calls
    network.graph(REGIONS)[1].sum().backward()
    assert engine.calls == calls
    assert network.first.weight.grad is not None

    with torch.no_grad():
        network.second.bias += 1
        (_, second) = network.graph(REGIONS)
    assert torch.equal(second, network.maps(REGIONS)[1])
    assert len(exports) == 2


def test_a_copy_of_a_model_computes_with_torch(network: Any, exports: list[Path]) -> None:
    run(network.graph, [EngineOfTorch(network.graph)], REGIONS)
    copied = deepcopy(network)
    assert copied.graph.engine is None
    assert copied.graph.owner is copied
    with torch.no_grad():
        copied.second.bias += 1
        assert not torch.equal(copied.graph(REGIONS)[1], network.graph(REGIONS)[1])


def test_without_rows_torch_says_the_shapes(network: Any, exports: list[Path]) -> None:
    first, second = run(network.graph, [EngineOfTorch(network.graph)], REGIONS[:0])
    assert first.shape == (0, 4, 6, 6)
    assert second.shape == (0, 2, 3, 3)
    assert exports == []


def test_old_sizes_make_room_for_new_ones(image_network: Any, exports: list[Path]) -> None:
    engine = EngineOfTorch(image_network.graph)
    run(image_network.graph, [engine], REGIONS)
    with torch.no_grad():
        for side in range(7, 7 + MOST):
            image_network.graph(torch.zeros(1, 3, side, side))
        image_network.graph(REGIONS)
    assert len(engine.compiled) == MOST + 2


def test_old_files_make_room_for_new_ones(
    image_network: Any, exports: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "KEPT", 2)
    for side in (4, 5, 6, 7):
        run(image_network.graph, [EngineOfTorch(image_network.graph)], torch.zeros(1, 3, side, side))
    assert len(list(cache.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_one_clear_line(
    network: Any, exports: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/gone")
    with pytest.raises(ValueError, match="cannot be written"):
        run(network.graph, [EngineOfTorch(network.graph)], REGIONS)
    (first, _) = run(network.graph, [EngineOfTorch(network.graph)], REGIONS, fallback=True)
    assert torch.equal(first, network.maps(REGIONS)[0])
