"""The tag-based system's attentions against nested loops, and what must hold whatever the weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tubelet.attention.tags import (
    FrameReading,
    FrameReadingConfig,
    SelfReadingConfig,
    TagFeatures,
    coordinates,
    mean_weights,
    normalise,
    read_each_frame,
    read_itself,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def read_each_frame_by_loops(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    clips, frames, positions, width = queries.shape
    out = torch.zeros_like(values)
    for b in range(clips):
        for t in range(frames):  # is read
            for p in range(positions):
                for tau in range(frames):  # asks
                    scores = [float(queries[b, tau, p] @ keys[b, t, k]) / math.sqrt(width) for k in range(positions)]
                    total = sum(math.exp(s) for s in scores)
                    for k in range(positions):
                        out[b, t, p] += math.exp(scores[k]) / total * values[b, t, k] / frames
    return out


def read_itself_by_loops(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    out = torch.zeros_like(values)
    for b in range(len(queries)):
        for t in range(queries.shape[1]):
            for p in range(queries.shape[2]):
                scores = [float(queries[b, t, p] @ key) for key in keys[b, t]]
                total = sum(math.exp(s) for s in scores)
                for score, value in zip(scores, values[b, t], strict=True):
                    out[b, t, p] += math.exp(score) / total * value
    return out


@pytest.mark.parametrize("frames", [1, 3, 9, 17])  # fewer and more than ask at once
def test_every_frame_is_read_by_all_frames_as_in_the_loops(frames: int) -> None:
    queries, keys, values = noise(2, frames, 4, 3), noise(2, frames, 4, 3, seed=1), noise(2, frames, 4, 5, seed=2)
    expected = read_each_frame_by_loops(queries, keys, values)
    assert torch.allclose(read_each_frame(queries, keys, values), expected, atol=1e-5)


def test_a_frame_reads_itself_as_in_the_loops() -> None:
    queries, keys, values = noise(2, 3, 4, 3), noise(2, 3, 4, 3, seed=1), noise(2, 3, 4, 5, seed=2)
    assert torch.allclose(read_itself(queries, keys, values), read_itself_by_loops(queries, keys, values), atol=1e-5)


def literal(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """All T x T P x P weights at once."""
    scores = torch.einsum("btpd,bskd->bstpk", queries, keys) * queries.shape[-1] ** -0.5
    return torch.einsum("bstpk,bskc->bstpc", scores.softmax(-1), values).mean(2)


def test_looped_and_literal_attention_have_the_same_gradients() -> None:
    gradients = []
    for attend in (read_each_frame, literal):
        inputs = [noise(1, 10, 6, 4, seed=n).double().requires_grad_() for n in range(3)]
        attend(*inputs).sin().sum().backward()
        gradients.append([x.grad for x in inputs])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 1000))
def test_rows_of_weights_sum_to_one(frames: int, positions: int, seed: int) -> None:
    weights = mean_weights(noise(1, frames, positions, 3, seed=seed) * 9, noise(1, positions, 3, seed=seed + 1))
    assert torch.allclose(weights.sum(-1), torch.ones(1, positions), atol=1e-5)
    assert (weights >= 0).all()


def reading(inside: int = 6, outside: int = 4, *, residual: bool = True) -> FrameReading:
    torch.manual_seed(0)
    return FrameReadingConfig(keys=3, residual=residual).build(inside, outside)


@given(st.permutations(range(5)))
def test_permuting_the_frames_permutes_what_is_read(order: list[int]) -> None:
    module, features = reading(), noise(1, 6, 5, 2, 3)
    assert torch.allclose(module(features)[:, :, order], module(features[:, :, order]), atol=1e-6)


@pytest.mark.parametrize("residual", [True, False])
def test_mirroring_the_frames_mirrors_what_is_read_unless_coordinates_are_known(residual: bool) -> None:
    features = noise(1, 6, 3, 4, 5)
    blind = reading(residual=residual)
    assert torch.allclose(blind(features.flip(-1)), blind(features).flip(-1), atol=1e-6)
    placed, knows = reading(8, residual=residual), torch.cat([features, coordinates(features)], 1)
    mirrored = torch.cat([features.flip(-1), coordinates(features)], 1)
    assert not torch.allclose(placed(mirrored), placed(knows).flip(-1), atol=1e-3)


def test_without_a_residual_a_place_reads_alike_from_frames_that_are_alike() -> None:
    same = noise(1, 6, 1, 2, 3).expand(1, 6, 4, 2, 3)
    read = reading(residual=False)(same)
    assert torch.allclose(read, read[:, :, :1].expand_as(read), atol=1e-6)


def test_coordinates_run_from_the_first_cell_to_the_last() -> None:
    grid = coordinates(torch.zeros(2, 7, 3, 2, 3))
    assert grid.shape == (2, 2, 3, 2, 3)
    assert grid[1, 0, 2].tolist() == [[-1, 0, 1], [-1, 0, 1]]
    assert grid[0, 1, 0].tolist() == [[-1, -1, -1], [1, 1, 1]]


def test_self_attention_starts_as_no_change_and_then_reads() -> None:
    torch.manual_seed(0)
    module, features = SelfReadingConfig(keys=3).build(4), noise(2, 4, 3, 2, 3)
    assert torch.equal(module(features), features)
    with torch.no_grad():
        module.gamma.fill_(0.5)
    tokens = features.permute(0, 2, 3, 4, 1).flatten(2, 3)
    read = read_itself_by_loops(module.query(tokens), module.key(tokens), module.value(tokens))
    expected = 0.5 * read.unflatten(2, (2, 3)).permute(0, 4, 1, 2, 3) + features
    assert torch.allclose(module(features), expected, atol=1e-5)


@given(st.floats(-50, 50), st.floats(0.1, 20))
def test_tags_are_known_by_their_differences_alone(shift: float, scale: float) -> None:
    tags = noise(2, 1, 3, 8, 8).double()
    assert torch.allclose(normalise(tags * scale + shift), normalise(tags), atol=1e-3)
    assert normalise(tags).flatten(2).mean(-1).abs().max() < 1e-9


def test_constant_tags_stay_finite() -> None:
    assert (normalise(torch.full((1, 2, 3, 8, 8), 7.0)) == 0).all()


def test_tags_come_to_the_cells_that_hold_them() -> None:
    torch.manual_seed(0)
    module, tags = TagFeatures(1, 5), noise(1, 1, 2, 16, 24)
    whole = module(tags)
    assert whole.shape == (1, 5, 2, 2, 3)
    patch = normalise(tags)[0, 0, 1, 8:16, 16:24]
    expected = (module.shrink.weight[:, 0, 0] * patch).sum((1, 2)) + module.shrink.bias
    assert torch.allclose(whole[0, :, 1, 1, 2], expected.relu(), atol=1e-5)


def test_a_gradient_reaches_the_tags() -> None:
    tags = noise(1, 1, 2, 16, 16).requires_grad_()
    reading()(TagFeatures(1, 6)(tags)).square().sum().backward()
    assert tags.grad is not None
    assert tags.grad.abs().sum() > 0


def test_the_weights_shown_of_frame_reading_rebuild_its_output() -> None:
    torch.manual_seed(0)
    module = FrameReadingConfig(keys=4, residual=False).build(inside=6, outside=5)
    features = torch.randn(1, 6, 3, 2, 4)
    weights = module.weights(features, cell=5)  # row 1, column 1
    values = module.value(features.permute(0, 2, 3, 4, 1))[0]  # [T, H, W, C]
    expected = torch.einsum("thw,thwc->tc", weights.mean(0), values)
    torch.testing.assert_close(module(features)[0, :, :, 1, 1].T, expected)


def test_the_weights_shown_of_self_reading_rebuild_its_output() -> None:
    torch.manual_seed(0)
    module = SelfReadingConfig(keys=4).build(channels=6)
    torch.nn.init.ones_(module.gamma)
    features = torch.randn(1, 6, 3, 2, 4)
    weights = module.weights(features, t=2, cell=5)
    values = module.value(features[0, :, 2].permute(1, 2, 0))
    expected = features[0, :, 2, 1, 1] + torch.einsum("hw,hwc->c", weights, values)
    torch.testing.assert_close(module(features)[0, :, 2, 1, 1], expected)
