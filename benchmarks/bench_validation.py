"""What validation costs: 20 clips at the default interval, beside the steps of the run.

    python benchmarks/bench_validation.py [--recipe masktrack/generated] [--steps 60] [--videos 20] [--threads 1]

Trains for some steps, times them without the first ones, and then times one validation with the weights that came out;
both on the clock and in processor time, which a busy machine does not stretch. The share is that of a whole run of the
recipe at its default interval. Target: under a tenth.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tubelet import recipes
from tubelet.models import weights
from tubelet.recipes.experiment import Experiment
from tubelet.recipes.validation import VideoValidation, hold_out
from tubelet.training.distributed import Processes
from tubelet.training.validation import interval

Seconds = tuple[float, float]  # on the clock, of processors


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    recipe = recipes.find(arguments.recipe)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        step = seconds_per_step(recipe, arguments.steps, arguments.threads, out)
        once, length = seconds_of_validation(recipe, arguments.videos, out)

    iterations = recipe.train.iterations
    times = -(-iterations // interval(recipe.validation.every, iterations))  # and at the end
    print(f"{arguments.recipe}: {iterations} steps, validated {times} times on {length}")
    for name, a_step, a_validation in zip(("clock", "processor"), step, once, strict=True):
        share = times * a_validation / (iterations * a_step + times * a_validation)
        print(f"{name:<10} {a_step:8.3f} s a step  {a_validation:8.2f} s a validation  {share:7.1%} of the run")


def seconds_per_step(recipe: Experiment, steps: int, threads: int, out: Path) -> Seconds:
    """Seconds of a step, from two runs of different length, so that the start does not count."""
    short = _timed(lambda: _run(recipe, steps // 4, threads, out / "short"))
    long = _timed(lambda: _run(recipe, steps, threads, out / "long"))
    more = steps - steps // 4
    return (long[0] - short[0]) / more, (long[1] - short[1]) / more


def seconds_of_validation(recipe: Experiment, count: int, out: Path) -> tuple[Seconds, str]:
    """Seconds of one validation, and what it was of."""
    videos = recipe.data.read()
    _, others = hold_out(videos, count / len(videos.videos), recipe.train.seed)
    validation = VideoValidation(others, recipe.validation.but(videos=count), out)
    model = weights.load(out / "long", device="cpu")
    world = Processes(device=torch.device("cpu"))
    validation.folder.parent.mkdir(exist_ok=True)
    frames = sum(len(video) for video in validation.videos)
    seconds = _timed(lambda: validation.judge(model, 0, world))
    return seconds, f"{len(validation.videos)} clips of {frames} frames in all"


def _run(recipe: Experiment, steps: int, threads: int, out: Path) -> None:
    train = recipe.train.but(iterations=steps, threads=threads, workers=0, checkpoint_every=10**6)
    recipe.but(train=train).run(out, device="cpu", quiet=True)


def _timed(work: Callable[[], object]) -> Seconds:
    began = time.perf_counter()
    spent = time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - spent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="masktrack/generated")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
