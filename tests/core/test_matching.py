"""Assignments against scipy and against trying all; cost terms against loops over points."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tubelet.core import matching

shapes = st.tuples(st.integers(0, 5), st.integers(0, 5))


def table(shape: tuple[int, int], seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def least_total(cost: Tensor) -> float:
    """The smallest sum of any one-to-one choice, by trying all."""
    wide = cost if len(cost) <= cost.shape[1] else cost.T
    choices = permutations(range(wide.shape[1]), len(wide))
    return min(sum(wide[i, j].item() for i, j in enumerate(columns)) for columns in choices)


@given(shape=shapes, seed=st.integers(0, 10_000))
def test_assignment_costs_the_least_of_all(shape: tuple[int, int], seed: int) -> None:
    cost = table(shape, seed)
    rows, columns = matching.assign(cost)
    assert len(rows) == len(columns) == min(shape)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(set(columns.tolist())) == len(columns)
    assert cost[rows, columns].sum().item() == pytest.approx(least_total(cost) if min(shape) else 0.0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_assignment_is_that_of_scipy(dtype: torch.dtype) -> None:
    cost = table((20, 33), 3).to(dtype).requires_grad_()
    rows, columns = matching.assign(cost)
    theirs = linear_sum_assignment(cost.detach().float().numpy())
    assert (rows.tolist(), columns.tolist()) == (theirs[0].tolist(), theirs[1].tolist())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_cost_that_is_not_finite_is_avoided_and_does_not_stop_the_rest(bad: float) -> None:
    cost = torch.tensor([[bad, 5.0, 9.0], [0.0, bad, 7.0], [1.0, 2.0, bad]])
    rows, columns = matching.assign(cost)
    # without the diagonal there are two cycles: 5 + 7 + 1 against 9 + 0 + 2
    assert dict(zip(rows.tolist(), columns.tolist(), strict=True)) == {0: 2, 1: 0, 2: 1}


def test_a_table_of_nothing_but_nan_still_gives_an_assignment() -> None:
    rows, columns = matching.assign(torch.full((2, 3), math.nan))
    assert rows.tolist() == [0, 1]
    assert len(set(columns.tolist())) == 2


def test_class_cost_is_minus_the_probability_of_the_targets_class() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    cost = matching.class_cost(probabilities, torch.tensor([2, 0, 0, 1]))
    torch.testing.assert_close(cost, torch.tensor([[-0.1, -0.7, -0.7, -0.2], [-0.5, 0.0, 0.0, -0.5]]))


def points(seed: int, n: int = 3, m: int = 2, p: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, p, generator=generator) * 3, (torch.rand(m, p, generator=generator) < 0.5).float()


@given(seed=st.integers(0, 1000))
def test_cross_entropy_cost_equals_a_loop_over_points(seed: int) -> None:
    logits, targets = points(seed)
    found = matching.bce_cost(logits, targets)
    for i in range(len(logits)):
        for j in range(len(targets)):
            terms = []
            for x, y in zip(logits[i].tolist(), targets[j].tolist(), strict=True):
                p = 1 / (1 + math.exp(-x))
                terms.append(-math.log(p if y else 1 - p))
            assert found[i, j].item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_cross_entropy_cost_stays_finite_for_huge_logits() -> None:
    cost = matching.bce_cost(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    torch.testing.assert_close(cost, torch.tensor([[1e4, 0.0]]))


@given(seed=st.integers(0, 1000))
def test_dice_cost_equals_a_loop_over_points(seed: int) -> None:
    logits, targets = points(seed)
    found = matching.dice_cost(logits, targets)
    for i in range(len(logits)):
        for j in range(len(targets)):
            ps = [1 / (1 + math.exp(-x)) for x in logits[i].tolist()]
            ys = targets[j].tolist()
            overlap = sum(p * y for p, y in zip(ps, ys, strict=True))
            wanted = 1 - (2 * overlap + 1) / (sum(ps) + sum(ys) + 1)
            assert found[i, j].item() == pytest.approx(wanted, abs=1e-5)


@given(seed=st.integers(0, 1000))
def test_mask_overlap_equals_counting_for_binary_masks(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.rand(n, 9, generator=generator) < 0.3 for n in (3, 4))
    found = matching.mask_iou(first.float(), second.float())
    for i in range(3):
        for j in range(4):
            both, either = int((first[i] & second[j]).sum()), int((first[i] | second[j]).sum())
            assert found[i, j].item() == pytest.approx(both / either if either else 0.0)
