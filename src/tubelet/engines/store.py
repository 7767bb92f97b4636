"""Exported graphs in the user's cache folder, found by their content.

A file is named by the weights, the layers and the versions of the libraries that wrote it: a graph
of other weights or of another version is another file.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from tubelet import __version__
from tubelet.core.atomic import discard, replacing
from tubelet.core.cache import cache_folder
from tubelet.engines.graph import Graph, Shape
from tubelet.engines.onnx_file import OPSET, WRITERS, write_graph

KEPT = 64  # files; the ones that were not used for the longest time are removed
FORMAT = 1  # of the files

logger = logging.getLogger("tubelet.progress")


def folder() -> Path:
    """Return the folder of exported graphs; it may not exist yet."""
    return cache_folder("graphs")


def location(graph: Graph, shapes: Sequence[Shape]) -> Path:
    """Return the file of a graph for inputs of these shapes; it may not exist.

    Example:
        >>> from tubelet.engines.graph import Graph
        >>> from tubelet.engines.store import location
        >>> layer = torch.nn.Linear(3, 2)
        >>> graph = Graph("codes", layer, lambda x: (layer(x),))
        >>> before = location(graph, [(None, 3)])
        >>> before == location(graph, [(None, 3)])
        True
        >>> _ = torch.nn.init.zeros_(layer.bias)
        >>> before == location(graph, [(None, 3)])
        False
    """
    digest = hashlib.sha256()
    versions = [f"{name} {version(name)}" for name in ("torch", *WRITERS)]
    for text in (
        f"{FORMAT} {OPSET} tubelet {__version__}",
        *versions,
        graph.name,
        str(list(shapes)),
        repr(graph.owner),
    ):
        digest.update(text.encode() + b"\0")
    for name, tensor in sorted(graph.owner.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return folder() / f"{graph.name}-{digest.hexdigest()[:32]}.onnx"


def export(graph: Graph, shapes: Sequence[Shape]) -> Path:
    """Write the file of a graph, in place of one that may be there, and return it.

    Raises InputError if ONNX lacks an operator or the folder cannot be written.
    """
    logger.info("exporting %s, once for these weights and this size", graph.name)
    path = location(graph, shapes)
    with replacing(path) as partial:
        write_graph(graph, shapes, partial)
    _drop_oldest(path.parent)
    return path


def _drop_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[KEPT:]:
        discard(path)
