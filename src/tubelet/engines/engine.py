"""The interface of an engine, and how far it may be from torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tubelet.engines.graph import Function, Shape, Tensors

TOLERANCE = 1e-3  # largest difference in float32


class Engine(Protocol):
    """A program that computes ONNX files on the CPU."""

    name: str

    def compile(self, path: Path, shapes: Sequence[Shape]) -> Function:
        """Prepare a file for inputs of these shapes.

        Raises EngineError if the program cannot read the file or lacks an operator.
        """
        ...


def difference(outputs: Tensors, expected: Tensors) -> float:
    """Return the largest difference between outputs.

    Differences are relative to the largest value of each expected output, or to 1 if that is
    smaller. Outputs of other shapes or with NaN differ infinitely.

    Example:
        >>> from tubelet.engines.engine import difference
        >>> difference((torch.tensor([0.0, 96.0]),), (torch.tensor([0.0, 128.0]),))
        0.25
    """
    largest = 0.0
    for values, truth in zip(outputs, expected, strict=True):
        if values.shape != truth.shape:
            return math.inf
        if truth.numel() == 0:
            continue

        scale = truth.float().abs().max().clamp(min=1)
        relative = float((values.float() - truth.float()).abs().max() / scale)
        if math.isnan(relative):
            return math.inf
        largest = max(largest, relative)
    return largest
