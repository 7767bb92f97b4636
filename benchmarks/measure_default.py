"""The figures in the default model's card.

    python benchmarks/measure_default.py --coco FOLDER [--split val] [--model default]
    python benchmarks/measure_default.py --davis FOLDER

--coco: a folder with instances.json, images/ and split.json; average precision of the masks on single images, by the
YouTube-VIS evaluator (an image is a video of one frame), class-aware and class-agnostic. Every detection counts, so
thresholds that are for people are opened.
--davis: a folder with JPEGImages, Annotations and sequences.json (DAVIS 2016's training split). On sequences with one
object: the J of the best track (mean over frames, absent = 0), the share of frames in which that track is the one that
covers the object, the J of the best instance per frame. Tracks with a score of 0.5 or more, as `tubelet predict`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tubelet.core import masks
from tubelet.core.types import Prediction
from tubelet.data import coco
from tubelet.evaluation import ytvis
from tubelet.inference.predict import predict
from tubelet.models import weights
from tubelet.models.rcnn.model import MaskTrackRCNN


def average_precision(model: MaskTrackRCNN, folder: Path, part: str) -> None:
    keep = set(json.loads((folder / "split.json").read_text())[part])
    videos = list(coco.read(folder / "instances.json", keep=keep).videos)
    guesses = [predict(model, video, threshold=0.0) for video in videos]
    for name, merge in (("class-aware", False), ("class-agnostic", True)):
        truth, answers = ([_merged(v) for v in videos], [_merged(g) for g in guesses]) if merge else (videos, guesses)
        result = ytvis.evaluate(truth, answers)
        print(f"{name}: mask AP {result['AP']:.3f}  AP50 {result['AP50']:.3f}  AR100 {result['AR100']:.3f}", flush=True)


def _merged(one: Any) -> Any:
    return replace(one, tracks=tuple(replace(track, label=0) for track in one.tracks or ()))


def single_objects(model: MaskTrackRCNN, folder: Path) -> None:
    sequences = json.loads((folder / "sequences.json").read_text())
    rows = []
    for name in (s["sequence"] for s in sequences if s["objects2017"] == 1):
        overlaps = _overlaps(predict(model, folder / "JPEGImages" / name), list(_truth(folder / "Annotations" / name)))
        best = overlaps.mean(1).argmax()
        kept = (overlaps.argmax(0) == best) & (overlaps[best] > 0.3)
        rows.append((overlaps[best].mean(), kept.mean(), overlaps.max(0).mean()))
        print(
            f"{name:18s} best track J {rows[-1][0]:.3f}  kept {rows[-1][1]:.2f}  per frame {rows[-1][2]:.3f}",
            flush=True,
        )
    print("mean of {} best track J {:.3f}  kept {:.3f}  per frame {:.3f}".format(len(rows), *np.mean(rows, 0)))


def _truth(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            yield np.asarray(image.convert("L")) > 0


def _overlaps(prediction: Prediction, truth: list[np.ndarray]) -> np.ndarray:
    """J of every track in every frame, [tracks (one at least), frames]."""
    table = np.zeros((max(len(prediction.tracks), 1), len(truth)))
    for n, track in enumerate(prediction.tracks):
        for t, (rle, mask) in enumerate(zip(track.rles, truth, strict=True)):
            if rle is not None:
                own = masks.decode([rle])[0].astype(bool)
                table[n, t] = (own & mask).sum() / max((own | mask).sum(), 1)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--coco", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--davis", type=Path)
    arguments = parser.parse_args()
    model = weights.load(arguments.model, precision=arguments.precision)
    if arguments.coco:
        opened = model.config.override("association.birth=0", "association.shadow=1", "detector.max_detections=100")
        wide = opened.build(model.classes).eval()
        wide.load_state_dict(model.state_dict())
        average_precision(wide, arguments.coco, arguments.split)
    if arguments.davis:
        single_objects(model, arguments.davis)


if __name__ == "__main__":
    main()
