"""Small models of the R-CNN family and clips with squares in them: whole in structure, quick on one core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache

import pytest
import torch
from torch import Tensor

from tubelet.core.types import Clip, Tracks
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import InputConfig, KeepRatio
from tubelet.models.rcnn.detectors.two_stage import TwoStage, TwoStageConfig
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN

CLASSES = ("dog", "cat", "car")
HEIGHT, WIDTH = 64, 96

TWO_STAGE = TwoStageConfig(
    input=InputConfig(resize=KeepRatio(long=WIDTH, short=HEIGHT)),
    backbone=BackboneConfig(name="resnet18"),
    channels=16,
    box_channels=32,
    proposals=40,
    proposals_per_level=40,
    anchors_sampled=32,
    regions_sampled=32,
)

Square = tuple[int, int, int, int, int]  # id, label (-1: a crowd), left, top, side
Build = Callable[..., MaskTrackRCNN]
MakeClip = Callable[..., Clip]


@pytest.fixture(scope="session")
def small_config() -> MaskTrackConfig:
    """MaskTrack R-CNN in its own structure, a thousandth of its size."""
    return MaskTrackConfig(
        detector=TWO_STAGE,
        mask=MaskHeadConfig(convs=1, channels=16),
        match=FullyConnectedMatchConfig(channels=32),
    )


@pytest.fixture(scope="session")
def build(small_config: MaskTrackConfig) -> Build:
    """A small model with given fields changed, always with the same random start; in evaluation mode."""

    @cache
    def made(*overrides: str) -> MaskTrackRCNN:
        torch.manual_seed(0)
        return spread(small_config.override(*overrides).build(CLASSES)).eval()

    def one(*overrides: str) -> MaskTrackRCNN:
        return deepcopy(made(*overrides))  # a tenth of the time that random numbers take

    return one


def spread(model: MaskTrackRCNN) -> MaskTrackRCNN:
    """A random start gives every region nearly the same score; scaled, no order hangs on the last bit."""
    if isinstance(model.detector, TwoStage):
        parts = model.detector.box_predictor, model.detector.rpn.head
        scaled = {parts[0].cls_score: 700, parts[0].bbox_pred: 500, parts[1].cls_logits: 1000}
        with torch.no_grad():
            for layer, factor in scaled.items():
                layer.weight *= factor
    return model


def _paint(squares: Sequence[Square], frame: Tensor, mask: dict[int, Tensor]) -> None:
    for one, label, left, top, side in squares:
        area = (slice(top, top + side), slice(left, left + side))
        frame[(slice(None), *area)] = torch.tensor([(70 * label + 60) % 256, 40 * one % 256, 200]).view(3, 1, 1)
        mask[one][area] = 1


@pytest.fixture(scope="session")
def make_clip() -> MakeClip:
    """A clip of frames with squares in noise, and their truth; a square with label -1 is a crowd."""

    def one(*frames: Sequence[Square], key: Sequence[bool] | None = None, first: int = 0, seed: int = 0) -> Clip:
        noise = torch.randint(0, 256, (len(frames), 3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(seed))
        labels = {s[0]: s[1] for squares in frames for s in squares}
        ids = sorted(labels)
        masks = torch.zeros(len(ids), len(frames), HEIGHT, WIDTH, dtype=torch.uint8)
        scores = torch.zeros(len(ids), len(CLASSES))
        for i, identity in enumerate(ids):
            if labels[identity] >= 0:
                scores[i, labels[identity]] = 1
        pixels = noise.to(torch.uint8)
        for t, squares in enumerate(frames):
            _paint(squares, pixels[t], {identity: masks[i, t] for i, identity in enumerate(ids)})
        index = torch.arange(first, first + len(frames))
        return Clip(
            frames=pixels,
            index=index,
            key=torch.tensor(key if key is not None else [True] * len(frames)),
            tracks=Tracks(ids=torch.tensor(ids, dtype=torch.int64), scores=scores, masks=masks, index=index),
        )

    return one
