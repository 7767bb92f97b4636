"""Deformable attention against loops over its equation, and where it may look."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.attention.deformable import (
    DeformableAttention,
    DeformableConfig,
    deformable_attention,
    reference_points,
)

SHAPES = [(2, 3), (4, 5)]
CELLS = sum(h * w for h, w in SHAPES)


def bilinear(level: Tensor, x: float, y: float) -> Tensor:
    """Value of a map [H, W, d] at a place in units of the frame; zero outside."""
    height, width = level.shape[:2]
    column, row = x * width - 0.5, y * height - 0.5
    out = torch.zeros(level.shape[-1])
    for j in (math.floor(row), math.floor(row) + 1):
        for i in (math.floor(column), math.floor(column) + 1):
            if 0 <= j < height and 0 <= i < width:
                out += (1 - abs(row - j)) * (1 - abs(column - i)) * level[j, i]
    return out


def in_loops(values: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    batch, queries, heads, levels, points = weights.shape
    out = torch.zeros(batch, queries, heads, values.shape[-1])
    for b in range(batch):
        first = 0
        for level in range(levels):
            height, width = SHAPES[level]
            for h in range(heads):
                cells = values[b, first : first + height * width, h].view(height, width, -1)
                for q in range(queries):
                    for p in range(points):
                        x, y = locations[b, q, h, level, p].tolist()
                        out[b, q, h] += weights[b, q, h, level, p] * bilinear(cells, x, y)
            first += height * width
    return out.flatten(2)


def case(seed: int = 0, spread: float = 0.8) -> tuple[Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    values = torch.randn(2, CELLS, 2, 3, generator=made)
    locations = 0.5 + spread * torch.randn(2, 4, 2, 2, 3, 2, generator=made)  # many outside
    weights = torch.rand(2, 4, 2, 2, 3, generator=made)
    return values, locations, weights


@pytest.mark.parametrize("seed", range(5))
def test_deformable_attention_is_its_equation(seed: int) -> None:
    values, locations, weights = case(seed)
    torch.testing.assert_close(
        deformable_attention(values, SHAPES, locations, weights), in_loops(values, locations, weights)
    )


def test_gradients_are_those_of_grid_sample() -> None:
    parts = [x.requires_grad_() for x in case(spread=0.4)]
    values, locations, weights = parts
    wanted = torch.randn(2, 4, 6)
    ours = torch.autograd.grad((deformable_attention(values, SHAPES, locations, weights) * wanted).sum(), parts)
    sampled, first = [], 0
    for level, (height, width) in enumerate(SHAPES):
        cells = values[:, first : first + height * width].permute(0, 2, 3, 1).flatten(0, 1)
        grid = 2 * locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        sampled.append(F.grid_sample(cells.unflatten(-1, (height, width)), grid, align_corners=False))
        first += height * width
    shares = weights.transpose(1, 2).flatten(0, 1)[:, None]  # [B h, 1, Q, l, p]
    out = (torch.stack(sampled, 3) * shares).sum((3, 4)).unflatten(0, (2, 2))  # [B, h, d, Q]
    theirs = torch.autograd.grad((out.permute(0, 3, 1, 2).flatten(2) * wanted).sum(), parts)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("place", [-1e30, 1e30, math.inf, -math.inf, math.nan, -7.0, 8.0])
def test_what_lies_outside_or_is_no_number_counts_as_zero(place: float) -> None:
    values, locations, weights = case()
    out = deformable_attention(values, SHAPES, torch.full_like(locations, place), weights)
    torch.testing.assert_close(out, torch.zeros_like(out))


def test_a_cells_own_centre_is_its_value() -> None:
    values, _, _ = case()
    centres = reference_points(SHAPES, torch.device("cpu"))
    locations = centres[None, :, None, None, None].expand(2, -1, 2, 2, 1, -1)
    weights = torch.zeros(2, CELLS, 2, 2, 1)
    weights[:, :6, :, 0], weights[:, 6:, :, 1] = 1, 1  # every cell looks at its own level
    torch.testing.assert_close(deformable_attention(values, SHAPES, locations, weights), values.flatten(2))


def test_the_module_is_the_equation_between_its_projections() -> None:
    torch.manual_seed(0)
    module = DeformableConfig(heads=2, points=3).build(6, levels=2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    queries, tokens = torch.randn(2, CELLS, 6), torch.randn(2, CELLS, 6)
    references = reference_points(SHAPES, torch.device("cpu"))
    offsets = module.sampling_offsets(queries).view(2, CELLS, 2, 2, 3, 2)
    locations = torch.zeros_like(offsets)
    for level, (height, width) in enumerate(SHAPES):
        locations[..., level, :, 0] = references[:, 0, None, None] + offsets[..., level, :, 0] / width
        locations[..., level, :, 1] = references[:, 1, None, None] + offsets[..., level, :, 1] / height
    weights = module.attention_weights(queries).view(2, CELLS, 2, 6).softmax(-1).view(2, CELLS, 2, 2, 3)
    values = module.value_proj(tokens).view(2, CELLS, 2, 3)
    expected = module.output_proj(in_loops(values, locations, weights))
    torch.testing.assert_close(module(queries, references, tokens, SHAPES), expected)


def test_at_the_start_heads_look_in_eight_directions_with_equal_weights() -> None:
    module: DeformableAttention = DeformableConfig().build(16, levels=3)
    offsets = module.sampling_offsets(torch.randn(1, 16)).view(8, 3, 4, 2)
    torch.testing.assert_close(offsets[0, 1], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]))
    torch.testing.assert_close(offsets[3, 0, 1], torch.tensor([-2.0, 2.0]))
    assert module.attention_weights(torch.randn(1, 16)).abs().max() == 0
