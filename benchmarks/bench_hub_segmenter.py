"""What our memory costs on top of an image segmenter: the bare network against the same with identities.

    python benchmarks/bench_hub_segmenter.py [--objects 10] [--side 384] [--frames 20] [--rounds 5] [--device cpu]

RF-DETR-Seg of the published small size with random weights, whose class scores are set so that each frame has so many
detections. Both read the same frames of the demo video, one at a time: the bare one prepares the picture, runs the
network, and thresholds the masks of its detections; the wrapped one also tells which object is which. They take turns
(A B A B), and the table shows the median of each and of the ratios of neighbouring rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from tubelet.apps.demo import VIDEO
from tubelet.core.types import Clip
from tubelet.models.hub_segmenter.answers import FAMILIES, SegmenterAnswer
from tubelet.models.hub_segmenter.model import HubSegmenter, HubSegmenterConfig
from tubelet.models.hub_segmenter.pictures import PictureConfig
from tubelet.video.reader import open_video

CLASSES = tuple(f"class {n}" for n in range(80))


class Sure(type(FAMILIES["rf_detr"])):  # type: ignore[misc]
    """Reads RF-DETR's outputs; the first few queries are sure of their class, and their masks are half of the frame."""

    def __init__(self, objects: int) -> None:
        self.objects = objects

    def read(self, outputs: object) -> SegmenterAnswer:
        """Replace the scores of a random network."""
        answer: SegmenterAnswer = super().read(outputs)
        scores = torch.zeros_like(answer.scores)
        for query in range(self.objects):
            scores[:, query, query] = 0.9
        masks = answer.mask_logits - answer.mask_logits.flatten(2).median(2).values[..., None, None]
        return SegmenterAnswer(scores, masks, answer.embeddings)


def build(side: int, objects: int) -> HubSegmenter:
    """A network of the published size around which nothing is downloaded."""
    from transformers import RfDetrConfig, RfDetrForInstanceSegmentation

    backbone = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "image_size": side,
        "patch_size": 12,
        "num_windows": 2,
        "out_features": ["stage3", "stage6", "stage9", "stage12"],
        "num_register_tokens": 0,
    }
    torch.manual_seed(0)
    config = RfDetrConfig(
        backbone_config=backbone,
        decoder_layers=4,
        num_queries=100,
        id2label=dict(enumerate(CLASSES)),
        decoder_n_points=2,
    )
    network = RfDetrForInstanceSegmentation(config)
    pictures = PictureConfig(exact=(side, side), antialias=False)
    settings = HubSegmenterConfig()
    # random masks overlap each other: none of them may count as another's shadow
    association = settings.association.but(shadow=1.0)
    columns = tuple(range(len(CLASSES)))
    model = HubSegmenter(network, Sure(objects), pictures, CLASSES, columns, settings.but(association=association))
    return model.eval()


@torch.inference_mode()
def bare(model: HubSegmenter, frames: Tensor) -> None:
    """Picture, network, and the masks of what is found."""
    for frame in frames:
        pixels, _ = model.pictures.prepare(frame[None])
        answer = model.family.read(model.network(pixel_values=pixels))
        shown = answer.scores[0].amax(1) > model.family.threshold
        answer.mask_logits[0, shown].sigmoid()


@torch.inference_mode()
def wrapped(model: HubSegmenter, frames: Tensor) -> int:
    """The same with identities; returns how many objects the last frame had."""
    state = model.start()
    for t, frame in enumerate(frames):
        clip = Clip(
            frames=frame[None],
            index=torch.tensor([t], device=frame.device),
            key=torch.ones(1, dtype=torch.bool, device=frame.device),
        )
        state, tracks = model.step(state, clip)
    return len(tracks)


def seconds(call: object, model: HubSegmenter, frames: Tensor) -> float:
    """Seconds a frame, of this process's cores on a CPU and of the clock elsewhere."""
    clock = time.process_time if frames.device.type == "cpu" else time.perf_counter
    began = clock()
    call(model, frames)  # type: ignore[operator]
    if frames.device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - began) / len(frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    model = build(arguments.side, arguments.objects).to(arguments.device)
    video = open_video(VIDEO)
    frames = torch.stack([video.frames[t] for t in range(arguments.frames)]).to(arguments.device)
    found = wrapped(model, frames[:2])
    bare(model, frames[:2])
    assert found == arguments.objects, f"expected {arguments.objects} objects, found {found}"

    alone, with_memory = [], []
    for _ in range(arguments.rounds):
        alone.append(seconds(bare, model, frames))
        with_memory.append(seconds(wrapped, model, frames))
    ratios = [b / a for a, b in zip(alone, with_memory, strict=True)]
    print(f"{arguments.objects} objects, {arguments.side} x {arguments.side}, {arguments.device}")
    print(f"bare     {1000 * statistics.median(alone):8.1f} ms a frame")
    print(f"wrapped  {1000 * statistics.median(with_memory):8.1f} ms a frame")
    print(f"ratio    {statistics.median(ratios):8.3f}  (from {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
