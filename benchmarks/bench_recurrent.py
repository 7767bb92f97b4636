"""IFR's decoder against the joint decoder, as clips grow: the same features, queries and thread, in turn.

Both decode without training, the last prediction alone, masks of the best ten queries at a quarter of the resolution
included. Times are medians in seconds of runs that alternate; beyond the measured lengths the table is projected, by
the least squares line through what was measured (the joint decoder's tokens and IFR's steps both grow with frames).

    python benchmarks/bench_recurrent.py [--frames 2 9 18 36] [--height 360] [--width 640] [--repeats 3] [--plot PNG]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tubelet.models.mask2former.decoder import JointConfig, QueryDecoder
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.models.mask2former.pixel_decoder import Pixels

CHANNELS, QUERIES, CLASSES = 256, 100, 40
PROJECTED = (72, 144, 300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[2, 9, 18, 36])
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="a PNG of the growth, measured and projected")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    systems = {
        "joint": JointConfig().build(CHANNELS, QUERIES, CLASSES).eval(),
        "IFR": InterFrameConfig().build(CHANNELS, QUERIES, CLASSES).eval(),
    }
    rows = []
    print(f"one thread, {arguments.height}x{arguments.width}, {QUERIES} queries, 9 layers")
    print("| frames | joint, s | IFR, s | ratio |\n|---|---|---|---|")
    for length in arguments.frames:
        pixels = random_pixels(length, arguments.height, arguments.width)
        times: dict[str, list[float]] = {name: [] for name in systems}
        for _ in range(arguments.repeats):
            for name, decoder in systems.items():
                times[name].append(decode(decoder, pixels, length))
        rows.append([statistics.median(times[name]) for name in systems])
        print(line(str(length), *rows[-1]), flush=True)
    for length in PROJECTED:
        print(line(f"{length} (projected)", *project(arguments.frames, rows, length)))
    if arguments.plot is not None:
        plot(arguments.frames, rows, list(systems), arguments.plot)


def plot(frames: Sequence[int], rows: Sequence[Sequence[float]], names: Sequence[str], path: Path) -> None:
    """Dots where it was measured, dashes where it is projected."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), dpi=110, layout="constrained")
    axes = figure.add_subplot(xlabel="frames", ylabel="decoder, seconds")
    far = np.linspace(frames[0], PROJECTED[0], 50)
    for name, column in zip(names, zip(*rows, strict=True), strict=True):
        (dots,) = axes.plot(frames, column, "o", label=name)
        axes.plot(far, np.polyval(np.polyfit(frames, column, 1), far), "--", color=dots.get_color(), linewidth=1)
    axes.legend(frameon=False)
    figure.savefig(path)


@torch.inference_mode()
def decode(decoder: QueryDecoder, pixels: Pixels, length: int) -> float:
    """Seconds from features to masks."""
    start = time.perf_counter()
    prediction = decoder(pixels, length, every=False)[-1]
    best = prediction.logits[0].amax(1).topk(10).indices
    masks = prediction.kernels[0][:, best] @ pixels.features.flatten(2)
    assert masks.isfinite().all()
    return time.perf_counter() - start


def random_pixels(length: int, height: int, width: int) -> Pixels:
    """What a pixel decoder would give for an input padded to a multiple of 32."""
    height, width = (-(-side // 32) * 32 for side in (height, width))
    maps = [torch.randn(length, CHANNELS, height // s, width // s) for s in (4, 32, 16, 8)]
    return Pixels(maps[0], maps[1:])


def project(frames: Sequence[int], rows: Sequence[Sequence[float]], length: int) -> list[float]:
    """Seconds of each system for another length."""
    return [float(np.polyval(np.polyfit(frames, column, 1), length)) for column in zip(*rows, strict=True)]


def line(label: str, joint: float, inter_frame: float) -> str:
    return f"| {label} | {joint:.2f} | {inter_frame:.2f} | {inter_frame / joint:.2f} |"


if __name__ == "__main__":
    main()
