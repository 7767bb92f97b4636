"""Clips and small data sets that the tests of this room share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tubelet.core import masks
from tubelet.core.types import Clip, Tracks, Video, VideoSet
from tubelet.formats import coco
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate

MakeClip = Callable[..., Clip]


@pytest.fixture(scope="session")
def make_clip() -> MakeClip:
    """`make_clip(size, length, seed)`: smooth random frames with two discs and a bar, each moving."""

    def make(size: tuple[int, int] = (40, 56), length: int = 3, seed: int = 0) -> Clip:
        rng = np.random.default_rng(seed)
        height, width = size
        frames = np.stack([_smooth_image(rng, size) for _ in range(length)])
        rows, columns = np.mgrid[:height, :width] + 0.5
        shapes = []
        for n in range(3):
            y, x = rng.uniform(0.3, 0.7, 2) * size
            for t in range(length):
                if n < 2:
                    shapes.append((rows - y) ** 2 + (columns - x - 2 * t) ** 2 < (0.2 * height) ** 2)
                else:
                    shapes.append((abs(rows - y) < 3) & (abs(columns - x) < 0.3 * width))
        index = torch.arange(length)
        tracks = Tracks(
            ids=torch.tensor([4, 7, 9]),
            scores=torch.eye(5)[[1, 1, 3]],
            masks=torch.from_numpy(np.array(shapes).reshape(3, length, height, width)),
            index=index,
        )
        key = torch.ones(length, dtype=torch.bool)
        return Clip(frames=torch.from_numpy(frames).permute(0, 3, 1, 2), index=index, key=key, tracks=tracks)

    return make


def _smooth_image(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="session")
def generated() -> VideoSet:
    """Four small generated videos."""
    config = Synthetic(height=48, width=80, frames=6, objects=(2, 3), size=(0.4, 0.7), occluders=(0, 1), leaving=0.0)
    return generate(config, seed=5, videos=4)


@pytest.fixture(scope="session")
def coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hand-made COCO data set: three images, categories out of order, a crowd, a polygon, an image with no object."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    sizes = {11: (30, 40), 5: (24, 32), 8: (20, 20)}
    for number, size in sizes.items():
        cv2.imwrite(str(folder / "images" / f"{number:06d}.png"), _smooth_image(rng, size))
    square = np.zeros((1, 30, 40), bool)
    square[0, 5:15, 10:25] = True
    code = masks.to_json(masks.encode(square)[0])
    tree = {
        "images": [
            {"id": number, "file_name": f"{number:06d}.png", "height": size[0], "width": size[1]}
            for number, size in sizes.items()
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 11, "category_id": 7, "iscrowd": 0, "segmentation": code},
            {"id": 2, "image_id": 11, "category_id": 2, "iscrowd": 0, "segmentation": [[4, 16, 14, 16, 14, 28, 4, 28]]},
            {
                "id": 3,
                "image_id": 11,
                "category_id": 2,
                "iscrowd": 1,
                "segmentation": {"size": [30, 40], "counts": [1100, 100]},
            },
            {"id": 4, "image_id": 5, "category_id": 2, "iscrowd": 0, "segmentation": [[2, 2, 20, 2, 20, 20, 2, 20]]},
        ],
    }
    (folder / "instances.json").write_text(json.dumps(tree))
    return folder


@pytest.fixture(scope="session")
def coco_set(coco_folder: Path) -> VideoSet:
    """The hand-made COCO data set, read."""
    return coco.read(coco_folder / "instances.json")


@pytest.fixture
def one_video(generated: VideoSet) -> Video:
    """One generated video."""
    return generated.videos[0]
