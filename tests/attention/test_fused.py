"""Fused attention: equal to the literal softmax whichever way is taken, values and gradients, without the table."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tubelet.attention import fused
from tubelet.attention.fused import attend


def literal(queries: Tensor, keys: Tensor, values: Tensor, scale: float = 1.0, valid: Tensor | None = None) -> Tensor:
    logits = scale * queries.double() @ keys.double().transpose(1, 2)
    if valid is not None:
        logits = logits.masked_fill(~valid[:, None], float("-inf"))
    return (logits.softmax(2) @ values.double()).float()


def inputs(seed: int, b: int, q: int, k: int, d: int, e: int, height: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((b, q, d), (b, k, d), (b, k, e))
    made = [torch.randn(*size, generator=generator) for size in sizes]
    made[0] *= height
    return [x.requires_grad_() for x in made]


def gradients(out: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    weight = torch.linspace(-1, 1, out.numel()).view(out.shape)
    return torch.autograd.grad((out * weight).sum(), leaves)


def test_attention_is_that_of_nested_loops() -> None:
    queries, keys, values = inputs(0, 2, 3, 4, 5, 2)
    out = attend(queries, keys, values, 0.5)
    for b in range(2):
        for q in range(3):
            exponents = [(0.5 * sum(queries[b, q, d] * keys[b, k, d] for d in range(5))).exp() for k in range(4)]
            for e in range(2):
                wanted = sum(w * values[b, k, e] for k, w in enumerate(exponents)) / sum(exponents)
                torch.testing.assert_close(out[b, q, e], wanted)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    q=st.integers(1, 20),
    k=st.integers(1, 20),
    e=st.sampled_from([3, 8]),
    chunk=st.one_of(st.none(), st.integers(1, 25)),
    height=st.sampled_from([0.0, 1.0, 60.0]),
)
def test_every_chunk_gives_the_values_and_gradients_of_the_whole_table(
    seed: int, q: int, k: int, e: int, chunk: int | None, height: float
) -> None:
    leaves = inputs(seed, 2, q, k, 8, e, height)
    out, wanted = attend(*leaves, chunk=chunk), literal(*leaves)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-4 if height > 1 else 1e-5)
    for ours, theirs in zip(gradients(out, leaves), gradients(wanted, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * max(height, 1))


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("b", [1, 3])
def test_keys_outside_the_image_weigh_nothing_and_get_no_gradient(b: int, chunk: int | None) -> None:
    leaves = inputs(1, b, 5, 12, 4, 4)
    valid = torch.arange(12)[None] < torch.tensor([12, 7, 1])[-b:, None]
    out, wanted = attend(*leaves, valid=valid, chunk=chunk), literal(*leaves, valid=valid)
    torch.testing.assert_close(out, wanted)
    for ours, theirs in zip(gradients(out, leaves), gradients(wanted, leaves), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not gradients(attend(*leaves, valid=valid, chunk=chunk), leaves)[2][~valid].any()


def peaked_inputs(q: int, k: int, e: int = 16) -> list[Tensor]:
    """Queries that look at few keys: logits of some hundreds."""
    return inputs(2, 1, q, k, 16, e, height=40.0)


@pytest.mark.parametrize("e", [16, 24])
@pytest.mark.parametrize("height", [0.2, 40.0])
def test_large_tables_are_exact_whether_few_keys_matter_or_all(height: float, e: int) -> None:
    leaves = inputs(3, 1, 2050, 2100, 16, e, height)
    assert leaves[0].shape[1] * leaves[1].shape[1] >= fused.LARGE
    out, wanted = attend(*leaves), literal(*leaves)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5 * max(height, 1))
    for ours, theirs in zip(gradients(out, leaves), gradients(wanted, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * max(height, 1))


def test_the_keys_that_are_left_out_weigh_less_than_float32_can_tell() -> None:
    queries, keys, _ = peaked_inputs(64, 2000)
    weights = (queries[0].double() @ keys[0].double().T).softmax(1)
    kept = fused._mattering(fused._shifted(queries[0], keys[0]))
    assert 0 < kept.sum() < 2000
    assert weights[:, ~kept].sum(1).max() < 2**-24


def test_peaked_and_flat_tables_are_told_apart() -> None:
    queries, keys, _ = peaked_inputs(256, 2000)
    assert fused._share_that_matters(queries[0] * 5, keys[0]) < fused.FEW
    assert fused._share_that_matters(queries[0] / 40, keys[0]) == 1


class Largest(TorchDispatchMode):
    """The most elements of any tensor made within."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else [result]:
            if isinstance(made, Tensor):
                self.elements = max(self.elements, made.numel())
        return result


@pytest.mark.parametrize(("e", "height"), [(16, 0.2), (24, 0.2), (16, 40.0)])
def test_the_whole_table_is_never_made_neither_forward_nor_backward(e: int, height: float) -> None:
    leaves = inputs(4, 1, 2100, 2100, 16, e, height)
    with Largest() as largest:
        gradients(attend(*leaves), leaves)
    assert largest.elements <= fused.TABLE
    with Largest() as largest:
        gradients(literal(*leaves), leaves)
    assert largest.elements >= 2100 * 2100


@pytest.mark.parametrize("chunk", [None, 2])
def test_autocast_changes_nothing(chunk: int | None) -> None:
    leaves = inputs(5, 2, 6, 9, 4, 4, height=30.0)
    plain = attend(*leaves, chunk=chunk)
    with torch.autocast("cpu", torch.bfloat16):
        cast = attend(*leaves, chunk=chunk)
    assert torch.equal(plain, cast)
    assert attend(*(x.bfloat16() for x in leaves)).dtype == torch.float32


def test_no_queries_give_no_rows() -> None:
    assert attend(*inputs(0, 1, 0, 5, 4, 4)).shape == (1, 0, 4)
    assert attend(*inputs(0, 1, 0, 5, 4, 6)).shape == (1, 0, 6)
