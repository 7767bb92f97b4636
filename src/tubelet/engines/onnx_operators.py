"""Operators that torch.onnx does not translate, or translates into a loop only."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from onnxscript import opset18

op: Any = opset18  # its own annotations leave out the lists that it takes


def embedding_bag(
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Any, Any, Any, Any]:
    """Translate `embedding_bag` with bags of equal length, as deformable attention uses it, without a loop.

    It computes weighted sums of the rows of a table. Arguments are ONNX values, named as in torch.

    Args:
        weight: The table [rows, channels].
        indices: Rows of all bags [bags * length].
        offsets: Where each bag begins in `indices` [bags].
        scale_grad_by_freq: Ignored.
        mode: Must be 0, a sum.
        sparse: Ignored.
        per_sample_weights: Weight of each index [bags * length].
        include_last_offset: Ignored.
        padding_idx: Ignored.
    """
    assert mode == 0, "deformable attention uses sums"
    assert per_sample_weights is not None, "deformable attention uses weights"

    rows = op.Mul(op.Gather(weight, indices, axis=0), op.Unsqueeze(per_sample_weights, [1]))
    bags = op.Shape(offsets)
    shape = op.Concat(bags, [-1], op.Shape(weight, start=1), axis=0)
    summed = op.ReduceSum(op.Reshape(rows, shape), [1], keepdims=0)
    return summed, offsets, offsets, offsets


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten._embedding_bag.default: embedding_bag,
    torch.ops.aten._embedding_bag_forward_only.default: embedding_bag,
}


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the warnings and log messages of the translation.

    Example:
        >>> import warnings
        >>> from tubelet.engines.onnx_operators import quietly
        >>> with quietly():
        ...     warnings.warn("not shown")
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch._export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
