"""Who uses the processor's cores while an engine computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from tubelet.engines.graph import Graph


def is_by_engine(graph: Graph) -> bool:
    """Return whether an engine with threads of its own computes the graph.

    Example:
        >>> from tubelet.engines.graph import Graph
        >>> from tubelet.engines.threads import is_by_engine
        >>> is_by_engine(Graph("nothing", torch.nn.Identity(), lambda x: (x,)))
        False
    """
    return graph.engine is not None and not graph.engine.on_torch


@contextmanager
def torch_on_one_thread(graphs: Sequence[Graph]) -> Iterator[None]:
    """Let torch compute on one thread in this block, if an engine computes any of the graphs.

    After parallel work, torch's threads wait for more on their cores for some milliseconds, which an
    engine's threads need then: measured on two cores, a frame took 44 ms in place of 36.

    Example:
        >>> from tubelet.engines.threads import torch_on_one_thread
        >>> with torch_on_one_thread([]):  # no engine: nothing changes
        ...     torch.zeros(2).sum()
        tensor(0.)
    """
    if not any(map(is_by_engine, graphs)):
        yield
        return

    with one_thread_here():
        yield


@contextmanager
def one_thread_here() -> Iterator[None]:
    """Let what this thread does with torch use one core in this block.

    Torch has one such number for each of the program's threads. A thread that first uses torch
    meanwhile has one too, until it sets another.

    Example:
        >>> from tubelet.engines.threads import one_thread_here
        >>> with one_thread_here():
        ...     torch.get_num_threads()
        1
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
