"""The validation-sized case that the evaluation benchmarks share, generated from a seed.

300 videos of 30 frames at 360 x 640, three objects and fifty predictions a video, forty classes: a result file of about
124 MB, as a transformer with many queries writes it. In the easy case few predictions follow an object and the rest
are chance; in the hard case most follow one, as the near-duplicates of query models do, and nearly all pairs of a class
must be compared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How large a case is."""

    videos: int = 300
    frames: int = 30
    height: int = 360
    width: int = 640
    objects: int = 3
    predictions: int = 50
    classes: int = 40
    seed: int = 0
    following: int = 3  # predictions that follow an object, in turn


def write(case: Case, folder: Path) -> tuple[Path, Path]:
    """Write truth.json and results.json, or find them; the same case gives the same bytes."""
    stem = "-".join(str(getattr(case, name)) for name in case.__slots__)
    truth, results = folder / f"truth-{stem}.json", folder / f"results-{stem}.json"
    if not results.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(case.seed)
        annotations, guesses = [], []
        for video in range(1, case.videos + 1):
            objects = [_Object.draw(case, rng) for _ in range(case.objects)]
            for thing in objects:
                annotations.append(_annotation(len(annotations) + 1, video, thing, case))
            guesses.extend(_guess(video, objects, rank, case, rng) for rank in range(case.predictions))
        truth.write_text(json.dumps(_data_set(case, annotations)))
        results.write_text(json.dumps(guesses))
    return truth, results


EASY = Case()
HARD = Case(following=45)


@dataclass(frozen=True, slots=True)
class _Object:
    label: int
    centre: np.ndarray  # [2] x, y
    speed: np.ndarray  # [2]
    radius: np.ndarray  # [2]
    wobble: np.ndarray  # [8] amplitudes of the outline

    @classmethod
    def draw(cls, case: Case, rng: np.random.Generator) -> _Object:
        size = np.array([case.width, case.height])
        return cls(
            int(rng.integers(case.classes)) + 1,
            rng.uniform(0.2, 0.8, 2) * size,
            rng.normal(0, 2, 2),
            rng.uniform(0.04, 0.13, 2) * size.max(),
            rng.normal(0, 0.04, 8),
        )

    def near(self, rng: np.random.Generator) -> _Object:
        radius = self.radius * rng.uniform(0.9, 1.1, 2)
        return _Object(self.label, self.centre + rng.normal(0, 6, 2), self.speed, radius, rng.normal(0, 0.04, 8))

    def counts(self, t: int, case: Case) -> dict[str, Any]:
        """One frame's mask: a column of pixels for each x of a wobbling ellipse, written as runs."""
        size = np.array([case.width, case.height])
        x, y = size - np.abs((self.centre + t * self.speed) % (2 * size) - size)  # turning back at the borders
        rx, ry = self.radius
        columns = np.arange(max(0, int(x - rx)), min(case.width, int(x + rx) + 1))
        if columns.size == 0:
            return {"size": [case.height, case.width], "counts": [case.height * case.width]}
        across = (columns - x) / rx
        ripple = 1 + np.sin(np.outer(across * 5 + t * 0.3, np.arange(1, 9))) @ self.wobble
        half = ry * np.sqrt(np.clip(1 - across**2, 0, 1)) * ripple
        top = np.clip(y - half, 0, case.height - 1).astype(int)
        bottom = np.clip(np.maximum(y + half, top + 1), 1, case.height).astype(int)
        bounds = np.stack([columns * case.height + top, columns * case.height + bottom], 1).ravel()
        edges = np.concatenate([[0], bounds, [case.height * case.width]])
        return {"size": [case.height, case.width], "counts": np.diff(edges).tolist()}


def _guess(video: int, objects: list[_Object], rank: int, case: Case, rng: np.random.Generator) -> dict[str, Any]:
    follows = rank < case.following
    thing = objects[rank % len(objects)].near(rng) if follows else _Object.draw(case, rng)
    score = float(rng.uniform(0.5, 1) if follows else rng.uniform(0, 0.6))
    return {
        "video_id": video,
        "category_id": thing.label,
        "score": score,
        "segmentations": [_compressed(thing.counts(t, case), case) for t in range(case.frames)],
    }


def _annotation(number: int, video: int, thing: _Object, case: Case) -> dict[str, Any]:
    masks = [_compressed(thing.counts(t, case), case) for t in range(case.frames)]
    return {
        "id": number,
        "video_id": video,
        "category_id": thing.label,
        "iscrowd": 0,
        "segmentations": masks,
        "areas": [int(coco.area(mask)) for mask in masks],
        "bboxes": [[float(v) for v in coco.toBbox(mask)] for mask in masks],
        "height": case.height,
        "width": case.width,
        "length": case.frames,
    }


def _compressed(mask: dict[str, Any], case: Case) -> dict[str, Any]:
    code = coco.frPyObjects(mask, case.height, case.width)
    return {"size": mask["size"], "counts": code["counts"].decode("ascii")}


def _data_set(case: Case, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "info": {"description": "generated"},
        "videos": [
            {
                "id": video,
                "width": case.width,
                "height": case.height,
                "length": case.frames,
                "file_names": [f"{video:05d}/{t:05d}.jpg" for t in range(case.frames)],
            }
            for video in range(1, case.videos + 1)
        ],
        "categories": [{"id": k, "name": f"class{k:02d}"} for k in range(1, case.classes + 1)],
        "annotations": annotations,
    }
