"""DAVIS J & F beside a plain loop over pairs, at 480p, in one run.

    python benchmarks/bench_evaluation_davis.py [--frames 12] [--repeats 3]

The plain loop takes every proposal with every object, with masks and dilations of full size, as the official code does.
Target: 5 times faster.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "oracles"))
import davis_oracle as plain

from tubelet.evaluation import davis

SIZE = (480, 854)


def main() -> None:
    """Generate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for objects, proposals in ((2, 5), (3, 20)):
        truth, answer = _maps(options.frames, objects, 1), _maps(options.frames, proposals, 1)
        _compare(truth, answer, f"{objects} objects, {proposals} proposals", options.repeats)


def _compare(truth: np.ndarray, answer: np.ndarray, name: str, repeats: int) -> None:
    def slowly() -> dict[str, float]:
        return plain.summary(plain.evaluate(truth, answer))

    def ours() -> dict[str, float]:
        return davis.evaluate([davis.LabelledSequence("s", truth, answer)])

    expected, found = slowly(), ours()
    assert max(abs(expected[key] - found[key]) for key in found) < 1e-9, "both must give the same numbers"
    before, after = (_best(run, repeats) for run in (slowly, ours))
    ratio = " and ".join(
        f"{b / a:.1f}x {kind}" for b, a, kind in zip(before, after, ("processor", "clock"), strict=True)
    )
    print(f"{len(truth)} frames of 480p, {name}: plain {before[0]:.2f} s, tubelet {after[0]:.2f} s: {ratio}")


def _best(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Processor and clock seconds of the best repeat."""
    costs = []
    for _ in range(repeats):
        before, begin = time.process_time(), time.perf_counter()
        run()
        costs.append((time.process_time() - before, time.perf_counter() - begin))
    return min(c[0] for c in costs), min(c[1] for c in costs)


def _maps(frames: int, count: int, seed: int) -> np.ndarray:
    """Moving blobs as label maps, uint8 [T, H, W]."""
    rng = np.random.default_rng(seed)
    centres, speeds = rng.uniform(0.15, 0.85, (count, 2)) * SIZE[::-1], rng.normal(0, 4, (count, 2))
    axes = rng.uniform(30, 90, (count, 2))
    maps = np.zeros((frames, *SIZE), np.uint8)
    for t, frame in enumerate(maps):
        for n in range(count):
            x, y = centres[n] + t * speeds[n]
            cv2.ellipse(frame, (int(x), int(y)), (int(axes[n, 0]), int(axes[n, 1])), 7 * t + 20 * n, 0, 360, n + 1, -1)
    maps[0].flat[:count] = np.arange(1, count + 1)
    return maps


if __name__ == "__main__":
    main()
