"""Speed and memory of the tag-based system, side by side.

    python benchmarks/bench_tags.py attention [--repeats 5] [--train]
    python benchmarks/bench_tags.py clip [--threads 1] [--device cpu]
    python benchmarks/bench_tags.py video

`attention`: the spatio-temporal attention of a 32-frame clip (32 x 196 positions ask, 196 are read, of each of 32
frames) as it is written, literally with all 32 x 6,272 x 196 weights, and target frame by target frame through torch's
fused attention; each in a process of its own, for the memory that it takes at its peak.
`clip`: frames a second of the whole network for a 32-frame clip, and of the encoder in both layouts of memory.
`video`: peak memory of predicting videos of 64 and 256 frames, in overlapping clips.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.attention.tags import read_each_frame
from tubelet.core.protocol import Window
from tubelet.core.types import Clip, Video
from tubelet.inference.predict import predict
from tubelet.models.tags.encoder import EncoderConfig
from tubelet.models.tags.model import TagConfig
from tubelet.recipes.tags import SMALL
from tubelet.video.frames import LazyFrames

FRAMES, POSITIONS, KEYS, VALUES = 32, 196, 64, 256
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def literal(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """All weights of all target frames at once."""
    scores = torch.einsum("btpd,bskd->bstpk", queries * KEYS**-0.5, keys)
    return torch.einsum("bstpk,bskc->bstpc", scores.softmax(-1), values).mean(2)


def fused(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One target frame after another through torch's fused attention, then the mean."""
    asking = queries.flatten(1, 2)[:, None]  # [B, 1, T P, D]
    read = [
        F.scaled_dot_product_attention(asking, keys[:, t, None], values[:, t, None])[:, 0]
        .unflatten(1, queries.shape[1:3])
        .mean(1)
        for t in range(keys.shape[1])
    ]
    return torch.stack(read, 1)


WAYS: dict[str, Attend] = {"literal": literal, "fused, frame by frame": fused, "ours": read_each_frame}


def inputs(train: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (KEYS, KEYS, VALUES)
    return [torch.randn(1, FRAMES, POSITIONS, n, generator=generator).requires_grad_(train) for n in shapes]


def run(way: Attend, held: list[Tensor], train: bool) -> Tensor:
    """Once, and back where it trains."""
    if not train:
        with torch.inference_mode():
            return way(*held)
    out = way(*held)
    out.sum().backward()
    return out


def child(name: str, train: bool) -> None:
    """Print by how many megabytes one run raised this process's peak over what it held before."""
    held = inputs(train)
    for tensor in held:
        tensor.grad = torch.zeros_like(tensor) if train else None
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # begin the peak anew
    run(WAYS[name], held, train)
    print(memory("VmHWM") - before)


def memory(field: str) -> float:
    """Megabytes of this process: VmRSS, what it holds, or VmHWM, its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith(field))


def peak(*arguments: str) -> float:
    """The megabytes that a process of its own prints."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def attention(repeats: int, train: bool) -> None:
    """Time in turn, memory each alone."""
    held = inputs(train)
    expected = run(literal, held, False)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(repeats):
        for name, way in WAYS.items():
            began = time.perf_counter()
            run(way, held, train)
            times[name].append(time.perf_counter() - began)
    flags = ["--train"] if train else []
    for name, way in WAYS.items():
        ratio = statistics.median(a / b for a, b in zip(times[name], times["literal"], strict=True))
        grown = peak("child", name, *flags)
        wrong = float((run(way, held, False) - expected).abs().max())
        took = 1e3 * statistics.median(times[name])
        print(f"{name:22s} {took:7.0f} ms  ratio {ratio:.2f}  {grown:6.0f} MB  off by {wrong:.1e}")


def clip_speed(threads: int, device: str) -> None:
    """The whole step (network, clustering, masks) of random weights, and the encoder alone."""
    torch.set_num_threads(threads)
    for side, pool in ((112, False), (224, True)):
        encoder = EncoderConfig(pool=pool)
        frames = torch.randint(0, 256, (FRAMES, 3, side, side), dtype=torch.uint8)
        clip = Clip(frames=frames, index=torch.arange(FRAMES), key=torch.ones(FRAMES, dtype=torch.bool)).to(device)
        for precision in (torch.float32, torch.bfloat16):
            model = TagConfig(input_size=(side, side), encoder=encoder).build(("object",) * 40).eval().to(device)
            model.precision = precision
            took = seconds(lambda model=model, clip=clip: model.step(model.start(), clip), device)
            layouts = encoder_seconds(model.network.encoder, side, precision, device)
            name = str(precision).removeprefix("torch.")
            print(
                f"{side}: {FRAMES / took:5.1f} frames/s, {name}; encoder {layouts[0]:.2f} s contiguous, "
                f"{layouts[1]:.2f} s channels last"
            )


def encoder_seconds(encoder: torch.nn.Module, side: int, precision: torch.dtype, device: str) -> list[float]:
    pixels = torch.randn(1, 3, FRAMES, side, side, device=device)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        held = pixels.contiguous(memory_format=layout)
        with torch.autocast(device, torch.bfloat16, enabled=precision == torch.bfloat16):
            found.append(seconds(lambda held=held: encoder(held), device))
    return found


def seconds(step: Callable[[], object], device: str) -> float:
    """The median of three, after one to warm up."""
    times = []
    with torch.inference_mode():
        for _ in range(4):
            began = time.perf_counter()
            step()
            if device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


class Noise(LazyFrames):
    """Frames made when asked for."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def read(self, t: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng(t).integers(0, 256, (3, 360, 640)).astype(np.uint8))


def video_child(length: int) -> None:
    torch.manual_seed(0)
    model = SMALL.build(("object",)).eval()
    video = Video(id="noise", size=(360, 640), frames=Noise(length))
    predict(model, video, window=Window(length=32, stride=16), threshold=0.0)
    print(memory("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["attention", "clip", "video", "child", "video-child"])
    parser.add_argument("name", nargs="?", default="ours")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.what == "attention":
        attention(arguments.repeats, arguments.train)
    elif arguments.what == "clip":
        clip_speed(arguments.threads, arguments.device)
    elif arguments.what == "video":
        for length in (64, 256):
            print(f"{length} frames of 640x360: {peak('video-child', str(length)):.0f} MB")
    elif arguments.what == "video-child":
        video_child(int(arguments.name))
    else:
        child(arguments.name, arguments.train)


if __name__ == "__main__":
    main()
