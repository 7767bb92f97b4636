"""Compute a graph by the first of several engines that agrees with torch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.core.errors import EngineError, TubeletError
from tubelet.engines.engine import TOLERANCE, Engine, difference
from tubelet.engines.graph import Function, Graph, Shape, Tensors
from tubelet.engines.rows import RowsInParallel
from tubelet.engines.store import export, location

MOST = 16  # compiled shapes of a graph
ROUNDING = 3.0  # how many times further from float32 than torch's own bfloat16 an engine's may be

logger = logging.getLogger("tubelet.progress")


class Execution:
    """Computes a graph by the first engine that agrees with torch on the first inputs of a shape.

    Args:
        graph: The graph.
        engines: Engines to try, in this order.
        precision: Of the layers, torch.float32 or torch.bfloat16.
        fallback: Whether torch computes the graph if no engine can. Otherwise a call raises
            EngineError.
        at_once: Number of shares of the rows to compute at a time, if the graph has rows.
    """

    on_torch = False

    def __init__(
        self,
        graph: Graph,
        engines: Sequence[Engine],
        precision: torch.dtype,
        *,
        fallback: bool,
        at_once: int = 1,
    ) -> None:
        self.graph = graph
        self.engines = engines
        self.precision = precision
        self.fallback = fallback
        self.at_once = at_once if graph.rows else 1
        self._compiled: dict[tuple[Shape, ...], Function] = {}
        self._lock = threading.Lock()  # threads of a server share a model, and a request is one thread's

    def __call__(self, *inputs: Tensor) -> Tensors:
        if len(inputs[0]) == 0:  # not every operator of an engine takes no rows
            return self.graph.function(*inputs)

        shapes = self.graph.shapes(inputs)
        with self._lock:
            if shapes not in self._compiled:
                self._make_room()
                self._compiled[shapes] = self._prepare(inputs, shapes)
            return self._compiled[shapes](*inputs)

    def forget(self) -> None:
        """Forget what was compiled; the next call exports the weights of then."""
        with self._lock:
            self._compiled.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a model computes with torch: its weights may be about to change."""
        return

    def _make_room(self) -> None:
        while len(self._compiled) >= MOST:
            del self._compiled[next(iter(self._compiled))]

    def _prepare(self, inputs: Tensors, shapes: tuple[Shape, ...]) -> Function:
        for engine in self.engines:
            try:
                return self._compile(engine, inputs, shapes)
            except TubeletError as error:
                if not self.fallback:
                    raise
                logger.info("%s", error)
        return self.graph.function

    def _compile(self, engine: Engine, inputs: Tensors, shapes: tuple[Shape, ...]) -> Function:
        """Compile the stored file, or a new one if that is missing, damaged or does not agree."""
        path = location(self.graph, shapes)
        if path.is_file():
            with suppress(EngineError):
                return self._checked(engine, self._read(engine, path, shapes), inputs)
        export(self.graph, shapes)
        return self._checked(engine, self._read(engine, path, shapes), inputs)

    def _read(self, engine: Engine, path: Path, shapes: tuple[Shape, ...]) -> Function:
        functions = [engine.compile(path, shapes) for _ in range(self.at_once)]
        return functions[0] if len(functions) == 1 else RowsInParallel(functions)

    def _checked(self, engine: Engine, compiled: Function, inputs: Tensors) -> Function:
        """Return the compiled graph. Raises EngineError if it differs from torch on these inputs."""
        expected = self._torch(inputs, torch.float32)
        largest = difference(compiled(*inputs), expected)

        allowed = TOLERANCE
        if self.precision != torch.float32:
            allowed += ROUNDING * difference(self._torch(inputs, self.precision), expected)
        if not largest <= allowed:
            name = self.graph.name
            raise EngineError(
                f"engine {engine.name}: its {name} differ by {largest:.2g} from torch, expected at most {allowed:.2g}; "
                "use engine torch"
            )
        return compiled

    def _torch(self, inputs: Tensors, precision: torch.dtype) -> Tensors:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            return self.graph.function(*(tensor.float() for tensor in inputs))
