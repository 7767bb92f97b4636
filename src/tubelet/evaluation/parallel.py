"""One function over many items, in several processes where asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_JOBS = 64  # processes

_held: tuple[Callable[[Any], Any], Sequence[Any]] | None = None


def each(function: Callable[[Item], Result], items: Sequence[Item], jobs: int = 1) -> list[Result]:
    """`[function(item) for item in items]` in `jobs` processes; `function` is one of a module, not a closure."""
    if jobs < 2 or len(items) < 2:
        return [function(item) for item in items]
    import multiprocessing  # both only where they are needed: they cost more than small evaluations
    from concurrent.futures import ProcessPoolExecutor

    jobs = min(jobs, len(items), MOST_JOBS)
    chunk = max(1, len(items) // (jobs * 4))
    if "fork" not in multiprocessing.get_all_start_methods():
        with ProcessPoolExecutor(jobs) as pool:
            return list(pool.map(function, items, chunksize=chunk))
    global _held  # a forked process finds the items where they lie: nothing is copied or pickled but the answers
    _held = (function, items)
    try:
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
            return list(pool.map(_call, range(len(items)), chunksize=chunk))
    finally:
        _held = None


def _call(n: int) -> Any:
    assert _held is not None
    function, items = _held
    return function(items[n])
