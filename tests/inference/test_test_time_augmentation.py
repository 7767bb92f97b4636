"""Several views made one: matching against nested loops, and what no view or order of queries may change."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from toy import Toy, moving_patches
from tubelet.core.errors import ConfigError
from tubelet.core.masks import decode
from tubelet.core.protocol import Traits, VideoSegmenter, Window
from tubelet.core.types import Clip, Tracks
from tubelet.inference.predict import predict, stream
from tubelet.inference.test_time_augmentation import (
    AugmentedView,
    Merging,
    Resizable,
    grid_of,
    match,
    matching_cost,
    on_grid,
    several,
    sides,
)

seeds = st.integers(0, 2**32 - 1)


def random_view(seed: int, queries: int = 5, frames: int = 2, size: tuple[int, int] = (4, 6)) -> AugmentedView:
    """Blobs with sharp edges, as trained masks have; a soft one is not always most like itself in Dice."""
    rng = np.random.default_rng(seed)
    return AugmentedView(
        probabilities=torch.from_numpy(rng.dirichlet(np.ones(4), queries)[:, :3]).float(),
        mask_logits=torch.from_numpy(rng.choice([-9.0, 9.0], (queries, frames, *size))).float(),
    )


def merged(pivot: AugmentedView, *others: AugmentedView) -> AugmentedView:
    merging = Merging(pivot)
    for other in others:
        merging.add(other)
    return merging.mean()


def looped_cost(view: AugmentedView, pivot: AugmentedView) -> list[list[float]]:
    """Eq. 4, cell by cell."""
    table = []
    for p, logits in zip(view.probabilities, view.mask_logits, strict=True):
        row = []
        for q, truth in zip(pivot.probabilities, pivot.mask_logits, strict=True):
            entropy = product = total = 0.0
            for x, y in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
                a, b = 1 / (1 + math.exp(-x)), 1 / (1 + math.exp(-y))
                entropy -= b * math.log(a) + (1 - b) * math.log(1 - a)
                product += a * b
                total += a + b
            dice = 1 - (2 * product + 1) / (total + 1)
            row.append(-2 * p[q.argmax()].item() + 5 * entropy / logits.numel() + 5 * dice)
        table.append(row)
    return table


@settings(max_examples=10)
@given(seed=seeds)
def test_the_cost_of_matching_is_the_equation_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    view, pivot = (
        replace(v, mask_logits=torch.from_numpy(rng.normal(0, 2, v.mask_logits.shape)).float())
        for v in (random_view(seed), random_view(seed + 1))
    )
    for found, expected in zip(matching_cost(view, pivot).tolist(), looped_cost(view, pivot), strict=True):
        assert found == pytest.approx(expected, abs=1e-4)


# invariants


@settings(max_examples=20)
@given(seed=seeds, copies=st.integers(1, 4))
def test_identical_copies_give_the_input_back(seed: int, copies: int) -> None:
    view = random_view(seed)
    result = merged(view, *[view] * copies)
    torch.testing.assert_close(result.probabilities, view.probabilities)
    torch.testing.assert_close(result.mask_logits, view.mask_logits, atol=0.02, rtol=0)  # through probabilities


@settings(max_examples=20)
@given(seed=seeds)
def test_the_order_of_another_view_s_queries_changes_nothing(seed: int) -> None:
    pivot, other = random_view(seed), random_view(seed + 1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(5))
    permuted = AugmentedView(probabilities=other.probabilities[order], mask_logits=other.mask_logits[order])
    first, second = merged(pivot, other), merged(pivot, permuted)
    torch.testing.assert_close(second.probabilities, first.probabilities)
    torch.testing.assert_close(second.mask_logits, first.mask_logits)


def test_the_order_of_the_pivot_s_queries_is_kept() -> None:
    pivot = random_view(3)
    order = torch.tensor([4, 2, 0, 3, 1])
    other = AugmentedView(probabilities=pivot.probabilities[order], mask_logits=pivot.mask_logits[order])
    assert torch.equal(order[match(other, pivot)], torch.arange(5))


def test_probabilities_are_averaged_and_not_logits() -> None:
    pivot = AugmentedView(probabilities=torch.tensor([[0.9, 0.1]]), mask_logits=torch.tensor([[[[4.0, -1.0]]]]))
    other = AugmentedView(probabilities=torch.tensor([[0.5, 0.3]]), mask_logits=torch.tensor([[[[-1.0, -3.0]]]]))
    result = merged(pivot, other)
    assert result.probabilities.tolist() == [pytest.approx([0.7, 0.2])]
    expected = [(torch.tensor([4.0, -1.0]).sigmoid() + torch.tensor([-1.0, -3.0]).sigmoid()).div(2).tolist()]
    assert result.mask_logits.sigmoid().flatten().tolist() == pytest.approx(expected[0])


def test_the_pivot_itself_is_not_changed_by_what_is_added() -> None:
    pivot = random_view(0)
    before = AugmentedView(probabilities=pivot.probabilities.clone(), mask_logits=pivot.mask_logits.clone())
    merged(pivot, random_view(1))
    assert torch.equal(pivot.probabilities, before.probabilities)
    assert torch.equal(pivot.mask_logits, before.mask_logits)


# sizes


def test_four_views_are_those_of_our_reading_of_the_paper() -> None:
    assert sides(4) == (360, 420, 480, 540)
    assert sides(2) == (360, 540)


@pytest.mark.parametrize(
    ("size", "grid"), [((720, 1280), (120, 213)), ((1280, 720), (213, 120)), ((50, 50), (120, 120))]
)
def test_masks_meet_on_a_quarter_of_the_480_size(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert grid_of(size) == grid
    answer = AugmentedView(probabilities=torch.zeros(3, 2), mask_logits=torch.randn(3, 2, 9, 16))
    view = on_grid(answer, grid)
    assert view.mask_logits.shape == (3, 2, *grid)
    expected = F.interpolate(answer.mask_logits, grid, mode="bilinear", align_corners=False)
    torch.testing.assert_close(view.mask_logits, expected)


# as a segmenter


class Queries(Toy):
    """The toy as a model of queries: one for each colour, in an order that depends on the size it looks at."""

    traits = Traits(vote="mean", average="logits", resizable=True)

    def __init__(self, window: Window | None = None) -> None:
        super().__init__(window, shrink=1)
        self.looked: list[int | None] = []

    def look(self, frames: Tensor, short: int | None = None) -> AugmentedView:
        self.looked.append(short)
        order = torch.randperm(len(self.classes), generator=torch.Generator().manual_seed(short or 0))
        scores = 0.8 * torch.eye(len(self.classes)) + 0.05
        return AugmentedView(probabilities=scores[order], mask_logits=self._soft(frames).sub(0.5).mul(20)[order])

    def settle(self, state: Any, answer: AugmentedView, index: Tensor, shot: int = 0) -> tuple[Any, Tracks]:
        colour = answer.probabilities.argmax(1)  # a colour is an identity
        masks = answer.mask_logits.sigmoid()
        return state, Tracks(ids=colour, scores=answer.probabilities, masks=masks, index=index)

    def step(self, state: Any, clip: Clip) -> tuple[Any, Tracks]:
        return self.settle(state, self.look(clip.frames[clip.key]), clip.index[clip.key])


def test_views_of_a_model_are_a_segmenter_that_asks_it_at_every_size() -> None:
    model = Queries(Window(length=None))
    viewed = several(model, 4)
    assert isinstance(model, Resizable)
    assert isinstance(viewed, VideoSegmenter)
    prediction = predict(model, moving_patches(3), views=4)
    assert sorted(filter(None, model.looked)) == [360, 420, 480, 540]
    assert [track.id for track in prediction.tracks] == [0, 2]
    assert [track.score for track in prediction.tracks] == pytest.approx([0.85, 0.85])


@pytest.mark.parametrize("views", [1, 2, 4])
def test_views_that_agree_find_what_one_finds(views: int) -> None:
    video = moving_patches(4, size=(120, 160), patch=30)
    one, several_ = predict(Queries(), video), predict(Queries(), video, views=views)
    for first, second in zip(one.tracks, several_.tracks, strict=True):
        assert (first.id, first.label) == (second.id, second.label)
        for a, b in zip(first.rles, second.rles, strict=True):
            assert a is not None
            assert b is not None
            assert (decode([a])[0] == decode([b])[0]).mean() > 0.98  # edges fall between cells of the common grid


def test_views_stream_too() -> None:
    frames = list(stream(Queries(Window(length=2)), moving_patches(4), views=2))
    assert [frame.ids.tolist() for frame in frames] == [[0, 2]] * 4


def test_a_seed_draws_the_pivot() -> None:
    model = Queries()
    pivots = {several(model, 4, seed=seed).pivot for seed in range(30)}  # type: ignore[attr-defined]
    assert pivots == {0, 1, 2, 3}
    assert several(model, 4, seed=5).pivot == several(model, 4, seed=5).pivot  # type: ignore[attr-defined]


def test_views_leave_the_model_s_mode_as_it_was() -> None:
    for training in (True, False):
        model = Queries().train(training)
        predict(model, moving_patches(2), views=2)
        assert model.training is training
        assert isinstance(model, nn.Module)


def test_one_view_is_the_model_itself() -> None:
    model = Queries()
    assert several(model, 1) is model


def test_a_model_without_queries_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"views=4: expected a model with queries.*got Toy"):
        predict(Toy(), moving_patches(1), views=4)


@pytest.mark.parametrize("views", [0, -1, 17])
def test_a_number_of_views_that_makes_no_sense_is_refused(views: int) -> None:
    with pytest.raises(ConfigError, match="from 1 to 16"):
        predict(Queries(), moving_patches(1), views=views)
