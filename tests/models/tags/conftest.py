"""Small tag-based models and clips of moving squares: whole in structure, quick on one core."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from tubelet.core.types import Clip, Tracks
from tubelet.models.tags.model import TagConfig, TagModel

CLASSES = ("dog", "cat", "car")
SMALL = (
    "input_size=[32,48]",
    "channels=8",
    "bottleneck=12",
    "generator=6",
    "tag_features=6",
    "encoder.width=4",
    "encoder.blocks=[1,1,1]",
    "encoder.pool=false",
    "decoder.widths=[8,6,4]",
)
Build = Callable[..., TagModel]
MakeClip = Callable[..., Clip]


@pytest.fixture(scope="session")
def build() -> Build:
    """A small model with given fields changed, always with the same random start, in evaluation mode."""

    def one(*overrides: str, classes: tuple[str, ...] = CLASSES) -> TagModel:
        torch.manual_seed(0)
        return TagConfig().override(*SMALL, *overrides).build(classes).eval()

    return one


@pytest.fixture(scope="session")
def make_clip() -> MakeClip:
    """A clip with squares in noise; `labels` one per object, -1 for a crowd; each moves a pixel a frame."""

    def one(
        labels: Sequence[int] = (0, 2),
        frames: int = 4,
        size: tuple[int, int] = (40, 60),
        key: Sequence[bool] | None = None,
        first: int = 0,
    ) -> Clip:
        noise = torch.randint(0, 256, (frames, 3, *size), generator=torch.Generator().manual_seed(0))
        masks = torch.zeros(len(labels), frames, *size, dtype=torch.uint8)
        for n in range(len(labels)):
            for t in range(frames):
                top, left = 12 * n % (size[0] - 12), (17 * n + t) % (size[1] - 12)
                masks[n, t, top : top + 12, left : left + 12] = 1
        scores = torch.zeros(len(labels), len(CLASSES))
        for n, label in enumerate(labels):
            if label >= 0:
                scores[n, label] = 1
        index = torch.arange(first, first + frames)
        return Clip(
            frames=noise.to(torch.uint8),
            index=index,
            key=torch.tensor(key if key is not None else [True] * frames),
            tracks=Tracks(ids=torch.arange(1, len(labels) + 1), scores=scores, masks=masks, index=index),
        )

    return one
