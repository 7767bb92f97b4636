"""Frames a second and memory of the R-CNN systems at 640x360, side by side: each against plain MaskTrack R-CNN.

    python benchmarks/bench_systems.py [--threads 2] [--frames 8] [--device cpu]

ResNet-50, random weights, thresholds opened so that every frame has ten detections; frames of the demo video. Each
system runs in a process of its own, in turn, `--rounds` times; memory is what its peak exceeds an idle process's by.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from tubelet.apps.demo import VIDEO
from tubelet.core.types import Clip
from tubelet.models.rcnn.model import MaskTrackConfig
from tubelet.recipes import find
from tubelet.video.reader import open_video

SYSTEMS = {
    "MaskTrack R-CNN": "masktrack/ytvis2019",
    "STA": "sta/ytvis2019",
    "ObjProp": "objprop/ytvis2019",
    "ObjProp + attention neck": "objprop_attention/table1/attention-neck",
    "ObjProp + weighted affinity": "objprop_attention/table1/weighted-affinity-shared",
    "CompFeat, 4 supports": "compfeat/table5/compfeat",
}


def run(recipe: str, frames: int, threads: int, device: str) -> dict[str, float]:
    """Median seconds a frame, and peak megabytes of this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = find(recipe).model
    assert isinstance(config, MaskTrackConfig)
    video = open_video(VIDEO)
    pictures = [video.frames[t] for t in range(0, frames + 6)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = config.override("detector.score_threshold=0.0", "detector.max_detections=10", "detector.proposals=200")
    model = config.build(tuple(map(str, range(40)))).eval().to(device)
    state, times = model.start(), []
    context = tuple(range(config.window.context))
    with torch.inference_mode():
        for t in range(frames + 2):
            rows = [*context, len(context) + t]
            clip = Clip(
                frames=torch.stack([pictures[row] for row in rows]),
                index=torch.tensor(rows),
                key=torch.tensor([False] * len(context) + [True]),
            ).to(device)
            began = time.perf_counter()
            state, _ = model.step(state, clip)
            if device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = torch.cuda.max_memory_allocated() / 1e6 if device != "cpu" else (peak - before) / 1e3
    return {"seconds": statistics.median(times[2:]), "megabytes": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run(arguments.one, arguments.frames, arguments.threads, arguments.device)))
        return
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in SYSTEMS}
    for _ in range(arguments.rounds):
        for name, recipe in SYSTEMS.items():
            told = [sys.executable, __file__, *sys.argv[1:], "--one", recipe]
            answer = subprocess.run(told, check=True, capture_output=True, text=True).stdout
            measured[name].append(json.loads(answer.splitlines()[-1]))
    best = {n: {k: min(one[k] for one in rounds) for k in rounds[0]} for n, rounds in measured.items()}
    plain = best["MaskTrack R-CNN"]
    print(f"{'system':30s} {'fps':>6s} {'time':>6s} {'MB':>7s} {'memory':>7s}")
    for name, one in best.items():
        ratios = one["seconds"] / plain["seconds"], one["megabytes"] / plain["megabytes"]
        print(f"{name:30s} {1 / one['seconds']:6.2f} {ratios[0]:6.2f} {one['megabytes']:7.0f} {ratios[1]:7.2f}")


if __name__ == "__main__":
    main()
