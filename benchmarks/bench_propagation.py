"""ObjProp's history: memory of one affinity instead of 24, and features that are fused once and kept.

    python benchmarks/bench_propagation.py [--repeats 3] [--frames 24] [--threads 1]

For a 640x384 input the fused map has 48 x 80 = 3,840 places, and an affinity 3,840 x 3,840 numbers (56 MiB). Three
objects are carried over from every frame of the history into the present one:

    all at once     the papers' products for all frames of the history, the affinities held together
    one at a time   a whole affinity per frame, dropped before the next
    in columns      `attention.affinity.carried`: some columns of one affinity

Each way runs in a process of its own, which reports how much memory it took above what it started from (the peak of
its resident set); ways take turns, and medians are shown. `apart` is how far the answers are from those of the first
way. In training one pair of frames is taken forwards and backwards.

Then the features of a history of 24 frames are fused again for the present frame, and fused once for it and kept; and
one lost object is found again with masks, or attention, averaged over the history (`propagation.average`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from tubelet.attention.affinity import affinity, carried, spatial_prior
from tubelet.models.rcnn.detectors.detector import Detections
from tubelet.models.rcnn.propagation import PropagationConfig

HEIGHT, WIDTH, DEPTH, OBJECTS = 48, 80, 256, 3
Foreground = Callable[[Tensor, Tensor, Tensor], Tensor]


def all_at_once(history: Tensor, current: Tensor, inside: Tensor) -> Tensor:
    """[T, R, D], [P, D], [K, R] -> mean foreground [K, P]."""
    first, second = spatial_prior(HEIGHT, WIDTH, 8.0)
    matrix = (history @ current.T).softmax(1)  # [T, R, P]
    matrix = matrix * (first @ second.T).exp()
    matrix = matrix / matrix.sum(1, keepdim=True)
    return (inside @ matrix).mean(0)


def one_at_a_time(history: Tensor, current: Tensor, inside: Tensor) -> Tensor:
    prior = spatial_prior(HEIGHT, WIDTH, 8.0)
    total = torch.zeros(len(inside), len(current))
    for reference in history:
        total += inside @ affinity(reference, current, prior)
    return total / len(history)


def in_columns(history: Tensor, current: Tensor, inside: Tensor) -> Tensor:
    prior = spatial_prior(HEIGHT, WIDTH, 8.0)
    total = torch.zeros(len(inside), len(current))
    for reference in history:
        total += carried(reference, current, inside, prior)[0]
    return total / len(history)


def learn_whole(history: Tensor, current: Tensor, inside: Tensor) -> Tensor:
    return _learn(lambda r, x: inside @ affinity(r, x), history[0], current)


def learn_in_columns(history: Tensor, current: Tensor, inside: Tensor) -> Tensor:
    return _learn(lambda r, x: carried(r, x, inside)[0], history[0], current)


def _learn(foreground: Callable[[Tensor, Tensor], Tensor], reference: Tensor, current: Tensor) -> Tensor:
    reference.requires_grad_()
    foreground(reference, current).square().sum().backward()
    assert reference.grad is not None
    return reference.grad


WAYS: dict[str, Foreground] = {
    "all at once": all_at_once,
    "one at a time": one_at_a_time,
    "in columns": in_columns,
    "training, whole": learn_whole,
    "training, in columns": learn_in_columns,
}


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.frames, arguments.threads)))
        return
    report_ways(arguments)
    report_fusion(arguments)
    report_average(arguments)


def measure(way: str, frames: int, threads: int) -> dict[str, float | list[float]]:
    """Seconds, MiB above the start, and some of the answer to compare."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    places = HEIGHT * WIDTH
    history = torch.randn(frames, places, DEPTH, generator=generator) / DEPTH**0.25
    current = torch.randn(places, DEPTH, generator=generator) / DEPTH**0.25
    inside = (torch.rand(OBJECTS, places, generator=generator) > 0.8).float()
    with torch.set_grad_enabled(way.startswith("training")):
        before = _settle()
        started = time.perf_counter()
        answer = WAYS[way](history, current, inside)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "mib": _status("VmHWM") - before, "answer": answer.flatten()[::997].tolist()}


def _settle() -> float:
    """MiB held now, from where the peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> float:
    """MiB of a line of this process's status."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(name))
    return int(line.split()[1]) / 1024


def report_ways(arguments: argparse.Namespace) -> None:
    runs: dict[str, list[dict[str, object]]] = {way: [] for way in WAYS}
    for _ in range(arguments.repeats):
        for way in WAYS:
            command = [sys.executable, __file__, "--child", way]
            command += ["--frames", str(arguments.frames), "--threads", str(arguments.threads)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs[way].append(json.loads(told))
    for group in (("all at once", "one at a time", "in columns"), ("training, whole", "training, in columns")):
        wanted = torch.tensor(runs[group[0]][0]["answer"])
        base = _medians(runs[group[0]])
        for way in group:
            seconds, mib = _medians(runs[way])
            apart = float((torch.tensor(runs[way][0]["answer"]) - wanted).abs().max())
            shares = f"{seconds / base[0]:5.2f} of the time {mib / base[1]:6.3f} of the memory"
            print(f"{way:22} {seconds:7.2f} s {mib:8.0f} MiB   {shares}   apart by {apart:.0e}")


def _medians(runs: list[dict[str, object]]) -> tuple[float, float]:
    return median(float(str(r["seconds"])) for r in runs), median(float(str(r["mib"])) for r in runs)


def report_fusion(arguments: argparse.Namespace) -> None:
    """Seconds that fusing takes per frame of a stream: the whole history again, or the present frame alone."""
    torch.set_num_threads(arguments.threads)
    head = PropagationConfig().build(DEPTH, 40).eval()
    maps = [torch.randn(1, DEPTH, 2 * HEIGHT // s, 2 * WIDTH // s) for s in (1, 2, 4, 8)]
    again, once = [], []
    with torch.inference_mode():
        head.fuse(maps)
        for _ in range(arguments.repeats):
            again.append(_seconds(lambda: [head.fuse(maps) for _ in range(arguments.frames + 1)]))
            once.append(_seconds(lambda: head.fuse(maps)))
    first, second = median(again), median(once)
    print(f"fusing {arguments.frames} past frames again {first:6.2f} s, kept {second:6.3f} s: {second / first:.3f}")


def report_average(arguments: argparse.Namespace) -> None:
    """The two ways of averaging over the history, side by side."""
    masks, attention = (_found_again(average, arguments.frames) for average in ("masks", "attention"))
    print(f"one lost object: masks averaged {masks:6.2f} s, attention {attention:6.2f} s: {attention / masks:.3f}")


def _found_again(average: str, frames: int) -> float:
    """Seconds of a step in which one object is missed, after a full history that showed it."""
    head = PropagationConfig().override(f"average={average}", f"frames={frames}").build(DEPTH, 40).eval()
    maps = [torch.randn(1, DEPTH, 2 * HEIGHT // s, 2 * WIDTH // s) for s in (1, 2, 4, 8)]
    there = Detections(boxes=torch.tensor([[200.0, 100.0, 400.0, 300.0]]), scores=torch.eye(40)[:1])
    frame = (maps, (384, 640), torch.ones(4), (384, 640))
    with torch.inference_mode():
        history = head.start()
        for _ in range(frames):
            history, *_ = head.step(history, *frame, torch.tensor([1]), there)
        return _seconds(lambda: head.step(history, *frame, torch.zeros(0, dtype=torch.int64), there[:0]))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", choices=list(WAYS), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
