"""Plugs of another package: a neck, a mask head and a match head that the host has never heard of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Glance
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.models.rcnn.context import FrameFeatures, Size
from tubelet.models.rcnn.detectors.detector import Detections, Detector, Features
from tubelet.models.rcnn.glances import Point, glances_over
from tubelet.models.rcnn.heads.paste import FrameMasks
from tubelet.models.rcnn.heads.sockets import Batch, MaskConfig, MaskPlug, MatchConfig, MatchPlug, View
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.rcnn.neck import NeckConfig, NeckPlug
from tubelet.models.rcnn.targets import Partners

MakeClip = Callable[..., Clip]

DOG, CAT = (7, 0, 6, 6, 30), (8, 1, 50, 20, 34)


class ScalingNeckConfig(NeckConfig):
    kind: Literal["scaling"] = "scaling"
    start: float = 1.1

    def attach(self, detector: Detector) -> ScalingNeck:
        return ScalingNeck(self)


class ScalingNeck(NeckPlug):
    """Multiplies all maps by one number, and adds a little of the frame before."""

    def __init__(self, config: ScalingNeckConfig) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(config.start))

    def refine_batch(self, raw: Features, sizes: list[Size], partners: Partners) -> Features:
        return self._scaled(raw, raw.maps)

    def refine_frame(self, raw: Features, frame: FrameFeatures, past: list[FrameFeatures]) -> Features:
        return self._scaled(raw, past[-1].maps if past else raw.maps)

    def glances(self, raw: Features, frame: FrameFeatures, past: list[FrameFeatures], at: Point) -> list[Glance]:
        return glances_over("scaling", torch.ones(1, *raw.maps[0].shape[-2:]), past[-1:], 4)

    def _scaled(self, raw: Features, before: list[Tensor]) -> Features:
        maps = [own * self.factor + 0.01 * other for own, other in zip(raw.maps, before, strict=True)]
        return replace(raw, maps=maps, taps=maps)


class BoxMaskConfig(MaskConfig):
    kind: Literal["boxes"] = "boxes"

    def build(self, channels: int, num_classes: int) -> BoxMask:
        return BoxMask(channels)


class BoxMask(MaskPlug):
    """One probability for the whole of a box, and a score that follows it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fill = nn.Linear(channels, 1)
        nn.init.constant_(self.fill.bias, 2.0)

    def losses(self, batch: Batch) -> Losses:
        samples = batch.samples
        boxes = [s.boxes for s in samples.values()]
        logits = self._logits(batch.cells(list(samples), boxes, 3))
        share = batch.masks(samples, boxes, 3).mean((1, 2))
        return {"fill": F.binary_cross_entropy_with_logits(logits, share) if len(share) else logits.sum() * 0}

    def inside(self, view: View, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._logits(view.cells(boxes, 3))
        return boxes, logits.sigmoid()[:, None, None].expand(-1, 3, 3)

    def rescored(self, found: Detections, masks: FrameMasks) -> Detections:
        return replace(found, scores=found.scores * 0.5)

    def _logits(self, cells: Tensor) -> Tensor:
        logits: Tensor = self.fill(cells.mean((2, 3)))[:, 0]
        return logits


class CentreMatchConfig(MatchConfig):
    kind: Literal["centres"] = "centres"

    def build(self, channels: int, strides: list[int]) -> CentreMatch:
        return CentreMatch(channels)


class CentreMatch(MatchPlug):
    """Compares mean colours of regions, so to speak: as similar as their distance is small."""

    resolution = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(channels))
        self.new = nn.Parameter(torch.tensor(-4.0))

    def describe(self, regions: Tensor) -> Tensor:
        return regions.mean((2, 3)) * self.weights

    def compare(self, features: Features, boxes: Tensor, current: Tensor, known: Tensor) -> Tensor:
        near = -torch.cdist(F.normalize(current), F.normalize(known))
        return torch.cat([self.new.expand(len(current), 1), near], 1)


TOYS = ('neck={"kind": "scaling"}', 'mask={"kind": "boxes"}', 'match={"kind": "centres"}')


@pytest.fixture(scope="module")
def toys(small_config: MaskTrackConfig) -> MaskTrackRCNN:
    torch.manual_seed(0)
    return small_config.override(*TOYS, "detector.score_threshold=0.2").build(("dog", "cat", "car"))


def test_the_host_trains_plugs_that_it_does_not_know(toys: MaskTrackRCNN, make_clip: MakeClip) -> None:
    toys.train()
    clips = [make_clip((DOG, CAT), (DOG, CAT), key=[False, True], seed=n) for n in range(2)]
    names = [n for n, _ in toys.named_parameters() if n.startswith(("neck.", "mask.", "match."))]
    before = {n: p.detach().clone() for n, p in toys.named_parameters()}
    optimizer = torch.optim.SGD(toys.parameters(), lr=1e-3)
    torch.manual_seed(0)
    for _ in range(2):
        losses = toys(clips)
        assert {"fill", "match"} <= losses.keys()
        assert all(loss.isfinite() for loss in losses.values())
        optimizer.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        assert all(p.grad is not None and p.grad.any() for n, p in toys.named_parameters() if n in names)
        optimizer.step()
    assert names == ["neck.factor", "mask.fill.weight", "mask.fill.bias", "match.weights", "match.new"]
    assert all(not torch.equal(before[n], p) for n, p in toys.named_parameters() if n in names)


def test_the_host_follows_an_object_by_plugs_that_it_does_not_know(toys: MaskTrackRCNN, make_clip: MakeClip) -> None:
    toys.eval()
    still = make_clip((DOG,), (DOG,), (DOG,))
    frames = [Clip(frames=still.frames[:1], index=torch.tensor([t]), key=torch.tensor([True])) for t in range(3)]
    state, seen = toys.start(), []
    with torch.inference_mode():
        for frame in frames:
            state, tracks = toys.step(state, frame)
            seen.append(tracks)
    assert all(len(tracks) > 0 for tracks in seen)
    assert set(seen[1].ids.tolist()) == set(seen[2].ids.tolist()) <= set(state.ids.tolist())
    assert bool(seen[2].binary.any())
    assert float(seen[2].scores.max()) <= 0.5  # rescored by the mask head
    assert [kept.index for kept in state.frames] == [2]  # what the neck looks at
    assert [glance.frame for glance in _looked(toys, still)] == [0]


def _looked(model: MaskTrackRCNN, clip: Clip) -> list[Glance]:
    with torch.inference_mode():
        return model.attend(model.start(), clip, 1, (20.0, 20.0))


def test_a_clip_of_frames_gives_what_the_frames_give(toys: MaskTrackRCNN, make_clip: MakeClip) -> None:
    toys.eval()
    clip = make_clip((DOG, CAT), (DOG, CAT))
    with torch.inference_mode():
        _, whole = toys.step(toys.start(), clip)
    assert isinstance(whole, Tracks)
    assert whole.masks.shape[1:] == (2, *clip.size)


def test_configs_of_such_plugs_go_through_files_and_overrides(small_config: MaskTrackConfig) -> None:
    config = small_config.override(*TOYS, "neck.start=1.3")
    assert config.neck == ScalingNeckConfig(start=1.3)
    again = MaskTrackConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert '"neck":{"kind":"scaling","start":1.3}' in config.model_dump_json()
    with pytest.raises(ConfigError, match="no field 'strat' in neck; did you mean 'start'"):
        config.override("neck.strat=1")
    with pytest.raises(ConfigError, match="neck: unknown kind 'scalling'; did you mean 'scaling'"):
        small_config.override('neck={"kind": "scalling"}')


def test_a_plug_fits_its_own_socket_alone(small_config: MaskTrackConfig) -> None:
    with pytest.raises(ConfigError, match="match: unknown kind 'boxes'; known: centres, correlation, fully_connected"):
        small_config.override('match={"kind": "boxes"}')


def test_files_of_the_first_version_name_no_kind_of_mask_head() -> None:
    assert MaskTrackConfig.model_validate({"mask": {"convs": 2}}) == MaskTrackConfig.model_validate(
        {"mask": {"kind": "cells", "convs": 2}}
    )
