"""Apply a function to many items, in several processes if asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_JOBS = 64  # processes

# what forked processes work on: they inherit it, so that only results are pickled
_shared: tuple[Callable[[Any], Any], Sequence[Any]] | None = None


def each(function: Callable[[Item], Result], items: Sequence[Item], jobs: int = 1) -> list[Result]:
    """Return `[function(item) for item in items]`, computed in `jobs` processes.

    With more than one process, `function` must be picklable: defined in a module, not a lambda or
    closure.

    Example:
        >>> from tubelet.evaluation.parallel import each
        >>> each(abs, [-1, 2, -3])
        [1, 2, 3]
    """
    if jobs < 2 or len(items) < 2:
        return [function(item) for item in items]

    # imported only where needed: they cost more than a small evaluation
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    jobs = min(jobs, len(items), MOST_JOBS)
    chunk = max(1, len(items) // (jobs * 4))
    if "fork" not in multiprocessing.get_all_start_methods():
        with ProcessPoolExecutor(jobs) as pool:
            return list(pool.map(function, items, chunksize=chunk))

    global _shared
    _shared = (function, items)
    try:
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
            return list(pool.map(_call, range(len(items)), chunksize=chunk))
    finally:
        _shared = None


def _call(n: int) -> Any:
    assert _shared is not None
    function, items = _shared
    return function(items[n])
