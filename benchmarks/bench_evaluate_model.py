"""Throughput of `tubelet evaluate model` with two workers against one, each limited to one thread.

    python benchmarks/bench_evaluate_model.py [--videos 16] [--repeats 3]

The bundled model predicts generated videos; runs with one and with two workers take turns, and their numbers must be
equal. A process's start is not throughput: the clock runs from the first finished video of each worker to the last
video. Needs two quiet cores; the target is 1.7.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path

from tubelet.apps.batch.command import fingerprint, load_model
from tubelet.inference.many.batch import Settings, VideoJob, VideoOutcome
from tubelet.inference.many.evaluation import evaluate_jobs, jobs_of_set, predict_for_evaluation
from tubelet.inference.many.workers import share
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import write

WORLD = Synthetic(height=180, width=320, frames=24, classes=("cat", "car"))


def measure(truth: Path, workers: int) -> tuple[float, dict[str, float]]:
    """Frames a second once all workers are at work, and the numbers."""
    settings = Settings(model=fingerprint("default"), threshold=0, video=False)
    ends: list[float] = []
    frames: list[int] = []

    with tempfile.TemporaryDirectory() as folder:

        def outcomes_of(jobs: Sequence[VideoJob]) -> Generator[VideoOutcome, None, None]:
            open_model = partial(load_model, "default")
            yield from share(jobs, open_model, Path(folder), settings, ["cpu"] * workers, predict_for_evaluation)

        def tell(outcome: VideoOutcome) -> None:
            assert outcome.status == "done", outcome.note
            ends.append(time.perf_counter())
            frames.append(outcome.frames)

        numbers = evaluate_jobs(jobs_of_set(truth), Path(folder), settings, outcomes_of, tell=tell)
    return sum(frames[workers:]) / (ends[-1] - ends[workers - 1]), numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=16, help="an even number, so that both workers end together")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "set", WORLD, seed=0, videos=given.videos)
        truth = Path(folder) / "set" / "instances.json"
        ratios = []
        for _ in range(given.repeats):
            one, numbers = measure(truth, 1)
            two, same = measure(truth, 2)
            assert numbers == same
            ratios.append(two / one)
            print(f"one worker {one:6.1f} frames/s   two {two:6.1f} frames/s   ratio {two / one:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f} (target 1.7)")


if __name__ == "__main__":
    main()
