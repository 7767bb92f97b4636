"""Throughput of `tubelet batch` with two workers against one, each limited to one thread.

    python benchmarks/bench_batch.py [VIDEO] [--copies 10] [--repeats 3]

The same video lies in the folder several times, under several names; runs with one and with two workers take turns.
A process's start is not throughput: the clock runs from the first finished video to the last, and the first of each
worker is not counted. Needs two quiet cores; the target is 1.7.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from tubelet.apps.batch.command import fingerprint, load_model
from tubelet.apps.batch.inputs import find_jobs
from tubelet.apps.demo import VIDEO
from tubelet.inference.many.batch import Settings
from tubelet.inference.many.workers import share


def rate(folder: Path, workers: int, video: bool) -> float:
    """Frames a second once all workers are at work."""
    settings = Settings(model=fingerprint("default"), video=video)
    with tempfile.TemporaryDirectory() as out:
        jobs = find_jobs([str(folder)], (), Path(out))
        ends: list[float] = []
        frames = 0
        for outcome in share(jobs, partial(load_model, "default"), Path(out), settings, ["cpu"] * workers):
            assert outcome.status == "done", outcome.note
            ends.append(time.perf_counter())
            if len(ends) > workers:
                frames += outcome.frames
    return frames / (ends[-1] - ends[workers - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", type=Path, default=VIDEO)
    parser.add_argument("--copies", type=int, default=10, help="an even number, so that both workers end together")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-video", action="store_true", help="without overlay.mp4")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for n in range(given.copies):
            shutil.copy(given.video, Path(folder) / f"{n}{given.video.suffix}")
        ratios = []
        for _ in range(given.repeats):
            one, two = (rate(Path(folder), workers, not given.no_video) for workers in (1, 2))
            ratios.append(two / one)
            print(f"one worker {one:6.1f} frames/s   two {two:6.1f} frames/s   ratio {two / one:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f} (target 1.7)")


if __name__ == "__main__":
    main()
