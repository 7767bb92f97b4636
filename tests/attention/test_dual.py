"""CompFeat's dual module: each equation against loops, and what holds at frame level and at object level."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tubelet.attention import fused
from tubelet.attention.dual import (
    Dual,
    DualConfig,
    SpatialAttention,
    TemporalAttention,
    aggregate,
    dual,
    fused_aggregate,
    global_context,
    similarities,
)
from tubelet.core.errors import ConfigError


def maps(seed: int, *size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def module(seed: int = 0, maps_channels: int = 8, **fields: object) -> Dual:
    torch.manual_seed(seed)
    return DualConfig.model_validate({"zero_init": False, **fields}).build(maps_channels)


def temporal(seed: int = 0, **fields: object) -> TemporalAttention:
    built = module(seed, **fields).temporal
    assert built is not None
    return built


def spatial(seed: int = 0) -> SpatialAttention:
    built = module(seed).spatial
    assert built is not None
    return built


def linear(layer: nn.Conv2d, vector: list[Tensor]) -> list[Tensor]:
    """A 1x1 convolution at one cell."""
    assert layer.bias is not None
    kernel = layer.weight[:, :, 0, 0]
    return [sum((k * v for k, v in zip(row, vector, strict=True)), bias) for row, bias in zip(kernel, layer.bias)]  # noqa: B905


# equations


def test_equation_1_is_that_of_loops_over_cells() -> None:
    keys, queries, values = maps(0, 2, 3, 6), maps(1, 2, 3, 4), maps(2, 2, 3, 6)
    logits = similarities(keys, queries)
    seen = aggregate(values, logits)
    for b in range(2):
        for j in range(4):
            for i in range(6):
                wanted = sum(keys[b, d, i] * queries[b, d, j] for d in range(3))
                torch.testing.assert_close(logits[b, i, j], wanted)
            exponents = [logits[b, i, j].exp() for i in range(6)]
            for d in range(3):
                wanted = sum(e * values[b, d, i] for i, e in enumerate(exponents)) / sum(exponents)
                torch.testing.assert_close(seen[b, d, j], wanted)


@given(seed=st.integers(0, 1000), k=st.integers(1, 12), width=st.integers(0, 9), chunk=st.none() | st.integers(1, 9))
def test_the_fused_form_is_equation_1(seed: int, k: int, width: int, chunk: int | None) -> None:
    keys, queries, values = maps(seed, 2, 3, k), maps(seed + 1, 2, 3, width), maps(seed + 2, 2, 3, k)
    if not width:
        chunk = None
    wanted = aggregate(values, similarities(keys, queries))
    torch.testing.assert_close(fused_aggregate(keys, queries, values, chunk=chunk), wanted)


def test_the_global_context_is_that_of_loops_over_cells() -> None:
    features, logits = maps(0, 2, 3, 2, 2), maps(1, 2, 1, 2, 2)
    ours = global_context(features, logits)
    for b in range(2):
        for c in range(3):
            exponents = [[logits[b, 0, y, x].exp() for x in range(2)] for y in range(2)]
            total = sum(map(sum, exponents))
            wanted = sum(exponents[y][x] * features[b, c, y, x] for y in range(2) for x in range(2)) / total
            torch.testing.assert_close(ours[b, c, 0, 0], wanted)


def test_equation_2_adds_each_branch_and_the_current_maps_once() -> None:
    current, temporal, spatial = maps(0, 1, 2, 2, 2), maps(1, 1, 2, 2, 2), maps(2, 1, 2, 1, 1)
    both = dual(current, temporal, spatial)
    for c in range(2):
        for y in range(2):
            for x in range(2):
                wanted = current[0, c, y, x] + temporal[0, c, y, x] + spatial[0, c, 0, 0]
                torch.testing.assert_close(both[0, c, y, x], wanted)
    assert torch.equal(dual(current, None, spatial), current + spatial)
    assert torch.equal(dual(current, temporal, None), current + temporal)


@pytest.mark.parametrize("scale", ["none", "sqrt"])
@pytest.mark.parametrize("post_relu", [False, True])
def test_the_temporal_branch_is_its_equations_written_as_loops(scale: str, post_relu: bool) -> None:
    branch = temporal(scale=scale, post_relu=post_relu, key_channels=4)
    current, context = maps(1, 1, 8, 2, 2), maps(2, 1, 2, 8, 1, 3)
    out = branch(current, context)
    supports = [context[0, s, :, 0, x] for s in range(2) for x in range(3)]

    def encode(layer: nn.Conv2d, cell: Tensor) -> list[Tensor]:
        return [value.clamp(min=0) for value in linear(layer, list(cell))]

    for y in range(2):
        for x in range(2):
            query = encode(branch.query, current[0, :, y, x])
            logits = [sum(a * b for a, b in zip(query, encode(branch.key, s), strict=True)) for s in supports]
            exponents = [(logit / (2 if scale == "sqrt" else 1)).exp() for logit in logits]
            seen = [
                sum(e * encode(branch.value, s)[d] for e, s in zip(exponents, supports, strict=True)) / sum(exponents)
                for d in range(4)
            ]
            wanted = torch.stack(linear(branch.out, seen if post_relu else [value.clamp(min=0) for value in seen]))
            torch.testing.assert_close(out[0, :, y, x], wanted.clamp(min=0) if post_relu else wanted)


def test_the_spatial_branch_is_its_equations_written_as_loops() -> None:
    branch = spatial()
    current = maps(1, 2, 8, 2, 3)
    out = branch(current)
    for b in range(2):
        cells = [list(current[b, :, y, x]) for y in range(2) for x in range(3)]
        exponents = [linear(branch.weigh, cell)[0].exp() for cell in cells]
        average = [
            sum(e * cell[c] for e, cell in zip(exponents, cells, strict=True)) / sum(exponents) for c in range(8)
        ]
        narrow = torch.stack(linear(branch.squeeze, average))
        normal = (narrow - narrow.mean()) / (narrow.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(
            out[b, :, 0, 0], torch.stack(linear(branch.out, list(normal.clamp(min=0)))), rtol=1e-4, atol=1e-5
        )


# invariants


@given(seed=st.integers(0, 1000))
def test_zero_initialised_branches_are_the_identity(seed: int) -> None:
    fresh = module(seed, zero_init=True)
    for dtype in (torch.float32, torch.bfloat16):
        current = maps(seed, 2, 8, 3, 4).to(dtype)
        assert torch.equal(fresh(current, maps(seed + 1, 2, 2, 8, 3, 4).to(dtype)), current)


def test_zero_initialised_branches_learn_from_the_first_step_on() -> None:
    fresh = module(zero_init=True)
    current, context = maps(0, 2, 8, 3, 4), maps(1, 2, 2, 8, 3, 4)
    optimizer = torch.optim.SGD(fresh.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        fresh(current, context).pow(3).sum().backward()
        optimizer.step()
    # a bias of all logits alike moves no softmax: the one parameter without effect
    silent = {name for name, p in fresh.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-6}
    assert silent <= {"spatial.weigh.bias"}


@given(seed=st.integers(0, 1000), supports=st.integers(1, 4))
def test_the_order_of_supports_is_free_and_repeating_them_all_changes_nothing(seed: int, supports: int) -> None:
    dual = module(seed)
    current, context = maps(seed, 2, 8, 3, 4), maps(seed + 1, 2, supports, 8, 3, 4)
    out = dual(current, context)
    order = torch.randperm(supports, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(dual(current, context[:, order]), out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dual(current, context.repeat(1, 2, 1, 1, 1)), out, rtol=1e-5, atol=1e-5)


def test_columns_of_the_softmax_sum_to_one_over_all_supports() -> None:
    branch = temporal()
    seen = branch.look(maps(0, 1, 8, 3, 4), maps(1, 1, 3, 8, 2, 5), torch.arange(12))
    assert seen.shape == (12, 3, 2, 5)
    torch.testing.assert_close(seen.sum((1, 2, 3)), torch.ones(12))


def test_supports_without_contrast_give_one_update_for_all_cells() -> None:
    branch = temporal()
    context = maps(1, 2, 1, 8, 1, 1).expand(2, 3, 8, 4, 5)
    update = branch(maps(0, 2, 8, 3, 4), context)
    torch.testing.assert_close(update, update[..., :1, :1].expand_as(update))


@given(seed=st.integers(0, 1000))
def test_the_spatial_update_is_one_vector_that_no_order_of_cells_changes(seed: int) -> None:
    branch = spatial(seed)
    current = maps(seed, 2, 8, 3, 4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    shuffled = current.flatten(2)[..., order].unflatten(2, (3, 4))
    update = branch(current)
    assert update.shape == (2, 8, 1, 1)
    torch.testing.assert_close(branch(shuffled), update, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_chunks_give_the_whole_answer_and_gradient(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dual = module()
    current, context = maps(0, 3, 8, 3, 4).requires_grad_(), maps(1, 3, 2, 8, 2, 5).requires_grad_()
    leaves = [current, context, *dual.parameters()]
    whole = dual(current, context)
    wanted = torch.autograd.grad(whole.pow(3).sum(), leaves)
    monkeypatch.setattr(fused, "LARGE", 1)
    monkeypatch.setattr(fused, "_chunk", lambda _: size)
    monkeypatch.setattr(fused, "_suits_kernel", lambda *_: False)
    chunked = dual(current, context)
    torch.testing.assert_close(chunked, whole)
    for a, b in zip(torch.autograd.grad(chunked.pow(3).sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


# object level


@pytest.mark.parametrize("regions", [0, 1, 5])
def test_regions_that_share_a_context_are_as_if_each_had_its_own(regions: int) -> None:
    dual = module()
    current, context = maps(0, regions, 8, 3, 3), maps(1, 1, 2, 8, 4, 5).requires_grad_()
    valid = torch.ones(1, 2, 4, 5, dtype=torch.bool)
    valid[..., 4:] = False
    together = dual(current, context, valid)
    assert together.shape == (regions, 8, 3, 3)
    for p in range(regions):
        torch.testing.assert_close(together[p : p + 1], dual(current[p : p + 1], context, valid))
    together.sum().backward()  # works, and reaches every parameter, without regions too
    assert all(p.grad is not None for p in dual.parameters())


def test_regions_of_several_images_cannot_share_several_contexts() -> None:
    with pytest.raises(ValueError, match="one for each of 5 maps, got 2"):
        module()(maps(0, 5, 8, 3, 3), maps(1, 2, 2, 8, 4, 5))


# the module and its host


def test_padding_changes_nothing_in_the_image() -> None:
    dual = module()
    current, context = maps(0, 2, 8, 3, 4), maps(1, 2, 2, 8, 3, 4)
    wide = [nn.functional.pad(x, (0, 2, 0, 1), value=9.0) for x in (current, context)]
    inside = torch.zeros(2, 2, 4, 6, dtype=torch.bool)
    inside[..., :3, :4] = True
    torch.testing.assert_close(dual(*wide, inside, inside[:, 0])[..., :3, :4], dual(current, context))
    assert not torch.allclose(dual(*wide, inside)[..., :3, :4], dual(current, context))


def test_gradients_through_supports_can_be_switched_off() -> None:
    for through in (True, False):
        current, context = maps(0, 1, 8, 3, 4).requires_grad_(), maps(1, 1, 2, 8, 3, 4).requires_grad_()
        dual = module(context_gradient=through)
        dual(current, context).pow(2).sum().backward()
        assert (context.grad is not None) == through
        assert current.grad is not None
        assert dual.temporal is not None
        assert dual.temporal.key.weight.grad is not None


def test_autocast_changes_nothing() -> None:
    dual = module()
    current, context = 4 * maps(0, 1, 8, 4, 4), 4 * maps(1, 1, 2, 8, 4, 4)
    plain = dual(current, context)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dual(current, context), plain)


def test_looking_shows_the_weights_that_the_answer_is_made_of() -> None:
    dual = module(post_relu=True, spatial=False)
    current, context = maps(0, 1, 8, 3, 4), maps(1, 1, 2, 8, 3, 4)
    cells = torch.tensor([1, 11])
    seen = dual.look(current, context, cells)
    assert seen is not None
    assert dual.temporal is not None
    values = torch.relu(dual.temporal.value(context[0]))
    aggregated = torch.einsum("nshw,sdhw->nd", seen, values)
    update = torch.relu(dual.temporal.out(aggregated[..., None, None]))[..., 0, 0]
    wanted = (dual(current, context) - current).flatten(2)[0, :, cells].T
    torch.testing.assert_close(update, wanted, rtol=1e-4, atol=1e-5)
    assert module(temporal=False).look(current, context, cells) is None


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (DualConfig(spatial=False), 65_984),
        (DualConfig(spatial=False, kernel=3), 459_200),
        (DualConfig(temporal=False), 33_473),
        (DualConfig(temporal=False, ratio=16), 8_753),
        (DualConfig(), 65_984 + 33_473),
    ],
)
def test_branches_have_the_stated_sizes(config: DualConfig, wanted: int) -> None:
    with torch.device("meta"):
        built = config.build(256)
    assert sum(p.numel() for p in built.parameters()) == wanted


def test_a_module_that_could_not_do_or_learn_anything_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one of temporal and spatial"):
        DualConfig(temporal=False).override("spatial=false")
    with pytest.raises(ConfigError, match="zero_init=false"):
        DualConfig().override("post_relu=true")
    assert DualConfig().override("post_relu=true", "zero_init=false").post_relu
