"""ONNX Runtime, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.core.errors import EngineError
from tubelet.engines.graph import Function, Shape, Tensors


class OnnxRuntime:
    """ONNX Runtime on the CPU; always in float32."""

    name = "onnx"

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def compile(self, path: Path, shapes: Sequence[Shape]) -> Function:
        """Prepare a file for inputs of these shapes."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4  # fatal errors only: others are raised
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no base class but this
            raise EngineError(f"ONNX Runtime cannot read {path}: {first_line(error)}") from None
        return _Session(session)


class _Session:
    def __init__(self, session: Any) -> None:
        self.session = session
        self.names = [entry.name for entry in session.get_inputs()]

    def __call__(self, *inputs: Tensor) -> Tensors:
        arrays = dict(zip(self.names, map(as_array, inputs), strict=True))
        try:
            outputs = self.session.run(None, arrays)
        except Exception as error:
            raise EngineError(f"ONNX Runtime: {first_line(error)}") from None
        return tuple(map(torch.from_numpy, outputs))


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as a contiguous float32 array, without a copy if it is one.

    Example:
        >>> from tubelet.engines.onnx_runtime import as_array
        >>> as_array(torch.zeros(2, dtype=torch.bfloat16)).dtype
        dtype('float32')
    """
    return np.ascontiguousarray(tensor.float().numpy())


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its class.

    Example:
        >>> from tubelet.engines.onnx_runtime import first_line
        >>> first_line(ValueError("no\\nway"))
        'no'
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
