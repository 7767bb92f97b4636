"""Mask and match heads: sizes, which channel is read, and what the match matrix promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from tubelet.models.rcnn.heads.paste import paste
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# masks


def test_the_papers_mask_head_has_its_size() -> None:
    with torch.device("meta"):
        head = MaskHeadConfig().build(256, 40)
    assert parameters(head) == 2_633_257
    assert head(torch.zeros(2, 256, 14, 14, device="meta")).shape == (2, 41, 28, 28)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_masks_have_twice_the_cells_of_their_region(norm: bool, class_agnostic: bool) -> None:
    head = MaskHeadConfig(convs=2, channels=8, norm=norm, class_agnostic=class_agnostic).build(4, 5)
    assert head(torch.randn(3, 4, 6, 6)).shape == (3, 1 if class_agnostic else 6, 12, 12)
    assert head(torch.randn(0, 4, 6, 6)).shape[0] == 0


def test_a_label_reads_the_channel_after_its_own_number() -> None:
    head = MaskHeadConfig(convs=1).build(4, 3)
    logits = torch.arange(4.0).view(1, 4, 1, 1).expand(3, 4, 2, 2)
    read = head.of_class(logits, torch.tensor([0, 2, 1]))
    assert read[:, 0, 0].tolist() == [1, 3, 2]
    assert read.shape == (3, 2, 2)


def test_a_head_without_classes_reads_its_one_channel_for_every_label() -> None:
    head = MaskHeadConfig(convs=1, class_agnostic=True).build(4, 3)
    logits = torch.randn(3, 1, 2, 2)
    assert torch.equal(head.of_class(logits, torch.tensor([0, 2, 1])), logits[:, 0])


def test_the_last_mask_layer_can_start_small_so_that_the_loss_starts_at_ln_2_whatever_the_maps_scale() -> None:
    torch.manual_seed(0)
    head = MaskHeadConfig(convs=2, channels=32, logits_std=0.001).build(32, 4)
    assert head.logits.weight.std().item() == pytest.approx(0.001, rel=0.2)
    logits = head(10 * torch.randn(4, 32, 14, 14))
    truth = torch.rand(logits.shape).round()
    loss = nn.functional.binary_cross_entropy_with_logits(logits, truth)
    assert loss.item() == pytest.approx(math.log(2), rel=0.02)


def test_the_other_mask_layers_start_the_same_whatever_the_last_one_does() -> None:
    heads = []
    for std in (None, 0.001):
        torch.manual_seed(0)
        heads.append(MaskHeadConfig(convs=2, channels=8, logits_std=std).build(8, 4))
    usual, small = (dict(head.named_parameters()) for head in heads)
    different = [name for name in usual if not torch.equal(usual[name], small[name])]
    assert different == ["logits.weight"]


def test_mask_layers_start_with_he_noise_by_fan_out() -> None:
    torch.manual_seed(0)
    head = MaskHeadConfig(convs=1, channels=64).build(64, 20)
    logits = head.logits.weight
    assert logits.std().item() == pytest.approx(math.sqrt(2 / 21), rel=0.1)
    assert not any(p.any() for name, p in head.named_parameters() if name.endswith("bias"))


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 60), width=st.integers(1, 60))
def test_pasted_masks_are_those_of_torchvision(seed: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(4, 28, 28, generator=generator)
    extent = 2 ** (torch.rand(4, 2, generator=generator) * 7 - 1)  # from half a pixel to beyond the frame
    centre = (torch.rand(4, 2, generator=generator) * 1.4 - 0.2) * torch.tensor([width, height])
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], 1)
    boxes[0, 2:] = boxes[0, :2]  # no area
    seen = (boxes[:, 2:] > 1).all(1) & (boxes[:, :2] < torch.tensor([width, height]) - 1).all(1)
    theirs = paste_masks_in_image(masks[seen][:, None], boxes[seen], (height, width))[:, 0]
    torch.testing.assert_close(paste(masks[seen], boxes[seen], (height, width)).probabilities, theirs)
    assert paste(masks, boxes, (height, width)).probabilities.shape == (4, height, width)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_the_masks_of_an_objects_regions_are_averaged_and_0_outside_of_its_extent(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(5, 8, 8, generator=generator)
    boxes = (torch.rand(5, 4, generator=generator) * 40 - 5).cumsum(1)
    owners = [0, 1, 0, 2, 1]

    pasted, extents = paste(masks, boxes, (60, 70), owners)
    alone = paste(masks, boxes, (60, 70)).probabilities
    for n in range(3):
        of_object = [row for row, owner in enumerate(owners) if owner == n]
        torch.testing.assert_close(pasted[n], alone[of_object].mean(0))
        rest = pasted[n].clone()
        extents[n].of(rest).zero_()
        assert not rest.any()


def test_a_box_outside_the_frame_leaves_it_empty() -> None:
    outside = torch.tensor([[-90.0, -90.0, -50.0, -50.0], [80.0, 5.0, 99.0, 9.0], [5.0, 80.0, 9.0, 99.0]])
    assert not paste(torch.ones(3, 28, 28), outside, (40, 50)).probabilities.any()


# identities


def test_the_papers_match_head_has_its_size() -> None:
    with torch.device("meta"):
        head = FullyConnectedMatchConfig().build(256)
    assert parameters(head) == 13_895_680
    assert head.describe(torch.zeros(3, 256, 7, 7, device="meta")).shape == (3, 1024)


def test_match_layers_start_small() -> None:
    torch.manual_seed(0)
    head = FullyConnectedMatchConfig(channels=64).build(16)
    for layer in head.layers:
        assert isinstance(layer, nn.Linear)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not layer.bias.any()


def test_descriptors_are_two_layers_with_one_rectification_between() -> None:
    head = FullyConnectedMatchConfig(channels=32).build(4)
    regions = torch.randn(5, 4, 7, 7)
    first, second = head.layers
    wanted = second(first(regions.flatten(1)).clamp(min=0))
    torch.testing.assert_close(head.describe(regions), wanted)
    assert (wanted < 0).any()  # nothing after the last layer


@given(n=st.integers(0, 4), m=st.integers(0, 5), seed=st.integers(0, 1000))
def test_the_match_matrix_holds_inner_products_and_a_first_column_of_exactly_zero(n: int, m: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    current, known = torch.randn(n, 6, generator=generator), torch.randn(m, 6, generator=generator)
    logits = FullyConnectedMatchConfig(channels=6).build(1)(current, known)
    assert logits.shape == (n, m + 1)
    assert torch.equal(logits[:, 0], torch.zeros(n))
    for i in range(n):
        for j in range(m):
            wanted = sum(x * y for x, y in zip(current[i].tolist(), known[j].tolist(), strict=True))
            assert logits[i, j + 1].item() == pytest.approx(wanted, abs=1e-5)
    torch.testing.assert_close(logits.softmax(1).sum(1), torch.ones(n))


@given(m=st.integers(1, 6), seed=st.integers(0, 1000), cosine=st.sampled_from([None, 0.1]))
def test_permuting_what_is_known_permutes_the_columns(m: int, seed: int, cosine: float | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    current, known = torch.randn(3, 6, generator=generator), torch.randn(m, 6, generator=generator)
    order = torch.randperm(m, generator=generator)
    head = FullyConnectedMatchConfig(channels=6, cosine=cosine).build(1)
    logits, turned = head(current, known), head(current, known[order])
    torch.testing.assert_close(turned[:, 1:], logits[:, 1:][:, order])
    assert torch.equal(turned[:, 0], logits[:, 0])


def test_with_a_temperature_only_directions_count_and_a_height_is_learned() -> None:
    head = FullyConnectedMatchConfig(channels=16, cosine=0.1).build(4)
    regions = torch.randn(5, 4, 7, 7)
    described = head.describe(regions)
    torch.testing.assert_close(described.norm(dim=1), torch.ones(5))
    logits = head(described, described)
    assert logits.abs().max().item() <= 10 + 1e-4
    torch.testing.assert_close(logits[:, 1:].diagonal(), torch.full((5,), 10.0))
    logits[:, 0].sum().backward()
    assert head.new is not None
    assert head.new.grad == 5


def test_the_papers_head_learns_no_height() -> None:
    assert FullyConnectedMatchConfig(channels=8).build(2).new is None
