"""Seconds a frame of VidEoMT-S against transformers' own, which reads the whole clip at once.

    python benchmarks/bench_videomt.py [--frames 3] [--rounds 3] [--device cpu]

Random weights, frames of 640x360 brought to 640x640. Ours is all of `step`: the picture, the network, and identities,
one frame at a time; theirs is the network alone. They take turns (A B A B). On a CPU seconds are of its cores, one
thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tubelet.core.types import Clip
from tubelet.models.videomt.model import VidEoMT, VidEoMTConfig

CLASSES = tuple(f"class {n}" for n in range(40))


def step_by_step(model: VidEoMT, frames: Tensor) -> None:
    """Find the objects of each frame."""
    state = model.start()
    key = torch.ones(1, dtype=torch.bool, device=frames.device)
    for t in range(len(frames)):
        index = torch.tensor([t], device=frames.device)
        state, _ = model.step(state, Clip(frames=frames[[t]], index=index, key=key))


def seconds(call: Callable[[], object], frames: Tensor) -> float:
    """Seconds a frame."""
    clock = time.process_time if frames.device.type == "cpu" else time.perf_counter
    began = clock()
    call()
    if frames.device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - began) / len(frames)


@torch.inference_mode()
def main() -> None:
    from transformers import VideomtConfig, VideomtForUniversalSegmentation

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours = VidEoMTConfig().build(CLASSES).eval().to(arguments.device)
    small = VideomtConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        num_blocks=3,
        id2label=dict(enumerate(CLASSES)),
    )
    theirs = VideomtForUniversalSegmentation(small).eval().to(arguments.device)
    frames = torch.randint(0, 256, (arguments.frames, 3, 360, 640), dtype=torch.uint8).to(arguments.device)
    clip = torch.randn(1, arguments.frames, 3, 640, 640, device=arguments.device)

    def read_ours() -> None:
        step_by_step(ours, frames)

    def read_theirs() -> None:
        theirs(pixel_values_videos=clip)

    read_ours()
    read_theirs()
    pairs = [(seconds(read_ours, frames), seconds(read_theirs, frames)) for _ in range(arguments.rounds)]
    print(f"ours    {statistics.median(a for a, _ in pairs):8.3f} s a frame")
    print(f"theirs  {statistics.median(b for _, b in pairs):8.3f} s a frame")
    print(f"ratio   {statistics.median(a / b for a, b in pairs):8.3f}")


if __name__ == "__main__":
    main()
