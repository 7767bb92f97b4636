"""Backbones by name: their maps, what of them stays as pretrained, and which names are refused."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from tubelet.core.errors import ConfigError
from tubelet.models.backbones import Backbone, BackboneConfig, names

KINDS = sorted(
    {re.sub(r"\d+", "", name): name for name in reversed(names())}.values()
)  # one of each kind that is listed


def norms_in_training(backbone: Backbone) -> set[bool]:
    return {m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)}


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", [64, 128, 256, 512]),
        ("resnet34", [64, 128, 256, 512]),
        ("resnet50", [256, 512, 1024, 2048]),
        ("mobilenetv2_100", [24, 32, 96, 320]),
        ("tf_efficientnet_lite0", [24, 40, 112, 320]),
    ],
)
def test_maps_have_the_strides_of_a_pyramid(name: str, channels: list[int]) -> None:
    backbone = BackboneConfig(name=name).build()
    maps = backbone(torch.zeros(1, 3, 64, 96))
    assert backbone.channels == channels
    assert backbone.strides == [4, 8, 16, 32]
    assert [tuple(m.shape) for m in maps] == [
        (1, c, 64 // s, 96 // s) for c, s in zip(channels, backbone.strides, strict=True)
    ]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_listed_backbone_builds(name: str) -> None:
    with torch.device("meta"):
        assert BackboneConfig(name=name).build().strides == [4, 8, 16, 32]


SWIN = "swin_tiny_patch4_window7_224"


@pytest.mark.parametrize("size", [(64, 96), (50, 75), (31, 1)])
def test_swin_reads_any_size_and_gives_channels_first(size: tuple[int, int]) -> None:
    backbone = BackboneConfig(name=SWIN, frozen_stages=0).build().eval()
    maps = backbone(torch.rand(1, 3, *size))
    assert backbone.channels == [96, 192, 384, 768]
    assert [tuple(m.shape) for m in maps] == [
        (1, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "channels", "millions"),
    [
        (SWIN, 96, 27.5),
        ("swin_small_patch4_window7_224", 96, 48.8),
        ("swin_base_patch4_window12_384", 128, 86.9),
        ("swin_large_patch4_window12_384", 192, 195.0),
    ],
)
def test_the_four_published_swins_build(name: str, channels: int, millions: float) -> None:
    with torch.device("meta"):
        backbone = BackboneConfig(name=name).build()
    assert backbone.channels == [channels * 2**n for n in range(4)]
    assert sum(p.numel() for p in backbone.parameters()) / 1e6 == pytest.approx(millions, abs=0.3)


def test_every_map_of_swin_has_a_norm_of_its_own() -> None:
    backbone = BackboneConfig(name=SWIN, stages=2, frozen_stages=0).build().eval()
    maps = backbone(torch.rand(1, 3, 64, 64))
    assert [tuple(norm.weight.shape) for norm in backbone.norms] == [(384,), (768,)]
    for one in maps:
        torch.testing.assert_close(one.mean(1), torch.zeros_like(one.mean(1)), atol=1e-5, rtol=0)


def test_swins_windows_shift_in_its_last_stage_too() -> None:
    blocks = BackboneConfig(name=SWIN).build().body.layers_3.blocks
    assert [tuple(block.shift) for block in blocks] == [(0, 0), (3, 3)]


def test_frozen_stages_of_swin_are_the_patches_and_the_first_layers() -> None:
    body = BackboneConfig(name=SWIN, frozen_stages=2).build().body
    frozen = {n for n, p in body.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in body.named_parameters() if n.startswith(("patch_embed.", "layers_0."))}


@pytest.mark.parametrize("name", ["resnet18", SWIN])
def test_computing_stages_again_gives_the_same_gradients(name: str) -> None:
    torch.manual_seed(0)
    backbone = BackboneConfig(name=name, frozen_stages=0, drop_path=0.0).build().train()
    images, gradients = torch.rand(1, 3, 32, 32), []
    for on in (False, True):
        backbone.save_memory(on)
        loss = sum(m.square().sum() for m in backbone(images))
        gradients.append(torch.autograd.grad(loss, list(backbone.parameters())))
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, kept)


def test_the_stages_taken_are_counted_from_the_coarsest() -> None:
    backbone = BackboneConfig(name="resnet18", stages=3).build().eval()
    assert backbone.strides == [8, 16, 32]
    assert [m.shape[1] for m in backbone(torch.zeros(1, 3, 32, 32))] == [128, 256, 512]


@pytest.mark.parametrize("values", [{"stages": 0}, {"stages": 9}, {"frozen_stages": -1}, {"frozen_stages": 9}])
def test_stages_that_no_network_has_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        BackboneConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stages", "first_that_learns"), [(0, "conv1."), (1, "layer1."), (2, "layer2."), (4, "layer4.")]
)
def test_frozen_stages_of_a_resnet_are_the_stem_and_the_first_layers(stages: int, first_that_learns: str) -> None:
    body = BackboneConfig(name="resnet18", frozen_stages=stages).build().body
    learns = [p.requires_grad for _, p in body.named_parameters()]
    names = [n for n, _ in body.named_parameters()]
    start = next(i for i, name in enumerate(names) if name.startswith(first_that_learns))
    assert learns == [False] * start + [True] * (len(names) - start)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "tf_efficientnet_lite0"])
def test_frozen_stages_of_a_small_network_hold_everything_up_to_stride_four(name: str) -> None:
    body = BackboneConfig(name=name, frozen_stages=2).build().body
    frozen = {n for n, p in body.named_parameters() if not p.requires_grad}
    wanted = {n for n, _ in body.named_parameters() if n.startswith(("conv_stem.", "bn1.", "blocks.0.", "blocks.1."))}
    assert frozen == wanted


def test_frozen_norms_keep_their_statistics_in_training_while_their_scales_learn() -> None:
    backbone = BackboneConfig(name="resnet18").build().train()
    before = {k: v.clone() for k, v in backbone.named_buffers()}
    backbone(torch.rand(2, 3, 32, 32))[-1].sum().backward()
    assert norms_in_training(backbone) == {False}
    assert all(torch.equal(v, before[k]) for k, v in backbone.named_buffers())
    scale = dict(backbone.named_parameters())["body.layer4.0.bn1.weight"]
    assert scale.grad is not None


def test_norms_that_are_not_frozen_follow_the_mode() -> None:
    backbone = BackboneConfig(name="resnet18", frozen_norm=False).build()
    assert norms_in_training(backbone.train()) == {True}
    assert norms_in_training(backbone.eval()) == {False}


def test_same_padding_gives_tensorflows_map_sizes() -> None:
    backbone = BackboneConfig(name="mobilenetv2_100", pad_type="same").build()
    sizes = [tuple(m.shape[-2:]) for m in backbone(torch.zeros(1, 3, 50, 75))]
    assert sizes == [(13, 19), (7, 10), (4, 5), (2, 3)]


@pytest.mark.parametrize(("name", "hint"), [("resnet5O", "resnet50"), ("mobilnetv2_100", "mobilenetv2_100")])
def test_an_unknown_name_is_told_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown backbone '{name}'; did you mean '{hint}'"):
        BackboneConfig(name=name).build()


@pytest.mark.parametrize(
    "name", ["local-dir:/", "hf-hub:someone/something", "hf_hub:someone/something", "../resnet18", "resnet18.nope", ""]
)
def test_a_name_that_is_an_address_or_a_folder_is_refused_unread(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown backbone"):
        BackboneConfig(name=name).build()
