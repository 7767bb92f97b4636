"""YouTube-VIS evaluation beside a straightforward evaluator on pycocotools, in one run.

    python benchmarks/bench_evaluation.py [--folder DIR] [--repeats 3] [--videos 300]

The two validation-sized cases of `evaluation_case.py`, easy and hard, are generated into the folder once. Evaluators
take turns; printed are the best of each, and the median of the ratios of all turns, in processor time (which a busy
machine stretches less) and on the clock. Evaluation proper begins with the tracks in memory; the whole command reads
and checks them, too. Targets: evaluation proper 15 times faster, the whole command 4 times (easy) and 6 times (hard);
memory about three times the file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluation_plain
from evaluation_case import EASY, HARD, Case, write
from turns import take_turns

from tubelet.evaluation import ytvis
from tubelet.formats import ytvis as files

HERE = Path(__file__).resolve().parent
LONG = Case(videos=1, frames=1000, predictions=100, objects=5, classes=1)


def main() -> None:
    """Generate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "tubelet-bench-evaluation")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--videos", type=int, default=300)
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # a row is seen when it is measured

    cases = {"easy": replace(EASY, videos=options.videos), "hard": replace(HARD, videos=options.videos)}
    for name, case in cases.items():  # first, because a child is charged with all the memory that its parent has held
        _generate(case, options.folder)
        truth, results = write(case, options.folder)
        print(f"{name}: {case}\nresult file {results.stat().st_size / 1e6:.0f} MB")
        _command(truth, results, options.repeats)

    for name, case in cases.items():
        part = replace(case, videos=max(options.videos // 10, 1))
        _generate(part, options.folder)
        print(name)
        _proper(*write(case, options.folder), options.repeats, agnostic=False)
        _proper(*write(part, options.folder), options.repeats, agnostic=True)

    _generate(LONG, options.folder)
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
    theirs, own = take_turns([plain, ours], repeats)
    name = f"class-agnostic, {len(videos.videos)} videos" if agnostic else "evaluation proper"
    print(f"{name:30s} plain {theirs}   tubelet {own}   {theirs.over(own)}")


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

    theirs, own = take_turns([lambda: run(plain), lambda: run(ours)], repeats, children=True)
    print(f"{'whole command':30s} plain {theirs}   tubelet {own}   {theirs.over(own)}")
    size = results.stat().st_size / 1e6
    shown = "   ".join(f"{name} {value:.0f} MB ({value / size:.1f} of the file)" for name, value in memory.items())
    print(f"{'its memory':30s} {shown}")


def _long(truth: Path, results: Path) -> None:
    videos = files.read(truth)
    answers = files.read_predictions(results, videos)
    (cost,) = take_turns([lambda: ytvis.evaluate(videos.videos, answers)], 1)
    print(f"{'1000 frames, 100 predictions':30s} tubelet {cost}")


if __name__ == "__main__":
    main()
