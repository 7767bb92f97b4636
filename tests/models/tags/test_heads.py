"""Upsampling: transposed convolutions can lose a phase, resizing cannot; skips past the bottleneck."""

from __future__ import annotations

import torch
from torch import nn

from tubelet.models.tags.heads import Bottleneck, DecoderConfig, Generator


def phases(values: torch.Tensor, stride: int) -> torch.Tensor:
    """Mean over cells and channels of every phase of an enlarged map [B, D, T, h, w]."""
    grid = values[0, 0, 0].unfold(0, stride, stride).unfold(1, stride, stride)  # [cells, cells, stride, stride]
    return grid[1:-1, 1:-1].mean((0, 1))


def test_a_constant_map_stays_constant_inside_when_it_is_resized_and_not_when_it_is_transposed() -> None:
    torch.manual_seed(0)
    constant = torch.ones(1, 8, 1, 6, 6)
    with torch.no_grad():
        resized = phases(Generator(8, 4, 1, "resize")(constant), 8)
        transposed = phases(Generator(8, 4, 1, "transposed")(constant), 8)
    assert float(resized.std()) < 1e-5
    assert float(transposed.std()) > 0.05


def test_both_ways_make_maps_of_the_same_size() -> None:
    features = torch.zeros(2, 8, 3, 3, 5)
    for way in ("transposed", "resize"):
        assert Bottleneck(8, 12, way)(features).shape == features.shape
        assert Generator(8, 4, 2, way)(features).shape == (2, 2, 3, 24, 40)
        assert DecoderConfig(widths=(8, 6, 4)).build(8, 3, way)(features).shape == (2, 3, 3, 24, 40)


def test_a_skip_adds_the_bottlenecks_input_to_its_output() -> None:
    torch.manual_seed(0)
    plain = Bottleneck(8, 12).eval()
    skipping = Bottleneck(8, 12, skip=True).eval()
    skipping.load_state_dict(plain.state_dict())
    features = torch.randn(1, 8, 2, 4, 6)
    with torch.no_grad():
        assert torch.equal(skipping(features), features + plain(features))


def test_finer_maps_reach_the_decoders_logits_and_learn() -> None:
    torch.manual_seed(0)
    decoder = DecoderConfig(widths=(8, 6, 4)).build(16, 2, "resize", finer=(5, 7)).eval()
    assert [c.in_channels for c in decoder.skips if isinstance(c, nn.Conv3d)] == [7, 5]  # coarse to fine
    finer = [torch.randn(1, 5, 2, 8, 12, requires_grad=True), torch.randn(1, 7, 2, 4, 6, requires_grad=True)]
    logits = decoder(torch.randn(1, 16, 2, 2, 3), finer)
    assert logits.shape == (1, 2, 2, 16, 24)
    logits.sum().backward()
    assert all(one.grad is not None and bool(one.grad.abs().sum() > 0) for one in finer)
