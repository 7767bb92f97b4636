"""How fast clips are made: every sampler on video, the default recipe's pseudo-videos, the loader beside the training.

    python benchmarks/bench_data.py [--coco INSTANCES.json] [--videos 6] [--clips 80] [--threads 1]

Video is generated and stored as JPEG of 640x360, so that decoding costs what it costs in life. Clips are made by one
process on one thread; the loader has two workers. Targets: the loader with two workers keeps up with the training step
of the default model; a JSON of YouTube-VIS 2021's size (2,985 videos, 6,283 objects) opens in 5 s and under 1 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from tubelet.core.types import Clip, VideoSet
from tubelet.data.caching import keep_decoded, shrink
from tubelet.data.clips import ClipDataset
from tubelet.data.geometry import Geometry, HorizontalFlip, ResizeWithin
from tubelet.data.sampling import (
    AnySampler,
    DroppedClip,
    NearbyPair,
    OrderedPair,
    RandomPair,
    Repeat,
    SupportReference,
)
from tubelet.formats import coco, ytvis
from tubelet.formats.ytvis.numbering import Frames
from tubelet.recipes.default import RECIPES
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate

SAMPLERS: dict[str, AnySampler] = {
    "one frame, repeated": Repeat(frames=2),
    "random pair": RandomPair(),
    "ordered pair": OrderedPair(),
    "2 supports, reference, current": SupportReference(),
    "nearby pair": NearbyPair(),
    "32 frames with drops": DroppedClip(),
}


def main() -> None:
    arguments = _arguments()
    cv2.setNumThreads(0)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        videos = stored_videos(Path(folder), arguments.videos)
        report_samplers(videos, arguments.clips)
        report_caches(videos, Path(folder) / "shrunk", arguments.clips)
        images = coco.read(arguments.coco) if arguments.coco else videos
        report_loader(images, arguments.clips)
        report_opening(Path(folder) / "large.json")


def stored_videos(folder: Path, number: int) -> VideoSet:
    """Generated videos of 40 frames, written as JPEG and read back."""
    made = generate(Synthetic(height=360, width=640, frames=40, blur=0), seed=0, videos=number)
    written = []
    for video in made.videos:
        names = tuple(f"{video.id}/{t:05d}.jpg" for t in range(len(video)))
        (folder / "JPEGImages" / video.id).mkdir(parents=True)
        for name, frame in zip(names, video.frames, strict=True):
            image = frame.permute(1, 2, 0).numpy()[..., ::-1]
            cv2.imwrite(str(folder / "JPEGImages" / name), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        written.append(replace(video, frames=Frames((folder / "JPEGImages",), names, video.size, "bench")))
    ytvis.write_set(folder / "instances.json", replace(made, videos=written))
    return ytvis.read(folder / "instances.json")


def report_samplers(videos: VideoSet, clips: int) -> None:
    """Clips and frames a second of every sampler, at 640x360 with a flip, in one process."""
    steps = (Geometry(steps=(ResizeWithin(), HorizontalFlip())),)
    print(f"{'sampler':<32}{'clips/s':>10}{'frames/s':>10}")
    for name, sampler in SAMPLERS.items():
        rate, frames = _rate(ClipDataset(videos, sampler, steps), clips if frames_of(sampler) < 8 else clips // 8)
        print(f"{name:<32}{rate:>10.1f}{frames:>10.1f}")


def frames_of(sampler: AnySampler) -> int:
    """About how many frames a clip has."""
    return getattr(sampler, "frames", 4)


def report_caches(videos: VideoSet, folder: Path, clips: int) -> None:
    """The same pair of frames from the files, from memory, and from frames shrunk on disk."""
    steps = (Geometry(steps=(ResizeWithin(short=180, long=320),)),)
    print(f"\n{'random pair at 320x180 from':<32}{'clips/s':>10}")
    sets = {
        "files": videos,
        "memory": keep_decoded(videos, 2000),
        "shrunk": shrink(videos, folder, short=180, long=320),
    }
    for name, held in sets.items():
        dataset = ClipDataset(held, RandomPair(), steps)
        _rate(dataset, len(videos.videos) * 40)  # fills the caches
        print(f"{name:<32}{_rate(dataset, clips)[0]:>10.1f}")


def report_loader(videos: VideoSet, clips: int) -> None:
    """The default recipe: clips a second made by two workers, learned by the model, and both at once."""
    recipe = RECIPES["default"]
    batch = recipe.train.batch_size
    dataset = ClipDataset(videos, recipe.sampler, recipe.transforms, 0, keep_ignored=True)
    alone, _ = _rate(dataset, clips)
    loading = _timed(_batches(dataset, batch, clips))
    model = recipe.model.build(videos.classes).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
    held = list(_batches(dataset, batch, 4 * batch))

    def step(clips_of_step: list[Clip]) -> None:
        optimiser.zero_grad()
        torch.stack(list(model(clips_of_step).values())).sum().backward()
        optimiser.step()

    step(held[0])
    start = time.perf_counter()
    for one in held:
        step(one)
    learning = len(held) * batch / (time.perf_counter() - start)
    waited, together = _train(_batches(dataset, batch, clips), step)
    print(f"\n{'the default recipe':<32}{'clips/s':>10}")
    for name, rate in (("one process", alone), ("two workers", clips / loading), ("training step", learning)):
        print(f"{name:<32}{rate:>10.1f}")
    print(f"{'training beside two workers':<32}{clips / together:>10.1f}   waiting {waited / together:.0%} of the time")


def report_opening(path: Path) -> None:
    """Time and memory of opening a JSON of YouTube-VIS 2021's size, in a process of its own."""
    _write_large(path)
    code = (
        f"import re, time; t = time.time(); from tubelet.formats import ytvis; s = ytvis.read({str(path)!r})\n"
        # not getrusage: its peak is inherited from the parent process
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        "print(f'{len(s.videos)} videos in {time.time() - t:.1f} s, {peak:.0f} MB at most, imports included')"
    )
    print(f"\nopening a JSON of {path.stat().st_size / 1e6:.0f} MB")
    subprocess.run([sys.executable, "-c", code], check=True)


def _write_large(path: Path) -> None:
    """2,985 videos of 30 frames, 6,283 objects; masks are borrowed from a few generated ones at 1280x720."""
    source = generate(Synthetic(height=720, width=1280, frames=6, objects=(4, 4)), 0, 1).videos[0]
    shapes = [rle for track in source.tracks or () for rle in track.rles if rle is not None]
    codes = [json.dumps({"size": list(rle.size), "counts": rle.counts.decode()}) for rle in shapes]
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        names = [[f"{n}/{t:05d}.jpg" for t in range(30)] for n in range(2985)]
        listed = [
            {"id": n + 1, "height": 720, "width": 1280, "length": 30, "file_names": names[n]} for n in range(2985)
        ]
        categories = [{"id": n + 1, "name": f"class {n}"} for n in range(40)]
        file.write(f'{{"videos": {json.dumps(listed)}, "categories": {json.dumps(categories)}, "annotations": [')
        for n in range(6283):
            masks = ", ".join(codes[k] for k in rng.integers(len(codes), size=30))
            head = f'"id": {n + 1}, "video_id": {n % 2985 + 1}, "category_id": {n % 40 + 1}, "iscrowd": 0'
            file.write(f'{"," if n else ""}{{{head}, "segmentations": [{masks}]}}')
        file.write("]}")


def _rate(dataset: ClipDataset, clips: int) -> tuple[float, float]:
    """Clips and frames a second in this process, after one clip to warm up."""
    _ = dataset[0]
    start, frames = time.perf_counter(), 0
    for number in range(1, clips + 1):
        frames += len(dataset[number])
    seconds = time.perf_counter() - start
    return clips / seconds, frames / seconds


def _batches(dataset: ClipDataset, batch: int, clips: int) -> Iterator[list[Clip]]:
    """`clips` clips by two workers that run already: the first two batches are thrown away."""
    numbers = range(clips + 2 * batch)
    loader = DataLoader(dataset, batch_size=batch, sampler=numbers, collate_fn=list, num_workers=2)
    return islice(iter(loader), 2, None)


def _timed(batches: Iterator[list[Clip]]) -> float:
    first = next(batches)
    start, count = time.perf_counter(), 0
    for one in batches:
        count += len(one)
    return (time.perf_counter() - start) * (count + len(first)) / count


def _train(batches: Iterator[list[Clip]], step: Callable[[list[Clip]], None]) -> tuple[float, float]:
    """Seconds spent waiting for clips, and in all."""
    first = next(batches)
    start, waited = time.perf_counter(), 0.0
    step(first)
    while True:
        asked = time.perf_counter()
        one = next(batches, None)
        waited += time.perf_counter() - asked
        if one is None:
            return waited, time.perf_counter() - start
        step(one)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--coco", type=Path, help="a COCO instances JSON, its images beside it in images/")
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--clips", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
