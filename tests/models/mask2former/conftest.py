"""Both systems at a thousandth of their size, and clips with rectangles in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from tubelet.attention.ifr import RecurrentConfig
from tubelet.core.types import Clip, Tracks
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import InputConfig, KeepRatio
from tubelet.models.mask2former.decoder import JointConfig
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.models.mask2former.model import Mask2Former, Mask2FormerConfig
from tubelet.models.mask2former.pixel_decoder import PixelDecoderConfig
from tubelet.models.queries.criterion import CriterionConfig

CLASSES = ("dog", "cat", "car")
HEIGHT, WIDTH = 64, 96

Box = tuple[int, int, int, int] | None  # left, top, right, bottom; None where absent
Build = Callable[..., Mask2Former]
MakeClip = Callable[..., Clip]

SMALL = Mask2FormerConfig(
    backbone=BackboneConfig(name="resnet18", frozen_stages=0),
    input=InputConfig(resize=KeepRatio(long=WIDTH, short=HEIGHT)),
    pixel_decoder=PixelDecoderConfig(channels=32, layers=1, feed_forward=32, groups=4),
    queries=6,
    criterion=CriterionConfig(points=64),
)
DECODERS = {
    "joint": JointConfig(layers=3, heads=4, feed_forward=32),
    "inter_frame": InterFrameConfig(layers=3, layer=RecurrentConfig(heads=4, feed_forward=32)),
}


@pytest.fixture(scope="session")
def build() -> Build:
    """A small model of a system with given fields changed, always with the same random start; in evaluation mode."""

    def one(system: str, *overrides: str) -> Mask2Former:
        torch.manual_seed(0)
        config = SMALL.but(decoder=DECODERS[system]).override(*overrides)
        return config.build(CLASSES).eval()

    return one


@pytest.fixture(scope="session")
def make_clip() -> MakeClip:
    """A clip of noise with objects (label, box in every frame); label -1 is a crowd."""

    def one(
        *objects: tuple[int, Sequence[Box]], frames: int = 2, size: tuple[int, int] = (HEIGHT, WIDTH), seed: int = 0
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
        index = torch.arange(frames)
        tracks = Tracks(ids=torch.arange(len(objects)), scores=scores, masks=masks, index=index)
        return Clip(frames=pixels.to(torch.uint8), index=index, key=torch.ones(frames, dtype=torch.bool), tracks=tracks)

    return one
