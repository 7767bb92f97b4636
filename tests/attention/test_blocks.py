"""Attention with a mask, the query layer and the sine positions, against loops over their equations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tubelet.attention.blocks import (
    MultiHeadAttention,
    QueryLayer,
    masked_attention,
    sine_code,
    sine_position,
    sine_time,
    unblock,
)


def attention_in_loops(queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | None) -> Tensor:
    """softmax(M + Q K^T / sqrt(d)) V, one number after another."""
    out = torch.zeros_like(queries)
    batch, heads, rows, channels = queries.shape
    for b in range(batch):
        for h in range(heads):
            for q in range(rows):
                weights = []
                for token in range(keys.shape[2]):
                    logit = sum(float(queries[b, h, q, c] * keys[b, h, token, c]) for c in range(channels))
                    seen = allowed is None or bool(allowed[b, 0, q, token])
                    weights.append(math.exp(logit / math.sqrt(channels)) if seen else 0.0)
                for token, weight in enumerate(weights):
                    out[b, h, q] += weight / sum(weights) * values[b, h, token]
    return out


@pytest.mark.parametrize("with_mask", [False, True])
def test_attention_is_its_equation(with_mask: bool) -> None:
    torch.manual_seed(0)
    queries, keys, values = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 6, 5), torch.randn(2, 3, 6, 5)
    allowed = unblock(torch.rand(2, 1, 4, 6) > 0.6) if with_mask else None
    expected = attention_in_loops(queries, keys, values, allowed)
    torch.testing.assert_close(masked_attention(queries, keys, values, allowed), expected)


def test_rows_of_attention_sum_to_one() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 7, 4)
    allowed = unblock(torch.rand(1, 1, 5, 7) > 0.8)
    sums = masked_attention(queries, keys, torch.ones(1, 2, 7, 4), allowed)
    torch.testing.assert_close(sums, torch.ones_like(sums))


@given(st.integers(0, 2**32 - 1))
def test_unblocking_frees_the_rows_that_see_nothing_and_no_others(seed: int) -> None:
    allowed = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(seed)) > 0.7
    freed = unblock(allowed)
    empty = ~allowed.any(-1)
    assert freed[empty].all()
    assert torch.equal(freed[~empty], allowed[~empty])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_fully_blocked_row_gives_finite_output_and_gradient(dtype: torch.dtype) -> None:
    queries = torch.randn(1, 2, 3, 4, dtype=dtype, requires_grad=True)
    keys, values = torch.randn(1, 2, 5, 4, dtype=dtype), torch.randn(1, 2, 5, 4, dtype=dtype)
    out = masked_attention(queries, keys, values, unblock(torch.zeros(1, 1, 3, 5, dtype=torch.bool)))
    out.sum().backward()
    assert out.isfinite().all()
    assert queries.grad is not None
    assert queries.grad.isfinite().all()


@torch.no_grad()
def test_multi_head_attention_projects_splits_and_joins() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(6, 3)
    queries, keys, values = torch.randn(2, 4, 6), torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    allowed = unblock(torch.rand(2, 4, 5) > 0.5)

    def heads(tokens: Tensor) -> Tensor:
        return torch.stack([tokens[..., 2 * h : 2 * h + 2] for h in range(3)], 1)

    gathered = attention_in_loops(
        heads(attention.q_proj(queries)),
        heads(attention.k_proj(keys)),
        heads(attention.v_proj(values)),
        allowed[:, None],
    )
    joined = torch.cat(list(gathered.unbind(1)), -1)
    found = attention(queries, attention.project(keys, values), allowed)
    torch.testing.assert_close(found, attention.out_proj(joined))


@pytest.mark.parametrize("width", [16, None])
def test_a_query_layer_adds_then_normalises_after_each_step(width: int | None) -> None:
    torch.manual_seed(0)
    layer = QueryLayer(8, 2, width)
    queries, position, tokens = torch.randn(2, 3, 8), torch.randn(3, 8), torch.randn(2, 5, 8)
    cross, own = layer.cross_attn, layer.self_attn
    memory = cross.project(tokens, tokens)
    x = layer.cross_attn_layer_norm(queries + cross(queries + position, memory))
    x = layer.self_attn_layer_norm(x + own(x + position, own.project(x + position, x)))
    if width is not None:
        x = layer.final_layer_norm(x + layer.fc2(layer.fc1(x).clamp(min=0)))
    torch.testing.assert_close(layer(queries, position, memory), x)


def test_memory_of_both_is_one_after_the_other() -> None:
    attention = MultiHeadAttention(4, 2)
    first, second = torch.randn(1, 3, 4), torch.randn(1, 2, 4)
    joined = attention.project(first, first).and_more(attention.project(second, second))
    whole = attention.project(torch.cat([first, second], 1), torch.cat([first, second], 1))
    torch.testing.assert_close(joined.keys, whole.keys)
    torch.testing.assert_close(joined.values, whole.values)


def test_memory_by_frame_takes_the_frames_of_every_clip() -> None:
    attention = MultiHeadAttention(4, 2)
    tokens = torch.randn(6, 5, 4)  # two clips of three frames
    parts = attention.project(tokens, tokens).by_frame(3)
    assert len(parts) == 3
    torch.testing.assert_close(parts[1].keys, attention.project(tokens[[1, 4]], tokens[[1, 4]]).keys)


def test_the_sine_code_is_its_equation() -> None:
    code = sine_code(torch.tensor([0.3, 2.0]), 6)
    for row, position in zip(code, (0.3, 2.0), strict=True):
        for i in range(3):
            angle = position / 1e4 ** (2 * i / 6)
            assert float(row[2 * i]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(row[2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_map_is_coded_by_row_then_column_in_parts_of_a_turn() -> None:
    code = sine_position(3, 4, 8, torch.device("cpu"))
    assert code.shape == (3, 4, 8)
    turn = 2 * math.pi
    torch.testing.assert_close(code[1, 2, :4], sine_code(torch.tensor(turn * 2 / 3), 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(code[1, 2, 4:], sine_code(torch.tensor(turn * 3 / 4), 4), atol=1e-5, rtol=0)


def test_the_code_of_time_depends_on_the_length_of_the_clip() -> None:
    device = torch.device("cpu")
    torch.testing.assert_close(sine_time(2, 8, device)[1], sine_time(4, 8, device)[3], atol=1e-5, rtol=0)
    assert not torch.allclose(sine_time(2, 8, device)[0], sine_time(4, 8, device)[0])


def test_the_weights_shown_are_those_that_attention_uses() -> None:
    """With one head, the weights times the projected values are what attention returns."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(channels=8, heads=1)
    tokens, queries = torch.randn(2, 6, 8), torch.randn(2, 3, 8)
    memory = attention.project(tokens, tokens)
    allowed = unblock(torch.rand(2, 3, 6) > 0.5)
    weights = attention.weights(queries, memory, allowed)
    assert weights[~allowed].eq(0).all()
    expected = attention.out_proj(weights @ memory.values[:, 0])
    torch.testing.assert_close(attention(queries, memory, allowed), expected)


def test_the_weights_shown_are_the_mean_over_heads() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(channels=8, heads=2)
    tokens, queries = torch.randn(1, 6, 8), torch.randn(1, 3, 8)
    weights = attention.weights(queries, attention.project(tokens, tokens))
    q, k = attention.q_proj(queries)[0], attention.k_proj(tokens)[0]
    heads = [(q[:, c] @ k[:, c].T / 2).softmax(-1) for c in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(weights[0], (heads[0] + heads[1]) / 2)
