"""Videos at the edges, learned and predicted: one frame, shorter than a clip, upright, no object, twenty objects."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tubelet.core import masks
from tubelet.core.masks import spatio_temporal_iou
from tubelet.core.types import Clip, Track, Video, VideoSet
from tubelet.data.clips import ClipDataset
from tubelet.inference.predict import predict
from tubelet.models.tags.model import TagModel
from tubelet.models.tags.network import TagOutput
from tubelet.recipes.experiment import Experiment
from tubelet.recipes.tags import GENERATED, PAPER_GENERATED

Build = Callable[..., TagModel]

CLASSES = ("dog", "cat", "car")
WIDE, UPRIGHT = (64, 96), (96, 64)
EDGES: dict[str, tuple[int, tuple[int, int], int]] = {  # frames, size, objects
    "one frame": (1, WIDE, 2),
    "shorter than a clip": (3, WIDE, 2),
    "upright": (9, UPRIGHT, 2),
    "no object": (9, WIDE, 0),
    "twenty objects of one class": (9, WIDE, 20),
}


def video(frames: int, size: tuple[int, int], objects: int) -> Video:
    """Squares in rows on a dark ground, all of the class cat; those of number n have 200 + n in red."""
    images = torch.full((frames, 3, *size), 30, dtype=torch.uint8)
    planes = np.zeros((objects, *size), bool)
    columns = size[1] // 16
    for n in range(objects):
        top = 16 * (n // columns) + 2
        left = 16 * (n % columns) + 2
        planes[n, top : top + 12, left : left + 12] = True
        images[:, 0, top : top + 12, left : left + 12] = 200 + n
    tracks = tuple(
        Track(id=n + 1, label=1, score=1.0, rles=tuple(masks.encode(plane[None]) * frames))
        for n, plane in enumerate(planes)
    )
    return Video(id="edge", size=size, frames=list(images), tracks=tracks)


class Seeing(TagModel):
    """A perfect network: reads the number of an object off its colour."""

    def look(self, clip: Clip) -> TagOutput:
        red = clip.frames[:, 0].float()
        height, width = self.config.input_size
        if clip.size[0] > clip.size[1]:
            height, width = width, height
        red = torch.nn.functional.interpolate(red[None], (height, width), mode="nearest")[0]
        probabilities = torch.full((1, 1 + len(CLASSES), *red.shape), 0.001)
        probabilities[0, 0] = torch.where(red < 100, 0.99, 0.01)
        probabilities[0, 2] = torch.where(red < 100, 0.01, 0.99)
        return TagOutput(3 * red[None, None], probabilities.log())


@pytest.mark.parametrize("name", EDGES)
def test_objects_of_a_video_at_the_edges_are_found_with_their_masks(name: str, build: Build) -> None:
    truth = video(*EDGES[name])
    torch.manual_seed(0)
    model = Seeing(build("input_size=[64,96]", "window.length=6").config, CLASSES).eval()
    found = predict(model, truth).tracks
    assert truth.tracks is not None
    assert len(found) == len(truth.tracks)
    assert {track.label for track in found} <= {1}
    for track in truth.tracks:
        assert max(spatio_temporal_iou(track.rles, other.rles) for other in found) > 0.9


@pytest.mark.parametrize("recipe", [GENERATED, PAPER_GENERATED], ids=["trunk", "paper"])
def test_videos_at_the_edges_are_learned_from(recipe: Experiment) -> None:
    videos = [video(*edge) for edge in EDGES.values()]
    dataset = ClipDataset(VideoSet(videos=videos, classes=CLASSES), recipe.sampler, recipe.transforms, 0)
    model = recipe.model.build(CLASSES).train()
    for n in range(len(videos)):
        losses = model([dataset[n]])
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("recipe", [GENERATED, PAPER_GENERATED], ids=["trunk", "paper"])
@pytest.mark.parametrize("name", EDGES)
def test_the_recipes_predict_videos_at_the_edges_whole(name: str, recipe: Experiment) -> None:
    truth = video(*EDGES[name])
    prediction = predict(recipe.model.build(CLASSES).eval(), truth, threshold=0.0)
    assert (prediction.length, prediction.size) == (len(truth), truth.size)
    assert len({track.id for track in prediction.tracks}) == len(prediction.tracks)
