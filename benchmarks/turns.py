"""Two or more programs that take turns (A B A B ...), so that a drift of the machine's speed falls on all alike."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Cost(NamedTuple):
    """Seconds of one run."""

    processor: float
    clock: float


class Turns(NamedTuple):
    """What one program cost in each turn."""

    costs: tuple[Cost, ...]

    def over(self, other: Turns) -> str:
        """How many times dearer than `other`: the median of the ratios of each turn."""
        pairs = list(zip(self.costs, other.costs, strict=True))
        processor = statistics.median(a.processor / b.processor for a, b in pairs)
        clock = statistics.median(a.clock / b.clock for a, b in pairs)
        return f"{processor:5.1f}x processor, {clock:5.1f}x clock"

    def __str__(self) -> str:
        processor = min(cost.processor for cost in self.costs)
        clock = min(cost.clock for cost in self.costs)
        return f"{processor:6.3f} s processor, {clock:6.3f} s clock"


def take_turns(programs: Sequence[Callable[[], Any]], repeats: int, *, children: bool = False) -> list[Turns]:
    """Run all programs in turn, `repeats` times; `children` measures the processes that they start."""
    costs: list[list[Cost]] = [[] for _ in programs]
    for _ in range(repeats):
        for n, program in enumerate(programs):
            before, begin = _processor(children), time.perf_counter()
            program()
            costs[n].append(Cost(_processor(children) - before, time.perf_counter() - begin))
    return [Turns(tuple(of_program)) for of_program in costs]


def _processor(children: bool) -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
