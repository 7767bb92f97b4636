"""Does IFR drift? Per-frame quality over a frame's position in the clip, for several lengths of training clips.

IFR trains on clips of two frames and recurs over the whole video at test. Each row trains `small/ifr` (or another row
of `small`) on clips of so many frames with as many frames in all: twice the length, half the iterations. Then videos
that were not trained on are read whole, and each true object is given the track that overlaps it best over the video.
The table shows the mean IoU (in percent) of these tracks at each frame of the video, over objects that are visible
there; 0 where nothing overlaps an object. A recurrence that drifts gets worse with the position; the joint decoder
(`--system mask2former`), which reads all frames at once, shows what the videos themselves do.

The last columns say what `predict(distinct=0.5)` changes for people: IDF1 and MOTA at the fixed threshold, before and
after; AP is that of all tracks, which benchmarks rank.

    python benchmarks/bench_drift.py OUT [--system ifr] [--lengths 2 3 5] [--frames 560] [--videos 24]
        [--video-frames 24] [--seed 0] [--plot PNG]

A trained folder in OUT is used again. About four minutes a row on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tubelet.core import masks
from tubelet.core.protocol import Window
from tubelet.core.types import Prediction, Track, Video, VideoSet
from tubelet.evaluation import identity, ytvis
from tubelet.inference.duplicates import without_duplicates
from tubelet.inference.predict import predict
from tubelet.models import weights
from tubelet.recipes.small import PLAIN, RECIPES
from tubelet.synthetic.generator import generate

OVERLAP = 0.5  # of `distinct`
SEED_OF_TEST = 9000
PARTS = 6  # of a video: columns of the table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--system", default="ifr", help="a row of small/")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2, 3, 5], help="frames of a training clip")
    parser.add_argument("--frames", type=int, default=560, help="iterations times frames of a clip, equal for all rows")
    parser.add_argument("--videos", type=int, default=24, help="to measure on")
    parser.add_argument("--video-frames", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="a PNG of the curves")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    test = generate(PLAIN.but(frames=arguments.video_frames), SEED_OF_TEST, arguments.videos)
    parts = [f"frames {part[0]}-{part[-1]}" for part in split_evenly(arguments.video_frames)]
    columns = [*parts, "AP", "IDF1", "IDF1 distinct", "MOTA", "MOTA distinct"]
    print(f"{arguments.system}, {arguments.videos} videos of {arguments.video_frames} frames, seed {arguments.seed}")
    print(f"| clip | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")

    curves = {}
    for length in arguments.lengths:
        folder = train(arguments.system, length, arguments.frames, arguments.seed, arguments.out)
        model = weights.load(folder, device="cpu", precision="fp32")
        whole = Window(length=None)
        predictions = [predict(model, video, threshold=0.0, window=whole, cuts=False) for video in test.videos]
        curve = quality_by_position(test.videos, predictions)
        curves[length] = curve
        cells = [curve[part].mean() for part in split_evenly(len(curve))]
        cells += figures(test, predictions)
        print(f"| {length} | {' | '.join(f'{100 * cell:.1f}' for cell in cells)} |", flush=True)
    if arguments.plot is not None:
        plot(curves, arguments.plot)


def train(system: str, length: int, frames: int, seed: int, out: Path) -> Path:
    """Train a row of `small` on clips of so many frames; returns its folder."""
    folder = out / f"{system}-{length}-{frames}-{seed}"
    if (folder / "model.safetensors").is_file():
        return folder
    iterations = max(frames // length, 1)
    overrides = (f"sampler.frames={length}", f"train.iterations={iterations}", f"train.seed={seed}")
    RECIPES[f"small/{system}"].override(*overrides).run(folder, device="cpu", resume=folder.is_dir())
    return folder


def quality_by_position(videos: Sequence[Video], predictions: Sequence[Prediction]) -> np.ndarray:
    """Mean IoU at each frame, over visible objects, of the track that overlaps the object best over the video."""
    length = len(videos[0])
    total = np.zeros(length)
    count = np.zeros(length)
    for video, prediction in zip(videos, predictions, strict=True):
        for truth in video.tracks or ():
            best = max(
                prediction.tracks,
                key=lambda track: masks.spatio_temporal_iou(truth.rles, track.rles),
                default=None,
            )
            for t, rle in enumerate(truth.rles):
                if rle is not None:
                    total[t] += frame_iou(truth, best, t) if best is not None else 0.0
                    count[t] += 1
    return total / np.maximum(count, 1)


def frame_iou(first: Track, second: Track, t: int) -> float:
    return masks.spatio_temporal_iou(first.rles[t : t + 1], second.rles[t : t + 1])


def figures(test: VideoSet, predictions: Sequence[Prediction]) -> list[float]:
    """AP of all tracks, then IDF1 and MOTA at the fixed threshold, without and with `distinct`."""
    shown = [replace(p, tracks=without_duplicates(p.tracks, OVERLAP)) for p in predictions]
    all_tracks, distinct = (
        identity.sweep(test.videos, tracks, thresholds=(identity.THRESHOLD,), on_masks=True)[identity.THRESHOLD]
        for tracks in (predictions, shown)
    )
    ap = ytvis.evaluate(test.videos, predictions)["AP"]
    return [ap, *(float(row[name]) for name in ("IDF1", "MOTA") for row in (all_tracks, distinct))]


def split_evenly(length: int) -> list[np.ndarray]:
    return np.array_split(np.arange(length), min(PARTS, length))


def plot(curves: dict[int, np.ndarray], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), dpi=110, layout="constrained")
    axes = figure.add_subplot(xlabel="frame of the video", ylabel="mean IoU")
    for length, curve in curves.items():
        axes.plot(curve, label=f"clips of {length}")
    axes.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
