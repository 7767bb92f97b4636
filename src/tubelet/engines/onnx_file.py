"""Write a traced network as an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from tubelet.core.errors import InputError
from tubelet.engines.graph import Function, Graph, Shape, Tensors

OPSET = 18
WRITERS = ("onnx", "onnxscript")  # packages that writing needs


def write_graph(graph: Graph, shapes: Sequence[Shape], path: Path) -> None:
    """Write a graph for inputs of these shapes.

    Raises InputError if ONNX lacks an operator.
    """
    from tubelet.engines.onnx_operators import quietly

    network = _Network(graph.owner, graph.function)
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False), quietly():
        # of any number the example has two: one would be taken for a constant
        example = tuple(torch.zeros([2 if side is None else side for side in shape]) for shape in shapes)
        free = tuple({axis: Dim.AUTO for axis, side in enumerate(shape) if side is None} for shape in shapes)
        program = torch.export.export(network, example, strict=False, dynamic_shapes=(free,))
        write(program, path, {})


def write(
    program: ExportedProgram,
    path: Path,
    metadata: Mapping[str, str],
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> None:
    """Write a program of torch.export, with metadata and names of its inputs and outputs.

    Raises InputError if ONNX lacks an operator.
    """
    import onnx

    from tubelet.engines.onnx_operators import TRANSLATIONS, quietly

    with quietly(), torch.no_grad():
        try:
            translated = torch.onnx.export(
                program,
                input_names=inputs,
                output_names=outputs,
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = " ".join(str(error).split())[-200:]
            raise InputError(f"ONNX lacks an operator of this model: ...{reason}") from None
    assert translated is not None

    model = translated.model_proto
    properties = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**properties, **metadata})
    onnx.save(model, path)


class _Network(nn.Module):
    """A function as a module, with the module that has its parameters."""

    def __init__(self, owner: nn.Module, function: Function) -> None:
        super().__init__()
        self.owner = owner
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Tensors:
        return self.function(*inputs)
