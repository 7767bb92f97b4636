"""R(2+1)D against torchvision's own, whose temporal strides are taken out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.video import VideoResNet, r2plus1d_18

from tubelet.models.tags.encoder import EncoderConfig, from_torchvision_video
from tubelet.models.tags.model import TagConfig


@pytest.fixture(scope="module")
def theirs() -> VideoResNet:
    """torchvision's network with a random start and lively norms; its layer2 and layer3 keep all frames."""
    torch.manual_seed(0)
    model = r2plus1d_18(weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    for layer in (model.layer2, model.layer3):
        layer[0].conv1[0][3].stride = (1, 1, 1)
        layer[0].downsample[0].stride = (1, 2, 2)
    return model


def test_the_parameters_are_as_many_as_torchvisions() -> None:
    with torch.device("meta"):
        encoder = EncoderConfig().build()
    assert sum(p.numel() for p in encoder.parameters()) == 7_804_601


def test_every_tensor_of_torchvisions_file_finds_its_place(theirs: VideoResNet) -> None:
    mapped = from_torchvision_video(theirs.state_dict())
    with torch.device("meta"):
        own = TagConfig().build(("object",)).state_dict()
    encoder = {name: tensor.shape for name, tensor in own.items() if name.startswith("network.encoder.")}
    assert {name: tensor.shape for name, tensor in mapped.items()} == encoder


def test_with_torchvisions_weights_the_maps_are_torchvisions(theirs: VideoResNet) -> None:
    encoder = EncoderConfig(pool=False).build().eval()
    mapped = from_torchvision_video(theirs.state_dict())
    encoder.load_state_dict({name.removeprefix("network.encoder."): tensor for name, tensor in mapped.items()})
    pixels = torch.randn(1, 3, 5, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.layer3(theirs.layer2(theirs.layer1(theirs.stem(pixels))))
        assert torch.allclose(encoder(pixels)[-1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("pool", "stride"), [(True, 16), (False, 8)])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_every_frame_has_a_map_of_its_own(pool: bool, stride: int, frames: int) -> None:
    config = EncoderConfig(width=4, pool=pool)
    assert config.stride == stride
    maps = config.build().eval()(torch.zeros(2, 3, frames, 48, 80))
    assert maps[-1].shape == (2, 16, frames, 48 // stride, 80 // stride)
    assert [tuple(one.shape[1:3]) for one in maps] == [(4, frames), (8, frames), (16, frames)]


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_norms_keep_their_statistics_in_training(frozen: bool) -> None:
    encoder = EncoderConfig(width=4, frozen_norm=frozen).build().train()
    encoder(torch.randn(1, 3, 2, 32, 32))
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm3d)]
    assert norms
    assert all((norm.running_mean == 0).all() == frozen for norm in norms)
