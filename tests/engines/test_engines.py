"""ONNX Runtime and OpenVINO compute exported graphs as torch does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tubelet.core.errors import EngineError
from tubelet.engines.choice import absent
from tubelet.engines.engine import Engine, difference
from tubelet.engines.execution import Execution
from tubelet.engines.onnx_runtime import OnnxRuntime
from tubelet.engines.openvino import OpenVino

REGIONS = torch.linspace(-1, 1, 5 * 3 * 6 * 8).view(5, 3, 6, 8)


@pytest.fixture(params=["onnx", "openvino"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine; skips one that is not installed."""
    if absent(request.param):
        pytest.skip(f"{', '.join(absent(request.param))} not installed")
    return OnnxRuntime(1) if request.param == "onnx" else OpenVino(torch.float32, 1)


def test_an_engine_agrees_with_torch_on_any_number_of_rows(network: Any, engine: Engine) -> None:
    graph = network.graph
    graph.engine = Execution(graph, [engine], torch.float32, fallback=False)
    with torch.inference_mode():
        for count in (1, 5, 2):
            assert difference(graph(REGIONS[:count]), network.maps(REGIONS[:count])) < 1e-5


def test_an_engine_agrees_with_torch_on_any_size(image_network: Any, engine: Engine) -> None:
    graph = image_network.graph
    graph.engine = Execution(graph, [engine], torch.float32, fallback=False)
    with torch.inference_mode():
        for images in (REGIONS[:1], REGIONS[:2], REGIONS[:1, :, :4, :5]):
            assert difference(graph(images), image_network.maps(images)) < 1e-5


def test_outputs_stay_when_an_engine_is_called_again(network: Any, engine: Engine) -> None:
    graph = network.graph
    graph.engine = Execution(graph, [engine], torch.float32, fallback=False)
    with torch.inference_mode():
        outputs = graph(REGIONS[:2])
        before = [output.clone() for output in outputs]
        graph(REGIONS[2:4])
        assert all(torch.equal(output, kept) for output, kept in zip(outputs, before, strict=True))


def test_a_damaged_file_is_one_clear_line(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"cannot read .*graph\.onnx"):
        engine.compile(path, [(None, 3, 6, 8)])


def test_a_damaged_file_of_the_cache_is_written_again(network: Any, engine: Engine, cache: Path) -> None:
    graph = network.graph
    with torch.inference_mode():
        for _ in range(2):
            graph.engine = Execution(graph, [engine], torch.float32, fallback=False)
            assert difference(graph(REGIONS), network.maps(REGIONS)) < 1e-5
            (path,) = cache.iterdir()
            whole = path.stat().st_size
            path.write_bytes(path.read_bytes()[:100])
    graph.engine = Execution(graph, [engine], torch.float32, fallback=False)
    with torch.inference_mode():
        graph(REGIONS)
    assert path.stat().st_size == whole


# A core of OpenVINO gives signals a stack of its own. Freed in the order of their making, two cores left the stack of
# the first in force, whose memory was gone.
ENGINES_THAT_COME_AND_GO = """
import signal, sys
from pathlib import Path
import torch
from tubelet.engines.openvino import OpenVino

first, second = (OpenVino(torch.float32, 1).compile(Path(sys.argv[1]), [(None, 3, 6, 8)]) for _ in range(2))
del first
del second
signal.signal(signal.SIGINT, lambda *_: print("heard"))
signal.raise_signal(signal.SIGINT)
"""


def test_ctrl_c_is_heard_after_engines_were_freed(network: Any, tmp_path: Path) -> None:
    if absent("openvino"):
        pytest.skip("openvino not installed")
    network.graph.engine = Execution(network.graph, [OpenVino(torch.float32, 1)], torch.float32, fallback=False)
    with torch.inference_mode():
        network.graph(REGIONS)
    (path,) = tmp_path.rglob("*.onnx")
    command = [sys.executable, "-c", ENGINES_THAT_COME_AND_GO, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "heard\n"), ended.stderr
