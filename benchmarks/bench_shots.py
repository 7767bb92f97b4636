"""Scene cuts: how many are found, how often one is seen where none is, what a frame costs, and whose identity goes on.

    python benchmarks/bench_shots.py [DATA] [--part measure|choose]
    python benchmarks/bench_shots.py DATA --identity [--no-cuts] [--model default]

Without DATA only the time of a frame is measured, on made frames of 1280 x 720. DATA is a folder with davis2016_train/
(JPEGImages, Annotations, sequences.json) and clips/ (videos). Thresholds were set on the part `choose`: the 13
sequences whose masks merge several objects, and three clips; everything is measured on the other 17 and three others.

Cuts: edited videos, shots of 8 to 40 frames from sequences in random order. False ones: in these, in the sequences as
they are, in every 3rd, 5th and 8th of their frames (a live source that is read too slowly), and in sequences with
flashes, a shaken camera, fades from and to black, and a dip to black. Dissolves of 12 frames: how many are found.

Identity: two sequences of one kind in turn, A-B-A, 20 frames each. The identity of a part is that of the track that
covers the annotated object (IoU above 0.5) in most of its frames. Told: whether B has another one than A, and whether A
has its own again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from tubelet.core.masks import decode
from tubelet.inference.predict import predict
from tubelet.inference.reading import find_shots
from tubelet.inference.results import VideoPrediction
from tubelet.models import weights
from tubelet.tracking.shots import ShotConfig, ShotState, next_shot
from tubelet.video.reader import open_video

SIZE = (240, 428)  # of all frames here
TO_CHOOSE_WITH = ("cyclist", "dog_training", "driving")  # of the clips
EDITS, SHOTS = 20, 30  # edited videos, and shots in each
PART = 20  # frames of A, of B, and of A again
KINDS = (
    ("breakdance-flare", "dance-jump", "hike", "lucia", "rollerblade"),  # people
    ("flamingo", "mallard-fly", "mallard-water"),  # birds
    ("bus", "car-turn", "drift-turn"),  # vehicles
    ("bear", "dog-agility", "elephant", "rhino"),
)
Sequences = dict[str, np.ndarray]  # uint8 [T, *SIZE, 3]


def read_sequences(data: Path, part: str) -> Sequences:
    listed = json.loads((data / "davis2016_train" / "sequences.json").read_text())
    names = [entry["sequence"] for entry in listed if (entry["objects2017"] == 1) == (part == "measure")]
    sources = {name: data / "davis2016_train" / "JPEGImages" / name for name in names}
    clips = sorted((data / "clips").iterdir())
    sources |= {clip.stem: clip for clip in clips if (clip.stem in TO_CHOOSE_WITH) == (part == "choose")}
    return {name: read(source) for name, source in sources.items()}


def read(source: Path) -> np.ndarray:
    frames = (frame.permute(1, 2, 0).numpy() for frame in open_video(source).frames)
    return np.stack([cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA) for frame in frames])


# cuts


class Count(NamedTuple):
    frames: int
    cuts: int
    found: int
    false: int

    def __str__(self) -> str:
        share = f"{self.found} of {self.cuts} cuts found, " if self.cuts else ""
        return f"{share}{self.false} false in {self.frames} frames, {1000 * self.false / self.frames:.2f} per 1,000"


def count(videos: Iterator[tuple[np.ndarray, set[int]]]) -> Count:
    frames = cuts = found = false = 0
    for video, true in videos:
        said = set(find_shots(open_video(video))) - {0}
        frames += len(video)
        cuts += len(true)
        found += len(said & true)
        false += len(said - true)
    return Count(frames, cuts, found, false)


def edited(sequences: Sequences, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, set[int]]]:
    """Videos of many shots, no two neighbours from one sequence, and where their cuts are."""
    names = list(sequences)
    for _ in range(EDITS):
        shots: list[np.ndarray] = []
        last = ""
        while len(shots) < SHOTS:
            name = str(rng.choice([other for other in names if other != last]))
            length = min(int(rng.integers(8, 41)), len(sequences[name]))
            start = int(rng.integers(len(sequences[name]) - length + 1))
            shots.append(sequences[name][start : start + length])
            last = name
        ends = np.cumsum([len(shot) for shot in shots])
        yield np.concatenate(shots), set(ends[:-1].tolist())


def every(sequences: Sequences, step: int) -> Iterator[tuple[np.ndarray, set[int]]]:
    return ((frames[::step], set()) for frames in sequences.values())


def flashed(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three flashes of a frame or two."""
    frames = frames.astype(np.float32)
    for t in rng.choice(np.arange(3, len(frames) - 3), 3, replace=False):
        lasting = int(rng.integers(1, 3))
        frames[t : t + lasting] = frames[t : t + lasting] * rng.uniform(1.3, 2.0) + rng.uniform(0, 60)
    return frames.clip(0, 255).astype(np.uint8)


def shaken(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every frame moved by up to a twelfth of its sides."""
    rows, columns = SIZE[0] // 12, SIZE[1] // 12
    moves = zip(rng.integers(0, rows + 1, len(frames)), rng.integers(0, columns + 1, len(frames)), strict=True)
    moved = [frame[y : y + 11 * rows, x : x + 11 * columns] for frame, (y, x) in zip(frames, moves, strict=True)]
    return np.stack(moved)


def faded(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From black and to black in ten frames, and in the middle down and up again."""
    near = np.minimum(np.arange(len(frames)), np.arange(len(frames))[::-1])
    shares = np.minimum(near, abs(np.arange(len(frames)) - len(frames) // 2)).clip(max=10) / 10
    return (frames * shares[:, None, None, None]).astype(np.uint8)


def dissolved(sequences: Sequences, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Two sequences, the second taking over within twelve frames."""
    pairs = list(permutations(sequences, 2))
    share = ((np.arange(25) - 6) / 12).clip(0, 1)[:, None, None, None]
    for k in rng.choice(len(pairs), 60, replace=False):
        first, second = (sequences[name][:25] for name in pairs[k])
        yield (first * (1 - share) + second * share).astype(np.uint8)


def report_cuts(sequences: Sequences) -> None:
    rng = np.random.default_rng(0)
    print(f"edited: {count(edited(sequences, rng))}", flush=True)
    for step in (1, 3, 5, 8):
        print(f"as they are, every frame of {step}: {count(every(sequences, step))}", flush=True)
    for change in (flashed, shaken, faded):
        changed = ((change(frames, rng), set[int]()) for frames in sequences.values())
        print(f"{change.__name__}: {count(changed)}", flush=True)
    found = [len(find_shots(open_video(video))) > 1 for video in dissolved(sequences, rng)]
    print(f"dissolves: {sum(found)} of {len(found)} found", flush=True)


# identity


def report_identity(data: Path, model_name: str, cuts: bool) -> None:
    model = weights.load(model_name, device="cpu")
    apart = back = stolen = told_apart = told_back = 0
    for kind in KINDS:
        for first, second in permutations(kind, 2):
            mine, other, again = identities(predict_edited(model, data, first, second, cuts), data, first, second)
            told_apart += None not in (mine, other)
            apart += None not in (mine, other) and mine != other
            told_back += None not in (mine, again)
            back += None not in (mine, again) and mine == again
            stolen += None not in (other, again) and other == again
            print(f"{first} - {second} - {first}: {mine} {other} {again}", flush=True)
    print(f"another identity in B: {apart} of {told_apart}; A's own again: {back} of {told_back}; B's in A: {stolen}")


def predict_edited(model: object, data: Path, first: str, second: str, cuts: bool) -> VideoPrediction:
    frames = {name: read(data / "davis2016_train" / "JPEGImages" / name) for name in (first, second)}
    parts = [frames[first][:PART], frames[second][:PART], frames[first][later(len(frames[first])) :]]
    return predict(model, np.concatenate([part[:PART] for part in parts]), cuts=cuts)  # type: ignore[arg-type]


def later(length: int) -> int:
    """Where A goes on: as it went on while B was shown, or at its last frames."""
    return min(2 * PART, length - PART)


def identities(prediction: VideoPrediction, data: Path, first: str, second: str) -> list[int | None]:
    """Who covers the annotated object in A, in B, and in A again; None where nobody does."""
    length = len(list((data / "davis2016_train" / "Annotations" / first).iterdir()))
    starts = [(first, 0), (second, 0), (first, later(length))]
    return [_covering(prediction, data, name, start, n * PART) for n, (name, start) in enumerate(starts)]


def _covering(prediction: VideoPrediction, data: Path, name: str, start: int, first: int) -> int | None:
    votes: Counter[int] = Counter()
    for t in range(PART):
        truth = cv2.imread(str(data / "davis2016_train" / "Annotations" / name / f"{start + t:05d}.png"), 0)
        truth = cv2.resize(truth, SIZE[::-1], interpolation=cv2.INTER_NEAREST) > 0
        for track in prediction.tracks:
            rle = track.rles[first + t]
            if rle is None:
                continue
            mask = decode([rle])[0] > 0
            votes[track.id] += bool((mask & truth).sum() > 0.5 * (mask | truth).sum())
    best, frames = votes.most_common(1)[0] if votes else (0, 0)
    return best if frames else None


# time


def report_time(turns: int = 200) -> None:
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (45, 80, 3), np.uint8) for _ in range(5)]
    frames = [torch.from_numpy(cv2.resize(image, (1280, 720))).permute(2, 0, 1) for image in coarse]
    for name, images in (("as decoded", frames), ("planes", [frame.contiguous() for frame in frames])):
        state = ShotState()
        began = time.process_time()
        for t in range(turns):
            state = next_shot(state, images[t % len(images)], ShotConfig())
        passed = time.process_time() - began
        print(f"1280 x 720, {name}: {1e3 * passed / turns:.2f} ms of one core a frame", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--part", choices=("measure", "choose"), default="measure")
    parser.add_argument("--identity", action="store_true")
    parser.add_argument("--no-cuts", action="store_true")
    parser.add_argument("--model", default="default")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if given.identity and given.data is not None:
        report_identity(given.data, given.model, not given.no_cuts)
        return
    report_time()
    if given.data is not None:
        report_cuts(read_sequences(given.data, given.part))


if __name__ == "__main__":
    main()
