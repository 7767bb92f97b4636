"""A pretrained image network as encoder: shapes, one frame, weights by name, what stays frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tubelet.models import weights
from tubelet.models.backbones import BackboneConfig
from tubelet.models.tags.model import TagConfig
from tubelet.models.tags.trunk import TrunkConfig

SMALL = BackboneConfig(name="mobilenetv2_050", frozen_stages=2)


def config(*, time: bool = True) -> TrunkConfig:
    return TrunkConfig(backbone=SMALL, widths=(8, 12, 16), time=time)


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("size", [(32, 48), (96, 160), (48, 80), (64, 32)])
def test_every_frame_has_maps_of_strides_4_8_and_16(frames: int, size: tuple[int, int]) -> None:
    maps = config().build().eval()(torch.zeros(2, 3, frames, *size))
    expected = [(2, c, frames, size[0] // s, size[1] // s) for c, s in ((8, 4), (12, 8), (16, 16))]
    assert [tuple(one.shape) for one in maps] == expected


def test_without_finer_maps_there_is_only_the_coarsest() -> None:
    encoder = config().build(finer_maps=False)
    maps = encoder(torch.zeros(1, 3, 2, 32, 64))
    assert [tuple(one.shape) for one in maps] == [(1, 16, 2, 2, 4)]
    assert encoder.channels == (16,)


@pytest.mark.parametrize("time", [True, False])
def test_only_temporal_convolutions_see_other_frames(time: bool) -> None:
    torch.manual_seed(0)
    encoder = config(time=time).build().eval()
    pixels = torch.randn(1, 3, 4, 32, 64)
    other = pixels.clone()
    other[:, :, 3] += 1
    with torch.no_grad():
        before, after = encoder(pixels), encoder(other)
    for first, second in zip(before, after, strict=True):
        changed = [not torch.allclose(first[:, :, t], second[:, :, t], atol=1e-5) for t in range(4)]
        assert changed == [False, False, time, True]


def test_a_files_trunk_is_loaded_by_name_and_its_first_stages_stay_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = SMALL.build().body
    save_file({name: tensor.contiguous() for name, tensor in body.state_dict().items()}, tmp_path / "trunk.safetensors")

    model = TagConfig(encoder=config(), input_size=(32, 48), channels=8, bottleneck=8).build(("dog",))
    random = weights.start_from(model, str(tmp_path / "trunk.safetensors"))

    place = "network.encoder.backbone.body."
    loaded = {name.removeprefix(place): t for name, t in model.state_dict().items() if name.startswith(place)}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in body.state_dict().items())
    assert not any(name.startswith(place) for name in random)
    assert any(not p.requires_grad for p in model.network.encoder.parameters())
