"""Network time a frame, side by side: MaskTrack R-CNN R50 and the default model against torchvision's Mask R-CNN R50.

    python benchmarks/bench_network.py [--threads 2] [--frames 10]

All read the same 640x360 frame of the demo video. Weights are random but for the default model's, and thresholds are
set so that each has ten detections to make masks of. torchvision's runs at the same input size: as it comes, with 1,000
proposals in fp32, and as ours run, with 200 proposals and in bf16 (autocast).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from tubelet.apps.demo import VIDEO
from tubelet.core.types import Clip
from tubelet.models import weights
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.video.reader import open_video


def stepper(model: MaskTrackRCNN, frame: torch.Tensor) -> Callable[[], None]:
    """One frame after another through the model, state carried on."""
    state, t = model.start(), 0

    def step() -> None:
        nonlocal state, t
        clip = Clip(frames=frame[None], index=torch.tensor([t]), key=torch.tensor([True]))
        state, _ = model.step(state, clip)
        t += 1

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    frame = open_video(VIDEO).frames[60]

    classes = tuple(str(k) for k in range(40))
    config = MaskTrackConfig().override("detector.score_threshold=0.02")
    ours: dict[str, Callable[[], object]] = {}
    for precision in (torch.float32, torch.bfloat16):
        model = config.build(classes).eval().to(memory_format=torch.channels_last)
        model.precision = precision
        ours[f"MaskTrack R-CNN R50, {str(precision).removeprefix('torch.')}"] = stepper(model, frame)
    for precision in ("fp32", "bf16"):
        model = weights.load("default", device="cpu", precision=precision, engine="torch")
        ours[f"default, {precision}"] = stepper(model, frame)
    runs = torchvision_runs(frame / 255) | ours
    with torch.inference_mode():
        print_table(measure(runs, arguments.frames), arguments.threads)


def torchvision_runs(image: torch.Tensor) -> dict[str, Callable[[], object]]:
    """torchvision's Mask R-CNN with 1,000 and with 200 proposals, in fp32 and in bf16."""
    runs: dict[str, Callable[[], object]] = {}
    for proposals in (1000, 200):
        model = maskrcnn_resnet50_fpn(
            weights=None,
            weights_backbone=None,
            num_classes=41,
            min_size=360,
            max_size=640,
            rpn_post_nms_top_n_test=proposals,
            box_score_thresh=0.02,
            box_detections_per_img=10,
        ).eval()
        runs[f"torchvision Mask R-CNN R50, {proposals} proposals, fp32"] = partial(model, [image])
        runs[f"torchvision Mask R-CNN R50, {proposals} proposals, bf16"] = partial(in_bf16, model, image)
    return runs


def in_bf16(model: torch.nn.Module, image: torch.Tensor) -> object:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model([image])


def measure(runs: dict[str, Callable[[], object]], frames: int) -> dict[str, list[float]]:
    """Milliseconds, in turn (A B C A B C ...), so that a drift of the machine's speed falls on all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(frames + 2):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn >= 2:  # warm-up
                times[name].append((time.perf_counter() - began) * 1e3)
    return times


def print_table(times: dict[str, list[float]], threads: int) -> None:
    base = next(iter(times.values()))
    print(f"{threads} thread(s); bfloat16 in hardware: {weights.computes_bf16(torch.device('cpu'))}")
    for name, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
        print(f"{name:50s} {statistics.median(own):8.1f} ms  (least {min(own):.1f})  ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
