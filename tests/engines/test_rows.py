"""Rows on several cores: all of them, in their order, whatever their number, and each share once."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from tubelet.engines.graph import Tensors
from tubelet.engines.rows import RowsInParallel


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_all_rows_come_back_in_their_order(rows: int) -> None:
    shares: list[int] = []

    def compute(a: Tensor, b: Tensor) -> Tensors:
        shares.append(len(a))
        return a + b, a - b

    a, b = torch.arange(rows * 2.0).view(rows, 2), torch.ones(rows, 2)
    total, difference = RowsInParallel([compute] * 3)(a, b)
    assert torch.equal(total, a + b)
    assert torch.equal(difference, a - b)
    assert sum(shares) == rows
    assert 0 not in shares
    assert max(shares) - min(shares) <= 1


def test_shares_are_computed_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def compute(x: Tensor) -> Tensors:
        both.wait(timeout=60)  # comes back only when the other share is here too
        return (x,)

    RowsInParallel([compute] * 2)(torch.zeros(2, 1))


def test_an_error_of_one_share_is_raised() -> None:
    def compute(x: Tensor) -> Tensors:
        raise ZeroDivisionError(f"row {int(x[0])}")

    with pytest.raises(ZeroDivisionError, match="row 0"):
        RowsInParallel([compute] * 2)(torch.arange(2)[:, None])
