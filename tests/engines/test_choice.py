"""An engine is chosen by name, or the fastest that is there; what cannot be is one clear line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tubelet.core.errors import ConfigError, EngineError
from tubelet.engines import choice
from tubelet.engines.choice import use_engine

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable that holds for all other tests."""
    monkeypatch.delenv(choice.VARIABLE)


def install(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let only these packages be installed."""
    monkeypatch.setattr(choice, "find_spec", lambda name: object() if name in packages else None)


def names(network: Any) -> list[str]:
    execution = network.graph.engine
    return [] if execution is None else [engine.name for engine in execution.engines]


ALL = ("onnx", "onnxscript", "onnxruntime", "openvino")


def test_auto_takes_the_fastest_that_is_installed(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for packages, precision, expected in (
        ((), torch.float32, []),
        (ALL, torch.float32, ["onnx", "openvino"]),
        (ALL, torch.bfloat16, ["openvino"]),
        (("onnx", "onnxscript", "onnxruntime"), torch.bfloat16, []),
        (("openvino",), torch.bfloat16, []),  # without what writes files
    ):
        install(monkeypatch, *packages)
        use_engine([network.graph], "auto", precision, CPU)
        assert names(network) == expected


def test_the_environment_says_what_auto_means(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, *ALL)
    monkeypatch.setenv(choice.VARIABLE, "torch")
    use_engine([network.graph], "auto", torch.float32, CPU)
    assert names(network) == []
    use_engine([network.graph], "onnx", torch.float32, CPU)
    assert names(network) == ["onnx"]
    monkeypatch.setenv(choice.VARIABLE, "tensorflow")
    with pytest.raises(ConfigError, match="TUBELET_ENGINE: expected auto or torch or onnx or openvino, got 'tensorfl"):
        use_engine([network.graph], "auto", torch.float32, CPU)


def test_auto_is_torch_on_another_device_and_for_other_models(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, *ALL)
    use_engine([network.graph], "auto", torch.float32, torch.device("meta"))
    assert names(network) == []
    use_engine([], "auto", torch.float32, CPU)


@pytest.mark.parametrize(("name", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_an_engine_that_is_not_installed_names_its_extra(
    network: Any, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    install(monkeypatch, "onnx", "onnxscript")
    with pytest.raises(EngineError, match=rf"engine {name} needs {package}: .*pip install 'tubelet\[{name}\]'"):
        use_engine([network.graph], name, torch.float32, CPU)


def test_an_engine_runs_on_the_cpu_alone(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, *ALL)
    with pytest.raises(EngineError, match="engine onnx runs on the CPU, got device meta"):
        use_engine([network.graph], "onnx", torch.float32, torch.device("meta"))


def test_a_model_without_graphs_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, *ALL)
    with pytest.raises(EngineError, match="runs with torch only; use engine torch"):
        use_engine([], "openvino", torch.float32, CPU)


def test_another_name_is_refused(network: Any) -> None:
    with pytest.raises(ConfigError, match="engine: expected auto or torch or onnx or openvino, got 'tensorrt'"):
        use_engine([network.graph], "tensorrt", torch.float32, CPU)
