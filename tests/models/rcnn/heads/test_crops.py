"""The mask head that looks at pixels: what it cuts, its sizes, its start, and how it learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tubelet.core.boxes import grow
from tubelet.core.errors import ConfigError
from tubelet.core.types import Clip
from tubelet.models.rcnn.detectors.detector import Samples
from tubelet.models.rcnn.heads.crops import (
    CropMaskConfig,
    Trunk,
    cut,
    drawn,
    outline_loss,
    sureness,
    tight,
    views,
)
from tubelet.models.rcnn.heads.paste import Extent, FrameMasks
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.weights import start_from

Build = Callable[..., MaskTrackRCNN]
MakeClip = Callable[..., Clip]

CROPS = ('mask={"kind": "crops", "size": 32, "channels": [8, 8, 16], "sampled": 3}',)
DOG, CAT = (7, 0, 6, 6, 30), (8, 1, 50, 20, 34)


# cutting


def test_a_region_of_its_own_size_is_cut_pixel_by_pixel() -> None:
    frame = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    crop = cut([frame], [torch.tensor([[8.0, 4.0, 40.0, 36.0]])], 64)
    # half a pixel wide, a cell averages two points on either side of its middle: neighbours mix, their mean does not
    mean = F.avg_pool2d(crop, 2)[0, :, 1:-1, 1:-1]
    pixels = (frame.float() - 127.5) / 127.5
    blurred = F.avg_pool2d(crop, 8)[0]
    assert mean.shape == (3, 30, 30)
    assert (blurred - F.avg_pool2d(pixels[:, 4:36, 8:40], 4)).abs().max() < 0.3


def test_what_lies_outside_the_frame_is_grey() -> None:
    frame = torch.full((3, 20, 20), 255, dtype=torch.uint8)
    crop = cut([frame], [torch.tensor([[-20.0, 0.0, 20.0, 20.0]])], 32)
    assert crop[..., :14].abs().max() == 0
    assert crop[..., 18:].min() == 1


def test_regions_come_in_the_order_of_their_frames() -> None:
    frames = [torch.full((3, 16, 16), value, dtype=torch.uint8) for value in (0, 255)]
    box = torch.tensor([[2.0, 2.0, 12.0, 12.0]])
    crops = cut(frames, [box.expand(2, 4), box], 16)
    assert crops.mean((1, 2, 3)).tolist() == [-1, -1, 1]
    assert len(cut(frames, [box[:0], box[:0]], 16)) == 0


# the network


def test_masks_have_half_as_many_cells_as_crops_have_pixels() -> None:
    for size in (32, 48, 112):
        config = CropMaskConfig(size=size, channels=(8, 8, 16))
        head = config.build(4, 5)
        for number in (0, 2):
            cells = torch.zeros(number, 4, config.resolution, config.resolution)
            assert head(cells, torch.zeros(number, 3, size, size)).shape == (number, 1, size // 2, size // 2)


@pytest.mark.parametrize("size", [32, 112])
def test_the_trunk_gives_the_same_numbers_with_and_without_gradients(size: int) -> None:
    # the strided depthwise convolutions take another way where a gradient is wanted
    trunk, crops = Trunk(frozen_stages=0).eval(), torch.randn(2, 3, size, size)
    with torch.no_grad():
        plain = trunk(crops)
    for one, other in zip(trunk(crops), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_frozen_stages_get_no_gradient_and_norms_hold_their_statistics() -> None:
    head = CropMaskConfig(size=32, channels=(8, 8, 16), frozen_stages=2).build(4, 5).train()
    before = {name: b.clone() for name, b in head.named_buffers()}
    head(torch.randn(2, 4, 4, 4), torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(torch.equal(b, before[name]) for name, b in head.named_buffers())
    held = {name for name, p in head.named_parameters() if p.grad is None}
    assert held == {name for name, p in head.named_parameters() if not p.requires_grad}
    assert {".".join(name.split(".")[:3]) for name in held if "blocks" in name} == {
        "encoder.blocks.0",
        "encoder.blocks.1",
    }


# boxes of masks


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=4, max_size=4), st.floats(-50, 50), st.floats(1, 90))
def test_the_box_of_a_mask_lies_where_its_cells_do(cells: list[int], corner: float, extent: float) -> None:
    (x1, x2), (y1, y2) = sorted(cells[:2]), sorted(cells[2:])
    inside = torch.zeros(1, 8, 8)
    inside[0, y1 : y2 + 1, x1 : x2 + 1] = 0.9
    region = torch.tensor([[corner, corner + 1, corner + extent, corner + 1 + 2 * extent]])
    step = extent / 8
    wanted = [
        corner + x1 * step,
        corner + 1 + 2 * y1 * step,
        corner + (x2 + 1) * step,
        corner + 1 + 2 * (y2 + 1) * step,
    ]
    torch.testing.assert_close(tight(inside, region)[0], torch.tensor(wanted), rtol=1e-4, atol=1e-3)


def test_an_empty_mask_keeps_its_region() -> None:
    region = torch.tensor([[3.0, 4.0, 20.0, 30.0]])
    assert torch.equal(tight(torch.zeros(1, 8, 8), region), region)


# learning


def test_the_loss_is_small_for_the_truth_and_large_for_its_opposite() -> None:
    goal = (torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert outline_loss((goal - 0.5) * 40, goal) < 1e-3
    assert outline_loss((0.5 - goal) * 40, goal) > 10
    assert outline_loss(torch.full((1, 8, 8), -20.0), torch.zeros(1, 8, 8)) < 1e-3


def test_the_dice_part_is_the_share_that_is_not_shared() -> None:
    logits, goal = torch.randn(2, 4, 4), torch.zeros(2, 4, 4)
    goal[:, :2] = 1
    parts = []
    for one, truth in zip(logits, goal, strict=True):
        p = one.sigmoid()
        parts.append(1 - (2 * float((p * truth).sum()) + 1) / (float(p.sum() + truth.sum()) + 1))
    own = outline_loss(logits, goal) - F.binary_cross_entropy_with_logits(logits, goal)
    assert own.item() == pytest.approx(sum(parts) / 2, abs=1e-6)


def test_no_more_regions_than_asked_for_learn_and_large_ones_rather_than_small() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 20 + [[0.0, 0.0, 100.0, 100.0]] * 20)
    samples = Samples(boxes=boxes, matched=torch.arange(40), drawn=40)
    torch.manual_seed(0)
    few = drawn(samples, 10)
    assert len(few.boxes) == len(few.matched.unique()) == 10
    assert torch.equal(few.boxes, boxes[few.matched])
    assert (few.matched >= 20).sum() >= 8
    assert drawn(samples, 40) is samples


def test_a_model_with_it_learns_with_every_part_of_the_head(build: Build, make_clip: MakeClip) -> None:
    model = build(*CROPS).train()
    for frames in (((DOG, CAT), (DOG, CAT)), ((), ())):
        model.zero_grad()
        losses = model([make_clip(*frames)])
        assert all(v.isfinite() for v in losses.values())
        sum(losses.values(), torch.zeros(())).backward()
        assert [n for n, p in model.mask.named_parameters() if p.requires_grad and p.grad is None] == []


# asking


def test_masks_lie_in_the_whole_frame(build: Build, make_clip: MakeClip) -> None:
    model, clip = build(*CROPS, "detector.score_threshold=0.0").eval(), make_clip((DOG, CAT), (DOG, CAT))
    with torch.inference_mode():
        _, tracks = model.step(model.start(), clip)
    assert len(tracks) > 0
    assert tracks.masks.shape[1:] == (2, *clip.size)


def test_a_second_look_moves_to_where_the_first_mask_was(build: Build, make_clip: MakeClip) -> None:
    clip = make_clip((DOG, CAT))
    masks = []
    for looks in (0.0, 1.0):
        torch.manual_seed(0)
        model = build(*CROPS, "detector.score_threshold=0.0", f"mask.second_look={looks}").eval()
        with torch.inference_mode():
            masks.append(model.step(model.start(), clip)[1].masks)
    assert masks[0].shape == masks[1].shape
    assert not torch.equal(*masks)


def test_a_stored_config_without_a_kind_means_the_head_of_the_papers() -> None:
    read = MaskTrackConfig.model_validate_json('{"mask": {"convs": 2, "class_agnostic": true}}')
    assert read.mask.kind == "cells"
    again = MaskTrackConfig().override("mask.kind=crops")
    assert isinstance(again.mask, CropMaskConfig)
    assert MaskTrackConfig.model_validate_json(again.model_dump_json()) == again
    with pytest.raises(ConfigError, match="mask"):
        MaskTrackConfig().override("mask.kind=other")


def test_it_starts_with_the_trunk_of_the_detector(tmp_path: Path, build: Build) -> None:
    one_stage = ('detector={"kind": "ssdlite", "channels": 16}', "match.cosine=0.1")
    source = build(*one_stage)
    save_file({k: t.contiguous() for k, t in source.state_dict().items()}, tmp_path / "start.safetensors")
    model = build(*one_stage, *CROPS)
    random = start_from(model, str(tmp_path / "start.safetensors"))
    assert not any(name.startswith("mask.encoder.") for name in random)
    stem, own = source.state_dict()["detector.body.conv_stem.weight"], model.mask.encoder.conv_stem.weight
    assert torch.equal(own, stem)
    assert own is not model.detector.body.conv_stem.weight


def test_a_start_for_crops_of_another_size_keeps_what_was_learned_of_places(tmp_path: Path, build: Build) -> None:
    small, large = build(*CROPS), build(*CROPS, "mask.size=64")
    learned = torch.randn_like(small.mask.position)
    small.mask.position.data.copy_(learned)
    save_file({k: t.contiguous() for k, t in small.state_dict().items()}, tmp_path / "start.safetensors")
    assert start_from(large, str(tmp_path / "start.safetensors")) == []
    assert large.mask.position.shape == (1, 16, 8, 8)
    assert torch.allclose(large.mask.position.mean((2, 3)), learned.mean((2, 3)), atol=1e-6)
    assert large.mask.position[0, :, 0, 0].allclose(learned[0, :, 0, 0])


def test_without_margins_every_box_is_cut_once_as_the_training_cuts_it() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 10.0, 10.0]])
    regions, rows = views(boxes, CropMaskConfig(margin=0.1))
    assert torch.equal(regions, grow(boxes, 0.1))
    assert rows == [0, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 6), st.lists(st.floats(0, 1), min_size=1, max_size=3), st.integers(1, 4))
def test_the_best_boxes_are_cut_with_every_margin(number: int, margins: list[float], several: int) -> None:
    config = CropMaskConfig(margin=0.2, margins=tuple(margins), several=several)
    boxes = torch.rand(number, 4).cumsum(1) * 20
    regions, rows = views(boxes, config)
    for n in range(number):
        own = [r for r, row in enumerate(rows) if row == n]
        wanted = margins if n < several else [0.2]
        assert len(own) == len(wanted)
        for r, margin in zip(own, wanted, strict=True):
            torch.testing.assert_close(regions[r], grow(boxes[n : n + 1], margin)[0])


def test_each_group_has_its_best_boxes_cut_with_every_margin() -> None:
    config = CropMaskConfig(margin=0.2, margins=(0.1, 0.3), several=1)
    boxes = torch.rand(5, 4).cumsum(1) * 20
    regions, rows = views(boxes, config, groups=(2, 0, 3))
    first, first_rows = views(boxes[:2], config)
    second, second_rows = views(boxes[2:], config)
    assert torch.equal(regions, torch.cat([first, second]))
    assert rows == first_rows + [2 + row for row in second_rows]


def test_masks_of_several_cuts_are_the_mean_of_the_masks_of_each(build: Build, make_clip: MakeClip) -> None:
    clip, masks = make_clip((DOG, CAT)), {}
    for margins in ((0.1,), (0.4,), (0.1, 0.4), ()):
        torch.manual_seed(0)
        choice = f"mask.margins={list(margins)}"
        model = build(*CROPS, "detector.score_threshold=0.0", "mask.several=100", "mask.margin=0.4", choice).eval()
        with torch.inference_mode():
            masks[margins] = model.step(model.start(), clip)[1].masks
    assert not torch.equal(masks[0.1,], masks[0.4,])
    torch.testing.assert_close(masks[0.1, 0.4], (masks[0.1,] + masks[0.4,]) / 2)
    assert torch.equal(masks[()], masks[0.4,])


@pytest.mark.parametrize("values", [{"margins": (1.5,)}, {"margins": (-0.1, 0.2)}, {"several": 0}])
def test_margins_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"margins|several"):
        CropMaskConfig.model_validate(values)


# scores


def test_a_mask_is_as_sure_as_the_mean_of_what_it_covers() -> None:
    masks = torch.zeros(3, 4, 4)
    masks[0, 0, :2] = torch.tensor([0.9, 0.7])
    masks[0, 1:] = 0.5  # not above one half: not covered
    masks[1] = 0.6
    whole = Extent(right=4, bottom=4)
    extents = [Extent(right=3, bottom=2), whole, whole]  # outside of its extent a mask is 0
    masks[0, 2:] = 0
    assert torch.allclose(sureness(FrameMasks(masks, extents), 0.8), torch.tensor([1.0, 0.75, 1.0]))


def test_trust_scales_the_scores_that_are_told_and_nothing_else(build: Build, make_clip: MakeClip) -> None:
    plain, trusting = (build(*CROPS, "detector.score_threshold=0", f"mask.trust={trust}") for trust in (0, 2))
    trusting.load_state_dict(plain.state_dict())
    clip = make_clip((DOG, CAT), (DOG, CAT))
    with torch.inference_mode():
        memory, told = plain.step(plain.start(), clip)
        other, scaled = trusting.step(trusting.start(), clip)
    assert torch.equal(memory.descriptors, other.descriptors)
    assert torch.equal(memory.scores, other.scores)
    assert torch.equal(told.masks, scaled.masks)
    assert torch.equal(told.ids, scaled.ids)
    assert not torch.equal(told.scores, scaled.scores)
    assert bool((scaled.scores <= 1).all())
