"""Resident memory of per-clip inference on a long video: flat after the first clips.

    python benchmarks/bench_clip_memory.py [--frames 1000] [--length 5] [--height 360] [--width 640]

A small Mask2Former with random weights reads windows of T frames, one frame on each time; `tubelet.stream` links what
it finds and averages the masks. Random masks rarely link, so there are more identities than any
real model finds. Reported is the growth between frame 100, when every cache and allocator has warmed up, and the last
frame. Target: under 20 MB.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import torch
from bench_stream_memory import resident_megabytes
from torch import Tensor

import tubelet
from tubelet.core.protocol import Window
from tubelet.models.mask2former.model import Mask2Former, Mask2FormerConfig

WARM, TARGET = 100, 20.0
SMALL = (
    "backbone.name=resnet18",
    "pixel_decoder.channels=32",
    "pixel_decoder.layers=1",
    "pixel_decoder.feed_forward=64",
    "decoder.layers=1",
    "queries=20",
    "input.resize.short=180",
)


class Noise(Sequence[Tensor]):
    """Blobs that drift over a frame, made when they are asked for."""

    def __init__(self, frames: int, size: tuple[int, int]) -> None:
        height, width = size
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x / 23 + k) * np.cos(y / 17 - k) for k in range(3)]
        self.count, self.picture = frames, torch.from_numpy((127 + 120 * np.stack(waves)).astype(np.uint8))

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, t: int) -> Tensor: ...
    @overload
    def __getitem__(self, t: slice) -> list[Tensor]: ...
    def __getitem__(self, t: int | slice) -> Tensor | list[Tensor]:
        if isinstance(t, slice):
            return [self[n] for n in range(self.count)[t]]
        return self.picture.roll((2 * t, -3 * t), (1, 2))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[t] for t in range(self.count))


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Mask2FormerConfig().override(*SMALL, *arguments.override).build(("a", "b", "c")).eval()
    assert isinstance(model, Mask2Former)
    size = (arguments.height, arguments.width)
    video = tubelet.Video(id="long", size=size, frames=Noise(arguments.frames, size))
    shown, last, at, start = 0, -1, {}, time.perf_counter()
    for frame in tubelet.stream(model, video, window=Window(length=arguments.length), threshold=0):
        shown += len(frame.ids)
        last = max([last, *frame.ids.tolist()])
        if (frame.index + 1) % WARM == 0:
            gc.collect()
            at[frame.index + 1] = resident_megabytes()
            print(f"frame {frame.index + 1:5d}: {at[frame.index + 1]:8.1f} MB", flush=True)
    seconds = time.perf_counter() - start
    growth = at[max(at)] - at[WARM]
    rate, objects = arguments.frames / seconds, shown / arguments.frames
    print(f"{arguments.frames} frames, {objects:.1f} objects each, {last + 1} identities, {rate:.2f} frames a second")
    print(f"grown by {growth:.1f} MB from frame {WARM} to frame {max(at)} (target: under {TARGET:.0f})")
    sys.exit(growth >= TARGET)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--length", type=int, default=5)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("override", nargs="*", help="fields of the model, e.g. decoder.kind=inter_frame")
    return parser.parse_args()


if __name__ == "__main__":
    main()
