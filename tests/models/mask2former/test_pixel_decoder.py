"""The pixel decoder: its maps, its precision, and that saving memory changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tubelet.models.mask2former.pixel_decoder import PixelDecoder, PixelDecoderConfig, Pixels

CHANNELS = (8, 16, 24, 32)


@pytest.fixture
def decoder() -> PixelDecoder:
    torch.manual_seed(0)
    return PixelDecoderConfig(channels=16, layers=2, feed_forward=32, groups=4).build(CHANNELS)


def maps(height: int = 64, width: int = 96, batch: int = 2) -> list[Tensor]:
    made = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, c, -(-height // s), -(-width // s), generator=made)
        for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    ]


def test_the_published_size() -> None:
    with torch.device("meta"):
        decoder = PixelDecoderConfig().build((256, 512, 1024, 2048))
    assert sum(p.numel() for p in decoder.parameters()) == 6_035_904


@pytest.mark.parametrize("size", [(64, 96), (50, 75), (33, 1)])
def test_maps_come_coarsest_first_and_mask_features_at_the_finest(decoder: PixelDecoder, size: tuple[int, int]) -> None:
    given = maps(*size)
    pixels = decoder(given)
    assert pixels.features.shape == (2, 16, *given[0].shape[-2:])
    assert [s.shape[-2:] for s in pixels.scales] == [m.shape[-2:] for m in reversed(given[1:])]


def test_frames_are_independent(decoder: PixelDecoder) -> None:
    given = maps()
    both = decoder(given)
    alone = Pixels.cat([decoder([m[n : n + 1] for m in given]) for n in (0, 1)])
    torch.testing.assert_close(both.features, alone.features)
    for mine, other in zip(both.scales, alone.scales, strict=True):
        torch.testing.assert_close(mine, other)


def test_it_computes_in_float32_under_autocast(decoder: PixelDecoder) -> None:
    expected = decoder(maps()).features
    with torch.autocast("cpu", torch.bfloat16):
        found = decoder(maps()).features
    assert torch.equal(found, expected)


def test_computing_layers_again_gives_the_same_gradients(decoder: PixelDecoder) -> None:
    gradients = []
    for save_memory in (False, True):
        pixels = decoder(maps(), save_memory=save_memory)
        loss = pixels.features.square().sum() + sum(s.sum() for s in pixels.scales)
        gradients.append(torch.autograd.grad(loss, list(decoder.parameters())))
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, again)


def test_the_position_of_a_cell_matters(decoder: PixelDecoder) -> None:
    torch.nn.init.normal_(decoder.encoder.layers[0].self_attn.sampling_offsets.weight)  # type: ignore[union-attr,arg-type]
    flat = [torch.ones_like(m) for m in maps()]
    coarse = decoder(flat).scales[-1]
    assert not torch.allclose(coarse[..., 3, 3], coarse[..., 4, 6], atol=1e-4)
