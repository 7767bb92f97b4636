"""YouTube-VIS evaluation beside a straightforward evaluator on pycocotools, in one run.

    python benchmarks/bench_evaluation.py [--folder DIR] [--repeats 3]

The validation-sized case of `evaluation_case.py` is generated into the folder once. Both evaluators take turns; the
best of the repeats counts, in processor time (which a busy machine stretches less) and on the clock. Targets:
evaluation proper 15 times faster, the whole command 4 times, class-agnostic 15 times; memory about three times the
file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import evaluation_plain
from evaluation_case import Case, write

from tubelet.evaluation import ytvis
from tubelet.formats import ytvis as files

HERE = Path(__file__).resolve().parent
VALIDATION = Case()
AGNOSTIC = replace(VALIDATION, videos=30)
LONG = Case(videos=1, frames=1000, predictions=100, objects=5, classes=1)


class Cost(NamedTuple):
    """Seconds."""

    processor: float
    clock: float

    def ratio(self, other: Cost) -> str:
        return f"{self.processor / other.processor:5.1f}x processor, {self.clock / other.clock:5.1f}x clock"

    def __str__(self) -> str:
        return f"{self.processor:6.2f} s processor, {self.clock:6.2f} s clock"


def main() -> None:
    """Generate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "tubelet-bench-evaluation")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for case in (VALIDATION, AGNOSTIC, LONG):
        _generate(case, options.folder)
    truth, results = write(VALIDATION, options.folder)
    print(f"{VALIDATION}\nresult file {results.stat().st_size / 1e6:.0f} MB")
    _command(truth, results, options.repeats)
    _proper(truth, results, options.repeats, agnostic=False)
    _proper(*write(AGNOSTIC, options.folder), options.repeats, agnostic=True)
    _long(*write(LONG, options.folder))


def _generate(case: Case, folder: Path) -> None:
    """In another process, because a child is charged with all the memory that its parent has ever held."""
    process = multiprocessing.get_context("spawn").Process(target=write, args=(case, folder))
    process.start()
    process.join()


def _proper(truth: Path, results: Path, repeats: int, *, agnostic: bool) -> None:
    tree, listed = json.loads(truth.read_text()), json.loads(results.read_text())
    evaluation_plain.plain.prepare(tree, listed)
    videos = files.read(truth)
    answers = files.read_predictions(results, videos)

    def plain() -> Any:
        return evaluation_plain.plain.evaluate(tree, listed, agnostic=agnostic)

    def ours() -> Any:
        return ytvis.evaluate(videos.videos, answers, agnostic=agnostic)

    expected, found = plain(), ours()
    assert max(abs(expected[key] - found[key]) for key in expected) < 1e-9, "both must give the same numbers"
    costs = _turns([plain, ours], repeats)
    name = f"class-agnostic, {len(videos.videos)} videos" if agnostic else "evaluation proper"
    print(f"{name:30s} plain {costs[0]}   tubelet {costs[1]}   {costs[0].ratio(costs[1])}")


def _command(truth: Path, results: Path, repeats: int) -> None:
    plain = [sys.executable, str(HERE / "evaluation_plain.py"), str(truth), str(results)]
    ours = [str(Path(sys.executable).with_name("tubelet")), "evaluate", "ytvis", str(truth), str(results)]
    memory = {}

    def run(command: list[str]) -> None:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
        memory["plain" if command is plain else "tubelet"] = usage.ru_maxrss / 1e3

    costs = _turns([lambda: run(plain), lambda: run(ours)], repeats, children=True)
    print(f"{'whole command':30s} plain {costs[0]}   tubelet {costs[1]}   {costs[0].ratio(costs[1])}")
    size = results.stat().st_size / 1e6
    shown = "   ".join(f"{name} {value:.0f} MB ({value / size:.1f} of the file)" for name, value in memory.items())
    print(f"{'its memory':30s} {shown}")


def _long(truth: Path, results: Path) -> None:
    videos = files.read(truth)
    answers = files.read_predictions(results, videos)
    (cost,) = _turns([lambda: ytvis.evaluate(videos.videos, answers)], 1)
    print(f"{'1000 frames, 100 predictions':30s} tubelet {cost}")


def _turns(runs: list[Callable[[], Any]], repeats: int, *, children: bool = False) -> list[Cost]:
    """The best of each, taking turns, so that a busy moment hits both."""
    best = [Cost(float("inf"), float("inf"))] * len(runs)
    for _ in range(repeats):
        for n, run in enumerate(runs):
            before, begin = _processor(children), time.perf_counter()
            run()
            cost = Cost(_processor(children) - before, time.perf_counter() - begin)
            best[n] = Cost(min(best[n].processor, cost.processor), min(best[n].clock, cost.clock))
    return best


def _processor(children: bool) -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
