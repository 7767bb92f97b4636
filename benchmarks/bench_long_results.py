"""Memory and files of results of long videos, with a model that costs nothing, so that the program's own share is seen.

    python benchmarks/bench_long_results.py [run | save] [--frames 100000] [--tracks 750]

`run`: `stream` and `predict(results=...)` on generated frames whose objects change all the time, each in a process of
its own. Reported is the growth of resident memory from frame 1,000 to the end, saving included. Target: under 50 MB.
`save`: a prediction of 3,000 frames with 750 tracks that are seen for 20 frames each, saved in both forms: bytes and
seconds, and the memory that its tracks hold.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_stream_memory import resident_megabytes
from torch import Tensor, nn

import tubelet
from tubelet.core import masks
from tubelet.core.protocol import VideoSegmenter, Window
from tubelet.core.types import Clip, Losses, Prediction, Track, Tracks, Video
from tubelet.formats import ytvis

SIZE = (64, 96)
PHASES = 107  # different pictures
OBJECTS, LIFE = 5, 50  # in each frame; frames until an object is replaced by a new one
WARM, TARGET = 1000, 50.0
SAVED_FRAMES, SAVED_LIFE = 3000, 20


class Changing(nn.Module, VideoSegmenter[None]):
    """Finds discs; each is another object after LIFE frames."""

    classes = tuple(f"class {n}" for n in range(80))
    window = Window()

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.found = torch.stack([discs(t) for t in range(PHASES)])  # [PHASES, N, H, W]

    def forward(self, clips: list[Clip]) -> Losses:
        raise NotImplementedError("this model is not trained")

    def start(self) -> None:
        return None

    def step(self, state: None, clip: Clip) -> tuple[None, Tracks]:
        t = int(clip.index[0])
        ids = torch.tensor([n + OBJECTS * ((t + n * LIFE // OBJECTS) // LIFE) for n in range(OBJECTS)])
        scores = torch.full((OBJECTS, len(self.classes)), 0.001)
        scores[range(OBJECTS), ids % len(self.classes)] = 0.9
        return None, Tracks(ids=ids, scores=scores, masks=self.found[t % PHASES, :, None], index=clip.index)


def discs(t: int) -> Tensor:
    """Discs that wander about, one for each object, bool [N, H, W]."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    found = []
    for n in range(OBJECTS):
        across = rows - (12 + 9 * n + 6 * np.sin(t / 7))
        along = columns - (20 * n + 0.9 * t) % SIZE[1]
        found.append(across**2 + along**2 < (6 + n) ** 2)
    return torch.from_numpy(np.stack(found))


class Blank(Sequence[Tensor]):
    """Grey frames, made when they are read; calls `seen` with the number of each."""

    def __init__(self, length: int, seen: Any) -> None:
        self._length = length
        self._seen = seen
        self._frame = torch.full((3, *SIZE), 90, dtype=torch.uint8)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, t: Any) -> Any:
        if not 0 <= t < self._length:
            raise IndexError(t)
        self._seen(t)
        return self._frame


def main() -> None:
    arguments = _arguments()
    if arguments.what in ("stream", "predict"):
        (run_stream if arguments.what == "stream" else run_predict)(arguments.frames)
        return
    if arguments.what in ("run", "all"):
        for what in ("stream", "predict"):
            subprocess.run([sys.executable, __file__, what, "--frames", str(arguments.frames)], check=True)
    if arguments.what in ("save", "all"):
        save(arguments.tracks)


def run_stream(length: int) -> None:
    at = Memory()
    start = time.perf_counter()
    ids: set[int] = set()
    for frame in tubelet.stream(Changing(), video(length, at.look)):
        if frame.index % 1000 == 0:
            ids |= set(frame.ids.tolist())
    seconds = time.perf_counter() - start
    print(f"stream: {length} frames, {len(ids)} objects seen in every 1000th, {seconds:.0f} s", flush=True)
    print(
        f"        grown by {at.growth():.1f} MB, by {at.most():.1f} MB at most (target: under {TARGET:.0f})", flush=True
    )


def run_predict(length: int) -> None:
    at = Memory()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        start = time.perf_counter()
        prediction = tubelet.predict(Changing(), video(length, at.look), results=path)
        seconds = time.perf_counter() - start
        print(f"predict: {length} frames, {len(prediction)} tracks, {seconds:.0f} s, {at.growth():.1f} MB", flush=True)
        print(f"         {path.stat().st_size / 1e6:.1f} MB on disk, {at.most():.1f} MB at most until here", flush=True)

        start = time.perf_counter()
        prediction.save(folder, video=False, results=None)
        heading = prediction.summary().heading[:40]
        shown = sum(len(prediction.in_frame(t)) for t in range(length))
        seconds = time.perf_counter() - start
        print(f"         sheet, summary ({heading} ...) and {shown} masks read back: {seconds:.0f} s", flush=True)
    print(f"         grown by {at.growth():.1f} MB in all, by {at.most():.1f} MB at most (target: under {TARGET:.0f})")


def video(length: int, seen: Any) -> Video:
    return Video(id="long", size=SIZE, frames=Blank(length, seen), fps=25.0)


class Memory:
    """Resident memory since frame WARM was read."""

    def __init__(self) -> None:
        self._warm = 0.0
        self._most = 0.0

    def look(self, t: int) -> None:
        """Called with the number of each frame that is read."""
        if t == WARM and not self._warm:
            gc.collect()
            self._warm = resident_megabytes()
        if t % 500 == 0:
            self._most = max(self._most, resident_megabytes())

    def growth(self) -> float:
        gc.collect()
        self._most = max(self._most, resident_megabytes())
        return resident_megabytes() - self._warm

    def most(self) -> float:
        return self._most - self._warm


def save(count: int) -> None:
    """Both forms, with what the tracks of a prediction hold."""
    tracemalloc.start()
    prediction = short_appearances(count)
    held = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    print(f"save: {SAVED_FRAMES} frames, {count} tracks of {SAVED_LIFE} frames, {held:.1f} MB in memory")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("predictions.json", "predictions.jsonl"):
            path = Path(folder) / name
            if name.endswith("l") and not hasattr(Track, "entries"):
                continue  # an older tree, which this file compares with
            start = time.perf_counter()
            ytvis.write_predictions(path, [prediction])
            written = time.perf_counter() - start
            start = time.perf_counter()
            tables = ytvis.read_tables(path)
            ytvis.read_predictions(path, tables)
            read = time.perf_counter() - start
            print(f"  {name:18} {path.stat().st_size / 1e6:6.1f} MB  written in {written:.2f} s  read in {read:.2f} s")


def short_appearances(count: int) -> Prediction:
    """Tracks that are seen for SAVED_LIFE frames each, one after another."""
    (rle,) = masks.encode(discs(9)[2:3].numpy())
    tracks = []
    for n in range(count):
        first = n * (SAVED_FRAMES - SAVED_LIFE) // count
        rles = tuple(
            masks.RLE(rle.size, bytes(bytearray(rle.counts))) if first <= t < first + SAVED_LIFE else None
            for t in range(SAVED_FRAMES)
        )
        tracks.append(Track(id=n, label=n % 80, score=0.9, rles=rles))
    return Prediction(video="v", size=SIZE, length=SAVED_FRAMES, tracks=tuple(tracks), classes=Changing.classes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="all", choices=["all", "run", "save", "stream", "predict"])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--tracks", type=int, default=750)
    return parser.parse_args()


if __name__ == "__main__":
    main()
