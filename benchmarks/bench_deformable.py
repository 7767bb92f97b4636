"""Deformable attention and the pixel decoder against transformers': the same weights, input and thread, in turn.

Shapes are those of a Swin-T frame of 384x640. Ratios are of the medians; runs alternate, so that a machine that others
use slows both.

    python benchmarks/bench_deformable.py [--repeats 9] [--train]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tubelet.attention.deformable import DeformableConfig, reference_points
from tubelet.models.mask2former.pixel_decoder import PixelDecoderConfig

HEIGHT, WIDTH = 384, 640
CHANNELS = (96, 192, 384, 768)  # Swin-T
SHAPES = [(HEIGHT // s, WIDTH // s) for s in (32, 16, 8)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--train", action="store_true", help="forward and backward")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore")
    theirs, maps = _theirs()
    print(f"one thread, {HEIGHT}x{WIDTH}, {'forward and backward' if arguments.train else 'forward'}")
    with torch.set_grad_enabled(arguments.train):
        compare("deformable attention", *_attention(theirs, arguments.train), arguments.repeats)
        compare("pixel decoder", *_decoder(theirs, maps, arguments.train), arguments.repeats)


def compare(name: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], repeats: int) -> None:
    """Print the medians of both, in milliseconds, and their ratio."""
    difference = (ours() - theirs()).abs().max().item()
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        for side, run in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            run()
            times[side].append(1e3 * (time.perf_counter() - start))
    mine, other = (statistics.median(times[side]) for side in ("ours", "theirs"))
    print(
        f"{name:22} {mine:7.0f} ms, transformers {other:7.0f} ms, ratio {mine / other:.2f}, differs by {difference:.1e}"
    )


def _theirs() -> tuple[Any, list[Tensor]]:
    """transformers' pixel decoder with weights that look everywhere, and maps for it."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    stages = ["stage1", "stage2", "stage3", "stage4"]
    swin: Any = SwinConfig
    config = Mask2FormerConfig(backbone_config=swin(out_features=stages))
    decoder = Mask2FormerForUniversalSegmentation(config).model.pixel_level_module.decoder
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    strides = (4, 8, 16, 32)
    maps = [torch.randn(1, c, HEIGHT // s, WIDTH // s) for c, s in zip(CHANNELS, strides, strict=True)]
    return decoder.eval(), maps


def _attention(decoder: Any, train: bool) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    layer = decoder.encoder.layers[0].self_attn
    ours = DeformableConfig().build(256, 3)
    ours.load_state_dict(layer.state_dict())
    references = reference_points(SHAPES, torch.device("cpu"))
    tokens = torch.randn(1, len(references), 256, requires_grad=train)
    starts = torch.tensor([0, *(h * w for h, w in SHAPES)][:-1]).cumsum(0)

    def theirs() -> Tensor:
        out = layer(
            tokens,
            encoder_hidden_states=tokens,
            position_embeddings=None,
            reference_points=references[None, :, None].expand(1, -1, 3, -1),
            spatial_shapes_list=SHAPES,
            level_start_index=starts,
        )
        return _backward(out[0] if isinstance(out, tuple) else out, train)

    return lambda: _backward(ours(tokens, references, tokens, SHAPES), train), theirs


def _decoder(decoder: Any, maps: list[Tensor], train: bool) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    ours = PixelDecoderConfig().build(CHANNELS)
    ours.load_state_dict(decoder.state_dict())
    return lambda: _backward(ours(maps).features, train), lambda: _backward(decoder(maps).mask_features, train)


def _backward(out: Tensor, train: bool) -> Tensor:
    if train:
        out.sum().backward()
    return out.detach()


if __name__ == "__main__":
    main()
