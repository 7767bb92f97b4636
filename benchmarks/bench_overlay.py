"""What a frame costs outside the network: decoding, drawing ten objects, encoding. Milliseconds, median of a run.

    python benchmarks/bench_overlay.py [VIDEO]

Without a video it times a generated one. Run it on an idle machine, and compare only within one run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from tubelet.drawing.overlay import draw
from tubelet.video.reader import open_video
from tubelet.video.writer import VideoWriter

SIZES = ((360, 640), (720, 1280), (2160, 3840))
FRAMES = 60


def main() -> None:
    """Print one line for each size."""
    print(f"{'size':>10} {'decode':>8} {'draw':>8} {'encode':>8}   ms a frame")
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            images = frames(Path(sys.argv[1]) if len(sys.argv) > 1 else None, size)
            path = Path(folder) / "clip.mp4"
            encode = timed_encoding(path, images)
            decode = timed_decoding(path)
            objects = blobs(size)
            drawing = median(partial(draw, images[0], *objects))
            print(f"{size[1]}x{size[0]:<5} {decode:8.2f} {drawing:8.2f} {encode:8.2f}")


def frames(source: Path | None, size: tuple[int, int]) -> list[np.ndarray]:
    """Frames to encode: a video's own, or a texture that a camera pans over."""
    if source is None:
        height, width = size
        noise = np.random.default_rng(0).integers(0, 256, (height // 4 + 30, width // 4 + 30, 3), dtype=np.uint8)
        texture = cv2.resize(cv2.GaussianBlur(noise, (0, 0), 2), (width + 120, height + 120))
        return [np.ascontiguousarray(texture[t : t + height, t : t + width]) for t in range(FRAMES)]
    read = (frame.permute(1, 2, 0).numpy() for _, frame in zip(range(FRAMES), open_video(source).frames, strict=False))
    return [cv2.resize(image, size[::-1]) for image in read]


def blobs(size: tuple[int, int]) -> tuple[np.ndarray, list[int], list[str], list[float]]:
    """Ten wavy objects, a tenth of the frame wide and a third high."""
    height, width = size
    rows, columns = np.mgrid[:height, :width] / height
    rng = np.random.default_rng(0)
    masks = np.zeros((10, height, width), bool)
    for mask in masks:
        y, x = rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.9) * width / height
        wave = 1 + 0.2 * np.sin(5 * np.arctan2(rows - y, columns - x))
        mask[:] = ((rows - y) / 0.17) ** 2 + ((columns - x) / 0.09) ** 2 < wave
    return masks, list(range(10)), ["person"] * 10, [0.9] * 10


def timed_encoding(path: Path, images: list[np.ndarray]) -> float:
    """Milliseconds a frame, the end of the file included."""
    start = time.perf_counter()
    with VideoWriter(path, images[0].shape[:2], fps=30) as writer:
        for image in images:
            writer.write(image)
    return (time.perf_counter() - start) / len(images) * 1e3


def timed_decoding(path: Path) -> float:
    """Milliseconds a frame in order, opening included."""
    start = time.perf_counter()
    length = sum(1 for _ in open_video(path).frames)
    return (time.perf_counter() - start) / length * 1e3


def median(call: Callable[[], object]) -> float:
    """Milliseconds of a call, median of twenty."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


if __name__ == "__main__":
    main()
