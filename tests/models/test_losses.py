"""Losses on sampled points, against loops and plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tubelet.models.losses import dice, focal, point_bce, sample, uncertain_points


def test_a_sample_is_the_bilinear_value_and_zero_outside() -> None:
    maps = torch.tensor([[[[0.0, 1], [2, 3]]]])
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.25, 0.5], [2.0, 2.0]]])
    torch.testing.assert_close(sample(maps, points)[0, 0], torch.tensor([0, 1, 1.5, 1, 0]))


def test_uncertain_points_lie_where_logits_are_near_zero() -> None:
    torch.manual_seed(0)
    column = torch.linspace(-5, 5, 40)
    points = uncertain_points(column.expand(2, 30, 40), 200, oversample=3.0, important=0.75)
    assert points.shape == (2, 200, 2)
    doubtful, uniform = points[:, :150, 0], points[:, 150:, 0]
    within = (points[:, :150, 1] - 0.5).abs() < 0.48  # at the border values fade to zero
    assert ((doubtful - 0.5).abs() < 0.16)[within].all()  # a quarter of the candidates lie within 1/8 of the middle
    assert within.float().mean() > 0.8
    assert (uniform - 0.5).abs().max() > 0.4
    assert not torch.equal(points[0], points[1])


@pytest.mark.parametrize("important", [0.0, 1.0])
def test_all_or_none_of_the_points_may_be_uncertain(important: float) -> None:
    assert uncertain_points(torch.randn(3, 4, 4), 10, 3.0, important).shape == (3, 10, 2)


@given(st.lists(st.tuples(st.floats(-8, 8), st.booleans()), min_size=1, max_size=8))
def test_losses_are_their_formulas(pairs: list[tuple[float, bool]]) -> None:
    logits = torch.tensor([x for x, _ in pairs], dtype=torch.float64)
    targets = torch.tensor([float(y) for _, y in pairs], dtype=torch.float64)
    p = [1 / (1 + math.exp(-x)) for x, _ in pairs]
    y = [float(t) for _, t in pairs]
    entropy = [-(t * math.log(q) + (1 - t) * math.log(1 - q)) for q, t in zip(p, y, strict=True)]
    overlap = sum(q * t for q, t in zip(p, y, strict=True))
    assert float(point_bce(logits, targets)) == pytest.approx(sum(entropy) / len(pairs))
    assert float(dice(logits, targets)) == pytest.approx(1 - (2 * overlap + 1) / (sum(p) + sum(y) + 1))
    for value, q, t, e in zip(focal(logits, targets).tolist(), p, y, entropy, strict=True):
        weight = 0.25 * (1 - q) ** 2 if t else 0.75 * q**2
        assert value == pytest.approx(weight * e)


def test_dice_of_two_empty_masks_is_nearly_zero() -> None:
    assert float(dice(torch.full((100,), -50.0), torch.zeros(100))) == pytest.approx(0, abs=1e-6)


def test_extreme_logits_cost_much_but_stay_finite() -> None:
    logits = torch.tensor([-1e5, 1e5, 0.0], requires_grad=True)
    for targets in (torch.tensor([1.0, 0, 1]), torch.tensor([0.0, 1, 0])):
        total = point_bce(logits, targets) + dice(logits, targets) + focal(logits, targets).sum()
        (gradient,) = torch.autograd.grad(total, logits)
        assert total.isfinite()
        assert gradient.isfinite().all()
