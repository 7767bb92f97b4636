"""What everything but the network costs, beside the networks, in one run.

    python benchmarks/bench_overhead.py [--model NAME|PATH] [--objects 10] [--frames 72] [--threads 1]

First the stages on their own, on the demo video (640x360) with a fixed number of moving objects: decoding, preparing
the input, association, pasting, stitching, run-length codes, drawing, encoding; on the clock and in processor time,
which a busy machine does not stretch. Then whole runs of `predict` and `save`
with the small model, in which all time that is not spent within the network's layers counts as overhead. Targets: at
most a tenth of MaskTrack R-CNN R50's network time, and less than the small model's own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torchvision.models.detection.roi_heads import paste_masks_in_image

import tubelet
from tubelet.apps.demo import VIDEO
from tubelet.core.masks import encode
from tubelet.core.types import Clip, Tracks
from tubelet.drawing.overlay import draw
from tubelet.inference.stitch import Stitcher
from tubelet.models.rcnn.model import MaskTrackConfig
from tubelet.tracking.association import AssociationConfig, associate, cue_scores
from tubelet.video.reader import open_video
from tubelet.video.writer import VideoWriter


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    small = tubelet.load(arguments.model, device="cpu")
    frames = [open_video(VIDEO).frames[t] for t in range(arguments.frames)]
    overhead = report_stages(arguments.objects, frames, small)
    large = network_time(MaskTrackConfig().build(tuple(map(str, range(40)))).eval(), frames[:3])
    own = network_time(small, frames)
    print(
        f"\nnetwork of MaskTrack R-CNN R50   {large:8.1f} ms a frame; all of the above is {overhead / large:.1%} of it"
    )
    print(f"network of {arguments.model:<22}{own:8.1f} ms a frame; all of the above is {overhead / own:.1%} of it")
    report_whole_run(arguments.model, small)


def report_stages(objects: int, frames: list[Tensor], model: Any) -> float:
    """Print the median milliseconds a frame of each stage; returns their sum on the clock."""
    times = time_stages(objects, frames, model)
    stages = {name: np.median(pairs, axis=0) for name, pairs in times.items()}
    stages["sum"] = np.sum(list(stages.values()), axis=0)
    print(f"{objects} objects, ms a frame      clock  processor")
    for name, (clock, processor) in stages.items():
        print(f"{name:<25}{clock:9.2f}{processor:11.2f}")
    return float(stages["sum"][0])


def time_stages(objects: int, frames: list[Tensor], model: Any) -> dict[str, list[tuple[float, float]]]:
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def timed(name: str, call: Callable[[], Any]) -> Any:
        clock, processor = time.perf_counter(), time.process_time()
        result = call()
        times[name].append((1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - processor)))
        return result

    decoded, stitcher = iter(open_video(VIDEO).frames), Stitcher((360, 640))
    with tempfile.TemporaryDirectory() as folder, VideoWriter(Path(folder) / "out.mp4", (360, 640), 24) as writer:
        for t in range(len(frames)):
            image = timed("decode", lambda: next(decoded))
            timed("prepare the input", lambda image=image: model.detector.config.input.prepare([image[None]]))
            boxes, small = moving_objects(objects, t)
            timed("associate", lambda boxes=boxes: _associate(boxes))
            pasted = timed("paste", lambda: paste_masks_in_image(small[:, None], boxes, (360, 640)))  # noqa: B023
            stitcher.add(_tracks(pasted, t))
            (frame,) = timed("stitch", lambda t=t: list(stitcher.release(t + 1)))
            timed("run-length codes", lambda frame=frame: encode(frame.masks))
            picture = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
            binary, names = np.ascontiguousarray(frame.masks), ["person"] * len(frame.ids)
            scores = [0.5 + 0.001 * t] * len(names)
            drawn = timed("draw", lambda: draw(picture, binary, frame.ids, names, scores))  # noqa: B023
            timed("encode", lambda drawn=drawn: writer.write(drawn))
    return times


def moving_objects(count: int, t: int) -> tuple[Tensor, Tensor]:
    """Boxes [N, 4] of a fifth to a half of the frame's height, and their soft masks [N, 28, 28]."""
    n = torch.arange(count, dtype=torch.float32)
    centre = torch.stack([320 + 240 * torch.sin(n + 0.02 * t), 180 + 90 * torch.cos(2 * n + 0.03 * t)], 1)
    half = torch.stack([40 + 5 * n, 45 + 5 * n], 1)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    wobble = 0.75 + 0.15 * torch.sin(5 * torch.atan2(y, x))[None] * torch.cos(n + 0.05 * t)[:, None, None]
    return torch.cat([centre - half, centre + half], 1), torch.sigmoid((wobble - torch.hypot(x, y)[None]) * 12)


def _associate(boxes: Tensor) -> Tensor:
    count = len(boxes)
    logits = torch.cat([torch.zeros(count, 1), 5 * torch.eye(count)], 1)
    scores, labels = torch.full((count,), 0.9), torch.zeros(count, dtype=torch.int64)
    config = AssociationConfig()
    return associate(cue_scores(logits, scores, boxes, labels, boxes, labels, config), scores, config)


def _tracks(pasted: Tensor, t: int) -> Tracks:
    ids = torch.arange(len(pasted))
    return Tracks(ids=ids, scores=torch.full((len(ids), 80), 0.9), masks=pasted, index=torch.tensor([t]))


@dataclass
class LayerClock:
    """Seconds within leaf modules: convolutions, norms, activations, linear layers."""

    seconds: float = 0.0
    _starts: list[float] = field(default_factory=list)

    def start(self, module: nn.Module, *_: Any) -> None:
        if not list(module.children()):
            self._starts.append(time.perf_counter())

    def stop(self, module: nn.Module, *_: Any) -> None:
        if not list(module.children()):
            self.seconds += time.perf_counter() - self._starts.pop()


@contextmanager
def layer_clock() -> Iterator[LayerClock]:
    clock = LayerClock()
    hooks = [register_module_forward_pre_hook(clock.start), register_module_forward_hook(clock.stop)]
    try:
        yield clock
    finally:
        for hook in hooks:
            hook.remove()


def network_time(model: Any, frames: list[Tensor]) -> float:
    """Milliseconds a frame within the network's layers, after one frame to warm up."""
    state = model.start()
    with torch.inference_mode():
        for t, image in enumerate(frames):
            clip = Clip(frames=image[None], index=torch.tensor([t]), key=torch.ones(1, dtype=torch.bool))
            if t == 1:
                with layer_clock() as clock:
                    state, _ = model.step(state, clip)
                    seconds = [clock.seconds]
            elif t > 1:
                with layer_clock() as clock:
                    state, _ = model.step(state, clip)
                    seconds.append(clock.seconds)
            else:
                state, _ = model.step(state, clip)
    return 1e3 * statistics.median(seconds)


def report_whole_run(name: str, model: Any) -> None:
    """`predict` and `save` of the demo video: what is not spent in layers is overhead."""
    with tempfile.TemporaryDirectory() as folder, layer_clock() as clock:
        start = time.perf_counter()
        prediction = tubelet.predict(model, VIDEO)
        predicted = time.perf_counter()
        prediction.save(folder)
        end = time.perf_counter()
    each = 1e3 / prediction.length
    whole, layers = (end - start) * each, clock.seconds * each
    shown = sum(rle is not None for track in prediction.tracks for rle in track.rles) / prediction.length
    print(f"\n{name}, the whole demo video, {shown:.1f} objects a frame, in ms a frame:")
    print(f"predict {(predicted - start) * each:.1f} + save {(end - predicted) * each:.1f} = {whole:.1f}", end="; ")
    print(f"{layers:.1f} within layers, {whole - layers:.1f} without ({(whole - layers) / layers:.0%})")
    print(f"{1e3 / whole:.1f} frames a second, all included, on {torch.get_num_threads()} threads")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default", help="a bundled name or a safetensors file")
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--frames", type=int, default=72)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    main()
