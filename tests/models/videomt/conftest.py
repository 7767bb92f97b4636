"""VidEoMT at a thousandth of its size, and clips with rectangles in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from tubelet.core.types import Clip, Tracks
from tubelet.models.inputs import Fit, InputConfig
from tubelet.models.queries.criterion import CriterionConfig
from tubelet.models.videomt.encoder import ViTConfig
from tubelet.models.videomt.identities import IdentityConfig
from tubelet.models.videomt.masking import MaskingConfig
from tubelet.models.videomt.model import VidEoMT, VidEoMTConfig

CLASSES = ("dog", "cat", "car")
SIZE = (64, 96)

Box = tuple[int, int, int, int] | None  # left, top, right, bottom; None where absent
Build = Callable[..., VidEoMT]
MakeClip = Callable[..., Clip]

SMALL = VidEoMTConfig(
    encoder=ViTConfig(channels=32, layers=4, query_layers=2, heads=4, size=SIZE, layer_scale=0.5),
    input=InputConfig(resize=Fit(height=SIZE[0], width=SIZE[1])),
    queries=6,
    criterion=CriterionConfig(points=64),
    masking=MaskingConfig(batches=12),
    identities=IdentityConfig(score=0.0),
)


@pytest.fixture(scope="session")
def build() -> Build:
    """A small model with given fields changed, always with the same random start; in evaluation mode."""

    def one(*overrides: str) -> VidEoMT:
        torch.manual_seed(0)
        model = SMALL.override(*overrides).build(CLASSES).eval()
        torch.nn.init.normal_(model.network.query.weight)
        return model

    return one


@pytest.fixture(scope="session")
def make_clip() -> MakeClip:
    """A clip of noise with objects (label, box in every frame); label -1 is a crowd."""

    def one(
        *objects: tuple[int, Sequence[Box]],
        frames: int = 2,
        size: tuple[int, int] = SIZE,
        seed: int = 0,
        first: int = 0,
    ) -> Clip:
        pixels = torch.randint(0, 256, (frames, 3, *size), generator=torch.Generator().manual_seed(seed))
        masks = torch.zeros(len(objects), frames, *size, dtype=torch.uint8)
        scores = torch.zeros(len(objects), len(CLASSES))
        for n, (label, boxes) in enumerate(objects):
            if label >= 0:
                scores[n, label] = 1
            for t, box in enumerate(boxes):
                if box is not None:
                    masks[n, t, box[1] : box[3], box[0] : box[2]] = 1
        index = torch.arange(first, first + frames)
        tracks = Tracks(ids=torch.arange(len(objects)), scores=scores, masks=masks, index=index)
        return Clip(frames=pixels.to(torch.uint8), index=index, key=torch.ones(frames, dtype=torch.bool), tracks=tracks)

    return one
