"""OpenVINO, in float32 or bfloat16."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.core.errors import EngineError
from tubelet.engines.graph import Function, Shape, Tensors
from tubelet.engines.onnx_runtime import as_array, first_line

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class OpenVino:
    """OpenVINO on the CPU; bfloat16 only where the processor has it."""

    name = "openvino"

    def __init__(self, precision: torch.dtype, threads: int) -> None:
        self.precision = precision
        self.threads = threads

    def compile(self, path: Path, shapes: Sequence[Shape]) -> Function:
        """Prepare a file for inputs of these shapes."""
        openvino = _library()
        core = _core()
        settings = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # or all that run at the same time would share the first cores
        }
        try:
            model = core.read_model(path)
            sizes = [[-1 if side is None else side for side in shape] for shape in shapes]
            model.reshape({number: openvino.PartialShape(shape) for number, shape in enumerate(sizes)})
            return _Request(core.compile_model(model, "CPU", settings))
        except Exception as error:  # its errors have no base class but this
            raise EngineError(f"OpenVINO cannot read {path}: {first_line(error)}") from None


def _library() -> Any:
    """Import OpenVINO, but let it not report the import to its makers, as it does by openvino_telemetry."""
    if "openvino" in sys.modules or "openvino_telemetry" in sys.modules:
        return importlib.import_module("openvino")

    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules["openvino_telemetry"]


@functools.cache
def _core() -> Any:
    """One for the whole process and never freed.

    A core gives signals a stack of its own and puts the former one back when it is freed. Of two that are freed
    in the order in which they were made, the second puts back the stack of the first, which is gone: the next
    signal, such as Ctrl-C, would end the process.
    """
    return _library().Core()


class _Request:
    def __init__(self, compiled: Any) -> None:
        self.request = compiled.create_infer_request()
        self.count = len(compiled.outputs)

    def __call__(self, *inputs: Tensor) -> Tensors:
        try:
            self.request.infer([as_array(tensor) for tensor in inputs], share_inputs=True)
        except Exception as error:
            raise EngineError(f"OpenVINO: {first_line(error)}") from None
        # copies: the next call writes into the same memory
        outputs = [self.request.get_output_tensor(number).data for number in range(self.count)]
        return tuple(torch.from_numpy(output.copy()) for output in outputs)
