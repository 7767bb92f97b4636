"""Does everything run on this machine's GPU, does it give what the CPU gives, and how fast is it?

    python benchmarks/device_check.py [--device auto] [--frames 24]

For every system: one step of training, prediction of a generated video, and the same on the CPU. Then the default model
on the demo video, beside torchvision's Mask R-CNN of the same frames. One table, in less than ten minutes. No GPU has
run this yet: if you have one, or a Mac, please send us what it prints.
"""

from __future__ import annotations

import argparse
import platform
import time
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn

from tubelet.apps.demo import VIDEO
from tubelet.core import masks
from tubelet.core.devices import choose_device
from tubelet.core.records import Prediction
from tubelet.data.clips import ClipDataset
from tubelet.evaluation.tables import Sheet, markdown
from tubelet.inference.predict import predict
from tubelet.models import weights
from tubelet.recipes import find
from tubelet.recipes.small import PLAIN, SYSTEMS
from tubelet.synthetic.generator import generate
from tubelet.video.reader import open_video

Row = tuple[str, ...]
COLUMNS = ("system", "training step", "ms a frame", "same as the CPU", "MB")


def main() -> None:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--frames", type=int, default=24)
    options = parser.parse_args()
    device = choose_device(options.device)
    print(f"torch {torch.__version__}, {_name(device)}, {platform.platform()}", flush=True)

    rows = []
    for name in SYSTEMS:
        rows.append(_attempt(name, lambda name=name: _small(name, device)))
        print(rows[-1], flush=True)
    rows.append(_attempt("default, fp32", lambda: _default(device, "fp32", options.frames)))
    rows.append(_attempt("default, bf16", lambda: _default(device, "bf16", options.frames)))
    rows.append(_attempt("torchvision Mask R-CNN R50", lambda: _torchvision(device, options.frames)))
    print()
    print(markdown(Sheet(columns=COLUMNS, rows=tuple(rows))))


def _attempt(name: str, run: Any) -> Row:
    """The row of a system; what failed stands in it, so that the others are still run."""
    try:
        return (name, *run())
    except Exception as error:  # whatever a device's kernels raise is the finding
        return (name, f"FAILED: {type(error).__name__}: {str(error).splitlines()[0][:100]}", "", "", "")


def _small(name: str, device: torch.device) -> Row:
    """Train one step and predict ten frames, with random weights."""
    experiment = find(f"small/{name}")
    videos = generate(PLAIN.but(frames=12), seed=1, videos=1)
    clip = ClipDataset(videos, experiment.sampler, (), 0, keep_ignored=True)[0]
    frames = torch.stack([videos.videos[0].frames[t] for t in range(10)])
    torch.manual_seed(0)
    here = experiment.model.build(videos.classes).eval()
    there = deepcopy(here).to(device)

    _reset_memory(device)
    trained = deepcopy(there).train()
    step = _seconds(lambda: _train(trained, clip, device), device)
    expected = predict(here, frames, top=5)
    found = predict(there, frames, top=5)
    seconds = _seconds(lambda: predict(there, frames, top=5), device)
    return f"{1000 * step:.0f} ms", f"{1000 * seconds / len(frames):.1f}", _agreement(expected, found), _memory(device)


def _train(model: Any, clip: Any, device: torch.device) -> None:
    with torch.autocast(device.type, torch.bfloat16):
        losses = model([clip.to(device)])
    torch.stack([loss.float() for loss in losses.values()]).sum().backward()


def _default(device: torch.device, precision: str, frames: int) -> Row:
    """The bundled model on the demo video."""
    pictures = _demo(frames)
    expected = predict(weights.load("default", device="cpu", precision=precision, engine="torch"), pictures)
    model = weights.load("default", device=device, precision=precision)
    _reset_memory(device)
    found = predict(model, pictures)
    seconds = _seconds(lambda: predict(model, pictures), device)
    return "", f"{1000 * seconds / frames:.1f}", _agreement(expected, found), _memory(device)


def _torchvision(device: torch.device, frames: int) -> Row:
    """The bare network of a well-known model, ten detections a frame, one frame at a time."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        min_size=360,
        max_size=640,
        box_score_thresh=0.0,
        box_detections_per_img=10,
    )
    model = model.eval().to(device)
    pictures = [(frame / 255).to(device) for frame in _demo(frames)]
    _reset_memory(device)

    def run() -> None:
        with torch.inference_mode():
            for picture in pictures:
                model([picture])

    return "", f"{1000 * _seconds(run, device) / frames:.1f}", "", _memory(device)


def _demo(frames: int) -> Tensor:
    video = open_video(VIDEO)
    return torch.stack([video.frames[t] for t in range(min(frames, len(video)))])


def _agreement(expected: Prediction, found: Prediction) -> str:
    """The mean, over the CPU's tracks, of the overlap with the device's most like track."""
    overlaps = []
    for track in expected.tracks:
        others = [masks.spatio_temporal_iou(track.rles, other.rles) for other in found.tracks]
        overlaps.append(max(others, default=0.0))
    mean = sum(overlaps) / len(overlaps) if overlaps else 1.0
    return f"{len(found.tracks)} of {len(expected.tracks)} tracks, overlap {mean:.3f}"


def _seconds(run: Any, device: torch.device) -> float:
    """Of the second of two runs."""
    run()
    _wait(device)
    began = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()


def _reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 1e6:.0f}"
    if device.type == "mps":
        return f"{torch.mps.driver_allocated_memory() / 1e6:.0f}"
    return ""


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


if __name__ == "__main__":
    main()
