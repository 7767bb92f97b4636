"""The bundled model on torch, ONNX Runtime and OpenVINO: its networks and whole predictions, in turns.

    python benchmarks/bench_engines.py [--objects 1 5 10] [--turns 5] [--threads 1] [VIDEO ...]

First the networks alone, for a frame of the demo video and 1, 5 and 10 objects, each of which is cut
twice up to the third. Then `predict`, without drawing, on the demo video and on each VIDEO, and how
many identities each engine finds. Torch computes in bfloat16 if the processor does, as `load` has it;
the engines have exported their graphs before. Ratios are torch's time over the engine's, the median
of the turns (A B A B), in processor time. Last the whole, with the overlay video and all other files:
frames a second by the clock, with all threads of this machine; that needs a quiet one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turns import Turns, take_turns

import tubelet
from tubelet.apps.demo import VIDEO
from tubelet.engines.choice import found
from tubelet.models.rcnn.heads.crops import views
from tubelet.models.rcnn.heads.sockets import View
from tubelet.video.reader import open_video

REPEATS = 5  # calls in a turn


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    names = found()
    models: list[Any] = [tubelet.load("default", device="cpu", engine=name) for name in names]
    print(f"{torch.__version__}, {arguments.threads} threads, torch in {models[0].precision}, {', '.join(names)}\n")

    frame = open_video(VIDEO).frames[0]
    print(f"{'milliseconds':36}" + "".join(f"{name:>12}" for name in names) + "   torch / engine")
    for objects in arguments.objects:
        calls = [partial(networks, model, frame, objects) for model in models]
        report(f"networks of a frame, {objects} objects", calls, arguments.turns, REPEATS)

    for path in [str(VIDEO), *arguments.videos]:
        video = open_video(path, end=arguments.seconds)
        calls = [partial(tubelet.predict, model, video) for model in models]
        report(f"predict, {video.id}, a frame", calls, arguments.turns, 1, len(video))
        identities = [str(len(tubelet.predict(model, video))) for model in models]
        print(f"{'    identities':36}" + "".join(f"{count:>12}" for count in identities))

    if arguments.threads > 1:
        print(f"\n{'frames a second, with film':36}" + "".join(f"{name:>12}" for name in names))
        for path in [str(VIDEO), *arguments.videos]:
            report_rates(models, open_video(path), arguments.turns)


def report_rates(models: Sequence[Any], video: tubelet.Video, turns: int) -> None:
    """Predict and save a whole video in turns, and print frames a second by the clock and the ratios to the first."""
    calls = [partial(whole, model, video) for model in models]
    costs = take_turns(calls, turns)
    seconds = [statistics.median(c.clock for c in cost.costs) for cost in costs]
    pairs = [zip(costs[0].costs, cost.costs, strict=True) for cost in costs[1:]]
    ratios = ", ".join(f"{statistics.median(a.clock / b.clock for a, b in pair):.2f}" for pair in pairs)
    print(f"{video.id:36}" + "".join(f"{len(video) / s:12.1f}" for s in seconds) + f"   {ratios}", flush=True)


def whole(model: Any, video: tubelet.Video) -> None:
    """What `tubelet predict` does: find the objects, write the results and the overlay video."""
    with tempfile.TemporaryDirectory() as folder:
        tubelet.predict(model, video).save(Path(folder) / "results")


def report(what: str, calls: Sequence[Callable[[], Any]], turns: int, repeats: int, frames: int = 1) -> None:
    """Time calls in turns, and print milliseconds a call (a frame) and the ratios to the first."""
    for call in calls:
        call()  # export, compile, check
    costs = take_turns([partial(repeat, call, repeats) for call in calls], turns)
    scale = 1000 / (repeats * frames)
    times = "".join(f"{scale * statistics.median(c.processor for c in cost.costs):12.1f}" for cost in costs)
    ratios = ", ".join(f"{ratio(costs[0], cost):.2f}" for cost in costs[1:])
    print(f"{what:36}{times}   {ratios}", flush=True)


def repeat(call: Callable[[], Any], times: int) -> None:
    """Call several times."""
    for _ in range(times):
        call()


def ratio(torch_cost: Turns, engine_cost: Turns) -> float:
    """The median ratio of the turns, in processor time."""
    pairs = zip(torch_cost.costs, engine_cost.costs, strict=True)
    return statistics.median(ours.processor / theirs.processor for ours, theirs in pairs)


@torch.inference_mode()
def networks(model: Any, frame: Tensor, objects: int) -> None:
    """All networks of a frame: boxes, descriptors and masks of so many objects."""
    bf16 = model.precision == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        images = model.detector.config.input.prepare([frame[None]])
        features = model.detector.extract(images)
        model.detector.detect(features, images)
        view = View(detector=model.detector, features=features, frame=frame, scale=images.scales[0])
        boxes = spread_boxes(objects, images.pixels.shape[-2:])
        model.match.describe(view.cells(boxes, model.match.resolution))
        regions, _ = views(boxes, model.mask.config)
        model.mask.probabilities(view, regions)


def spread_boxes(count: int, size: Sequence[int]) -> Tensor:
    """Boxes of a third of the frame's sides, along its diagonal."""
    height, width = size
    shift = torch.linspace(0, 2 / 3, count)[:, None]
    corner = shift * torch.tensor([width, height])
    return torch.cat([corner, corner + torch.tensor([width / 3, height / 3])], 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", metavar="VIDEO")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each video")
    return parser.parse_args()


if __name__ == "__main__":
    main()
