"""Resident memory of `stream` on a long video: it should not grow.

    python benchmarks/bench_stream_memory.py [--model NAME|PATH] [--frames 2000]

The bundled demo video is played forth and back into one long file, so that objects come and go all the time. Reported
is the growth between frame 100, when every cache and allocator has warmed up, and the last frame. Target: under 20 MB.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np

import tubelet
from tubelet.apps.demo import VIDEO
from tubelet.video.reader import open_video
from tubelet.video.writer import VideoWriter

WARM, TARGET = 100, 20.0


def main() -> None:
    arguments = _arguments()
    model = tubelet.load(arguments.model, device=arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        write_long(path, arguments.frames)
        shown, at, start = 0, {}, time.perf_counter()
        for frame in tubelet.stream(model, path):
            shown += len(frame.ids)
            if (frame.index + 1) % WARM == 0:
                gc.collect()
                at[frame.index + 1] = resident_megabytes()
                print(f"frame {frame.index + 1:5d}: {at[frame.index + 1]:8.1f} MB", flush=True)
    seconds = time.perf_counter() - start
    growth = at[max(at)] - at[WARM]
    rate, objects = arguments.frames / seconds, shown / arguments.frames
    print(f"{arguments.frames} frames, {objects:.1f} objects each, {rate:.1f} frames a second")
    print(f"grown by {growth:.1f} MB from frame {WARM} to frame {max(at)} (target: under {TARGET:.0f})")
    sys.exit(growth >= TARGET)


def write_long(path: Path, count: int) -> None:
    """The demo video forth and back until `count` frames are written."""
    frames = [np.ascontiguousarray(frame.permute(1, 2, 0).numpy()) for frame in open_video(VIDEO).frames]
    there_and_back: Iterator[np.ndarray] = cycle(frames + frames[-2:0:-1])
    with VideoWriter(path, frames[0].shape[:2], 24) as writer:
        for frame in islice(there_and_back, count):
            writer.write(frame)


def resident_megabytes() -> float:
    """What the process holds now; where the system does not tell, the most that it ever held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1e6 if sys.platform == "darwin" else 1e3)
    return pages * resource.getpagesize() / 1e6


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default", help="a bundled name or a safetensors file")
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
