"""Choose the engine of a model by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch

from tubelet.core.arguments import one_of
from tubelet.core.errors import EngineError
from tubelet.engines.engine import Engine
from tubelet.engines.execution import Execution
from tubelet.engines.graph import Graph
from tubelet.engines.onnx_file import WRITERS
from tubelet.engines.onnx_runtime import OnnxRuntime
from tubelet.engines.openvino import OpenVino

NAMES = ("auto", "torch", "onnx", "openvino")
MOST_AT_ONCE = 8  # shares of rows, each with a copy of the network: a frame seldom has more than twenty
VARIABLE = "TUBELET_ENGINE"  # of the environment: the engine that "auto" means

PACKAGES = {"onnx": ("onnxruntime", *WRITERS), "openvino": ("openvino", *WRITERS)}
# the fastest first, as benchmarks/bench_engines.py measures them; slower ones than torch are not in it
FASTEST = {torch.float32: ("onnx", "openvino"), torch.bfloat16: ("openvino",)}
_ENGINES: dict[str, Callable[[torch.dtype, int], Engine]] = {
    "onnx": lambda precision, threads: OnnxRuntime(threads),
    "openvino": OpenVino,
}


def use_engine(graphs: Sequence[Graph], name: str, precision: torch.dtype, device: torch.device) -> None:
    """Let an engine compute the graphs of a model.

    Each graph is exported and compiled when it is first called, and checked on that call's inputs.

    Args:
        graphs: All graphs of the model; none if no part of it can be exported.
        name: "torch", "onnx", "openvino", or "auto": the fastest that is installed and agrees with
            torch, or what TUBELET_ENGINE of the environment names.
        precision: Of the layers.
        device: Of the model; engines run on the CPU.

    Raises:
        ConfigError: for another name.
        EngineError: if the named engine is not installed, or cannot run the model or on the device.

    Example:
        >>> from tubelet.engines.choice import use_engine
        >>> use_engine([], "onnx", torch.float32, torch.device("cpu"))
        Traceback (most recent call last):
        ...
        tubelet.core.errors.EngineError: engine onnx: this kind of model runs with torch only; use engine torch
    """
    name = chosen(name)
    if name == "auto":
        names = fastest(precision) if device.type == "cpu" else []
    else:
        names = [name] if name != "torch" else []
        _check_possible(name, graphs, device)

    cores = torch.get_num_threads()
    for graph in graphs:
        engines = [_ENGINES[known](precision, 1 if graph.rows else cores) for known in names]
        at_once = min(cores, MOST_AT_ONCE)
        execution = Execution(graph, engines, precision, fallback=name == "auto", at_once=at_once)
        graph.engine = execution if engines else None


def chosen(name: str) -> str:
    """Return the name of an engine; "auto" is what TUBELET_ENGINE of the environment names, if it is set.

    Raises ConfigError for another name.

    Example:
        >>> from tubelet.engines.choice import chosen
        >>> chosen("onnx")
        'onnx'
    """
    one_of("engine", name, NAMES)
    if name == "auto" and os.environ.get(VARIABLE):
        return one_of(VARIABLE, os.environ[VARIABLE], NAMES)
    return name


def fastest(precision: torch.dtype) -> list[str]:
    """List the installed engines that are faster than torch at a precision, the fastest first.

    Example:
        >>> from tubelet.engines.choice import fastest
        >>> "torch" in fastest(torch.float32)
        False
    """
    return [name for name in FASTEST[precision] if not absent(name)]


def found() -> list[str]:
    """List the engines that are installed.

    Example:
        >>> from tubelet.engines.choice import found
        >>> "torch" in found()
        True
    """
    return [name for name in NAMES if name != "auto" and not absent(name)]


def absent(name: str) -> list[str]:
    """List the packages that an engine needs and that are not installed.

    Example:
        >>> from tubelet.engines.choice import absent
        >>> absent("torch")
        []
    """
    return [package for package in PACKAGES.get(name, ()) if find_spec(package) is None]


def _check_possible(name: str, graphs: Sequence[Graph], device: torch.device) -> None:
    if name == "torch":
        return
    if not graphs:
        raise EngineError(f"engine {name}: this kind of model runs with torch only; use engine torch")
    if absent(name):
        packages = ", ".join(absent(name))
        raise EngineError(f"engine {name} needs {packages}: install the extra, pip install 'tubelet[{name}]'")
    if device.type != "cpu":
        raise EngineError(f"engine {name} runs on the CPU, got device {device}; use engine torch or device cpu")
