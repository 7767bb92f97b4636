"""Small scenes of moving rectangles as YouTube-VIS JSON, and the golden cases of the metric's rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco

Json = dict[str, Any]


def rle(mask: np.ndarray) -> Json:
    """A binary mask [H, W] as JSON holds it."""
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": code["counts"].decode("ascii")}


def box(x: int, y: int, width: int, height: int, size: tuple[int, int]) -> np.ndarray:
    """A filled rectangle, cut off at the frame."""
    mask = np.zeros(size, bool)
    mask[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = True
    return mask


def data_set(
    videos: dict[int, int], tracks: list[Json], size: tuple[int, int], categories: tuple[int, ...] = (1,)
) -> Json:
    """Truth: `videos` maps ids to lengths; tracks hold video_id, category_id and masks (arrays, None where absent)."""
    listed = [
        {
            "id": number,
            "height": size[0],
            "width": size[1],
            "length": length,
            "file_names": [f"v{number}/{t:05d}.jpg" for t in range(length)],
        }
        for number, length in videos.items()
    ]
    annotations = []
    for number, track in enumerate(tracks, 1):
        masks = track["masks"]
        annotations.append(
            {
                "id": track.get("id", number),
                "video_id": track["video_id"],
                "category_id": track["category_id"],
                "iscrowd": track.get("iscrowd", 0),
                "segmentations": [None if mask is None else rle(mask) for mask in masks],
                "areas": [None if mask is None else int(mask.sum()) for mask in masks],
                "bboxes": [None] * len(masks),
            }
        )
    named = [{"id": category, "name": f"class{category}"} for category in categories]
    return {"videos": listed, "categories": named, "annotations": annotations}


def results(tracks: list[Json]) -> list[Json]:
    """A bare result list."""
    return [
        {
            "video_id": track["video_id"],
            "category_id": track["category_id"],
            "score": track["score"],
            "segmentations": [None if mask is None else rle(mask) for mask in track["masks"]],
        }
        for track in tracks
    ]


def random_scene(
    rng: np.random.Generator, *, videos: int = 3, size: tuple[int, int] = (300, 320), guesses: int = 6
) -> tuple[Json, list[Json]]:
    """Truth with crowds, absences, all sizes of object and odd ids; predictions near it, doubled, tied and stray."""
    ids = [int(n) for n in rng.choice(np.arange(1, 90), videos, replace=False)]
    categories = (3, 7, 40)
    truths, found = [], []
    lengths = {number: int(rng.integers(1, 5)) for number in ids}
    for number, length in lengths.items():
        for _ in range(int(rng.integers(0, 4))):
            place = _Place.draw(rng, size, length)
            category = int(rng.choice(categories))
            truths.append(
                {
                    "video_id": number,
                    "category_id": category,
                    "iscrowd": int(rng.random() < 0.15),
                    "masks": place.masks(size),
                }
            )
            for _ in range(int(rng.integers(0, 3))):
                near = place.near(rng)
                kind = category if rng.random() < 0.85 else int(rng.choice(categories))
                found.append(_guess(number, kind, near.masks(size), rng))
        for _ in range(int(rng.integers(0, guesses))):
            stray = _Place.draw(rng, size, length)
            found.append(_guess(number, int(rng.choice(categories)), stray.masks(size), rng))
    order = rng.permutation(len(found))
    return data_set(lengths, truths, size, categories), results([found[n] for n in order])


def _guess(video: int, category: int, masks: list[Any], rng: np.random.Generator) -> Json:
    score = round(float(rng.random()), 1)  # many ties
    return {"video_id": video, "category_id": category, "score": score, "masks": masks}


class _Place:
    def __init__(self, corner: np.ndarray, extent: np.ndarray, speed: np.ndarray, present: np.ndarray) -> None:
        self.corner, self.extent, self.speed, self.present = corner, extent, speed, present

    @classmethod
    def draw(cls, rng: np.random.Generator, size: tuple[int, int], length: int) -> _Place:
        extent = rng.integers(1, 300, 2) if rng.random() < 0.5 else rng.integers(1, 60, 2)
        corner = rng.integers(-10, max(1, min(size) - 20), 2)
        return cls(corner, extent, rng.integers(-12, 13, 2), rng.random(length) < 0.85)

    def near(self, rng: np.random.Generator) -> _Place:
        corner = self.corner + rng.integers(-6, 7, 2)
        extent = np.maximum(self.extent + rng.integers(-6, 7, 2), 1)
        flips = rng.random(len(self.present)) < 0.1
        return _Place(corner, extent, self.speed, self.present ^ flips)

    def masks(self, size: tuple[int, int]) -> list[np.ndarray | None]:
        frames = []
        for t, present in enumerate(self.present):
            x, y = (int(v) for v in self.corner + t * self.speed)
            frames.append(box(x, y, int(self.extent[0]), int(self.extent[1]), size) if present else None)
        return frames
