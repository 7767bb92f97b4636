"""STA: each equation against loops, and what the block promises to its host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tubelet.attention import fused
from tubelet.attention.sta import STA, STAConfig, attention, combine, correlation, fused_attention
from tubelet.core.errors import ConfigError


def maps(seed: int, *size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def block(seed: int = 0, maps_channels: int = 6, **fields: object) -> STA:
    torch.manual_seed(seed)
    return STAConfig.model_validate({"gamma_init": 0.7, **fields}).build(maps_channels)


@contextmanager
def chunks_of(size: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every table counts as large, and its queries go in chunks of that size."""
    with monkeypatch.context() as patch:
        patch.setattr(fused, "LARGE", 1)
        patch.setattr(fused, "_chunk", lambda _: size)
        patch.setattr(fused, "_suits_kernel", lambda *_: False)
        yield


# equations


def test_equation_1_is_that_of_loops_over_cells() -> None:
    previous, current = maps(0, 2, 3, 4), maps(1, 2, 3, 5)
    ours = correlation(previous, current, 0.5)
    for b in range(2):
        for column in range(5):
            exponents = [
                (0.5 * sum(previous[b, d, row] * current[b, d, column] for d in range(3))).exp() for row in range(4)
            ]
            for row in range(4):
                torch.testing.assert_close(ours[b, row, column], exponents[row] / sum(exponents))


def test_equation_2_is_that_of_loops_over_cells() -> None:
    values, weights = maps(0, 2, 3, 4), maps(1, 2, 4, 5)
    ours = attention(values, weights)
    for b in range(2):
        for c in range(3):
            for column in range(5):
                wanted = sum(values[b, c, row] * weights[b, row, column] for row in range(4))
                torch.testing.assert_close(ours[b, c, column], wanted)


def test_equation_3_is_that_of_loops_over_cells() -> None:
    refined, current, gamma = maps(0, 1, 2, 2, 3), maps(1, 1, 2, 2, 3), torch.tensor(0.3)
    ours = combine(refined, current, gamma)
    for c in range(2):
        for y in range(2):
            for x in range(3):
                torch.testing.assert_close(ours[0, c, y, x], 0.3 * refined[0, c, y, x] + current[0, c, y, x])


@pytest.mark.parametrize("scale", ["none", "sqrt"])
@pytest.mark.parametrize("value_from", ["current", "previous"])
def test_the_block_is_its_equations_written_as_loops(scale: str, value_from: str) -> None:
    sta = block(maps_channels=4, kernel=1, scale=scale, value_from=value_from)
    x1, x0 = maps(1, 1, 4, 2, 3), maps(2, 1, 1, 4, 2, 3)
    out = sta(x1, x0)
    cells = [(y, x) for y in range(2) for x in range(3)]

    def conv(layer: torch.nn.Conv2d, image: Tensor, y: int, x: int) -> list[Tensor]:
        kernel, bias = layer.weight[:, :, 0, 0], layer.bias
        assert bias is not None
        return [sum((kernel[o, i] * image[i, y, x] for i in range(4)), bias[o]).clamp(min=0) for o in range(4)]

    source = x1[0] if value_from == "current" else x0[0, 0]
    for y, x in cells:
        query = conv(sta.match, x1[0], y, x)
        logits = [sum(a * b for a, b in zip(query, conv(sta.match, x0[0, 0], *cell), strict=True)) for cell in cells]
        exponents = [(logit / (2 if scale == "sqrt" else 1)).exp() for logit in logits]
        for c in range(4):
            seen = sum(w * conv(sta.value, source, *cell)[c] for w, cell in zip(exponents, cells, strict=True))
            wanted = 0.7 * seen / sum(exponents) + x1[0, c, y, x]
            torch.testing.assert_close(out[0, c, y, x], wanted, rtol=1e-5, atol=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), k=st.integers(1, 9), width=st.integers(1, 9), chunk=st.none() | st.integers(1, 12))
def test_the_fused_form_is_equations_1_and_2(seed: int, k: int, width: int, chunk: int | None) -> None:
    previous, current, values = maps(seed, 2, 5, k), maps(seed + 1, 2, 5, width), maps(seed + 2, 2, 3, k)
    wanted = attention(values, correlation(previous, current, 0.5))
    torch.testing.assert_close(fused_attention(previous, current, values, 0.5, chunk=chunk), wanted)


# invariants


@given(seed=st.integers(0, 1000))
def test_gamma_zero_is_the_identity(seed: int) -> None:
    sta = block(seed, gamma_init=0.0)
    for dtype in (torch.float32, torch.bfloat16):
        current = maps(seed, 2, 6, 3, 4).to(dtype)
        assert torch.equal(sta(current, maps(seed + 1, 2, 1, 6, 3, 4).to(dtype)), current)


@given(seed=st.integers(0, 1000), height=st.floats(0.1, 50))
def test_columns_of_the_correlation_sum_to_one_and_rows_need_not(seed: int, height: float) -> None:
    weights = correlation(height * maps(seed, 2, 4, 6), maps(seed + 1, 2, 4, 6))
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 6))
    assert (weights.sum(2) - 1).abs().max() > 1e-3


@given(seed=st.integers(0, 1000))
def test_the_order_of_previous_cells_matters_only_where_values_are_the_current_ones(seed: int) -> None:
    current, context = maps(seed, 1, 6, 3, 4), maps(seed + 1, 1, 1, 6, 3, 4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    shuffled = context.flatten(3)[..., order].unflatten(3, (3, 4))
    free = block(seed, kernel=1, value_from="previous")
    torch.testing.assert_close(free(current, shuffled), free(current, context))
    if not torch.equal(order, torch.arange(12)):  # Eq. 2 to the letter mixes the two frames' cells
        bound = block(seed, kernel=1, value_from="current")
        assert not torch.allclose(bound(current, shuffled), bound(current, context), atol=1e-6)


def test_a_previous_frame_without_contrast_gives_the_mean_of_the_values() -> None:
    sta = block(kernel=1)
    current = maps(0, 2, 6, 3, 4)
    update = sta(current, torch.full((2, 1, 6, 3, 4), 0.4)) - current
    mean = torch.relu(sta.value(current)).mean((2, 3), keepdim=True)
    torch.testing.assert_close(update, (0.7 * mean).expand_as(update), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 5, 12, 100])
@pytest.mark.parametrize("channels", [None, 3])
def test_chunks_give_the_whole_answer_and_gradient(
    size: int, channels: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sta = block(channels=channels, value_from="previous")
    current, context = maps(0, 2, 6, 3, 4).requires_grad_(), maps(1, 2, 2, 6, 3, 4).requires_grad_()
    leaves = [current, context, *sta.parameters()]
    whole = sta(current, context)
    wanted = torch.autograd.grad(whole.square().sum(), leaves)
    with chunks_of(size, monkeypatch):
        chunked = sta(current, context)
        ours = torch.autograd.grad(chunked.square().sum(), leaves)
    torch.testing.assert_close(chunked, whole)
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_gamma_learns_from_its_zero_and_then_all_else_does() -> None:
    sta = block(gamma_init=0.0)
    current, context = maps(0, 1, 6, 4, 4), maps(1, 1, 1, 6, 4, 4)
    sta(current, context).square().sum().backward()
    assert sta.gamma.grad is not None
    assert sta.gamma.grad != 0
    with torch.no_grad():
        sta.gamma -= 0.1 * sta.gamma.grad.sign()
    sta.zero_grad()
    sta(current, context).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in sta.parameters())


# the block and its host


def test_padding_changes_nothing_in_the_image() -> None:
    sta = block(value_from="previous", kernel=1)
    current, context = maps(0, 1, 6, 3, 4), maps(1, 1, 1, 6, 3, 4)
    wide = [torch.nn.functional.pad(x, (0, 2, 0, 1), value=9.0) for x in (current, context)]
    valid = torch.zeros(1, 1, 4, 6, dtype=torch.bool)
    valid[..., :3, :4] = True
    torch.testing.assert_close(sta(*wide, valid)[..., :3, :4], sta(current, context))
    assert not torch.allclose(sta(*wide)[..., :3, :4], sta(current, context))


def test_images_of_a_batch_do_not_mix() -> None:
    sta = block()
    current, context = maps(0, 3, 6, 3, 4), maps(1, 3, 1, 6, 3, 4)
    valid = torch.ones(3, 1, 3, 4, dtype=torch.bool)
    valid[1, ..., 2:] = False
    together = sta(current, context, valid)
    for b in range(3):
        alone = sta(current[b : b + 1], context[b : b + 1], valid[b : b + 1])
        torch.testing.assert_close(together[b : b + 1], alone)


@given(seed=st.integers(0, 100), supports=st.integers(1, 4))
def test_several_frames_are_one_set_of_keys_whose_order_is_free(seed: int, supports: int) -> None:
    sta = block(seed, value_from="previous")
    current, context = maps(seed, 1, 6, 3, 4), maps(seed + 1, 1, supports, 6, 3, 4)
    out = sta(current, context)
    torch.testing.assert_close(sta(current, context.flip(1)), out)
    torch.testing.assert_close(sta(current, context.repeat(1, 2, 1, 1, 1)), out)


def test_values_of_the_current_frame_need_one_previous_map_of_its_size() -> None:
    sta = block(value_from="current")
    current = maps(0, 2, 6, 3, 4)
    for size in ((2, 2, 6, 3, 4), (2, 1, 6, 4, 3), (1, 1, 6, 3, 4)):
        with pytest.raises(ValueError, match=r"expected context of shape \(2, 1, 6, 3, 4\), got \("):
            sta._source(current, maps(1, *size))


def test_autocast_changes_nothing() -> None:
    sta = block()
    current, context = 8 * maps(0, 1, 6, 4, 4), 8 * maps(1, 1, 1, 6, 4, 4)
    plain = sta(current, context)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sta(current, context), plain)


def test_looking_shows_the_weights_that_the_answer_is_made_of() -> None:
    sta = block(value_from="previous")
    current, context = maps(0, 1, 6, 3, 4), maps(1, 1, 2, 6, 3, 4)
    valid = torch.ones(1, 2, 3, 4, dtype=torch.bool)
    valid[..., 3:] = False
    cells = torch.tensor([0, 7])
    seen = sta.look(current, context, cells, valid)
    assert seen.shape == (2, 2, 3, 4)
    assert not seen[..., 3:].any()
    torch.testing.assert_close(seen.sum((1, 2, 3)), torch.ones(2))
    values = torch.relu(sta.value(context[0]))  # [S, C, H, W]
    update = torch.einsum("nshw,schw->nc", seen, values)
    wanted = (sta(current, context, valid) - current).flatten(2)[0, :, cells].T / sta.gamma
    torch.testing.assert_close(update, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "wanted"), [(None, 1_180_161), (64, 737_601)])
def test_the_block_has_the_papers_size(channels: int | None, wanted: int) -> None:
    with torch.device("meta"):
        sta = STAConfig(channels=channels).build(256)
    assert sum(p.numel() for p in sta.parameters()) == wanted


def test_xavier_starts_within_its_bounds_and_without_bias() -> None:
    sta = block(maps_channels=16, init="xavier")
    bound = (6 / (2 * 16 * 9)) ** 0.5
    assert 0.9 * bound < sta.match.weight.abs().max() <= bound
    assert not sta.match.bias.any()  # type: ignore[union-attr]


def test_unknown_levels_and_empty_ones_are_refused() -> None:
    for assignment in ("levels=[]", 'levels=["C5"]', "gamma_init=NaN", "kernel=5"):
        with pytest.raises(ConfigError):
            STAConfig().override(assignment)
