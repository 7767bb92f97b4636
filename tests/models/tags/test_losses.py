"""The tagging loss against nested loops, its invariants, and why the printed range of tags cannot be."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tubelet.core.types import Losses
from tubelet.models.tags.inputs import IGNORED, NOTHING, TagTruth
from tubelet.models.tags.losses import (
    TERMS,
    Means,
    TagLossConfig,
    cross_entropy,
    object_means,
    specter,
    tagging_losses,
    temper,
)

SUMS = TagLossConfig(reduction="paper")


def scene(objects: int, frames: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random tags [1, T, 4, 6] and owners: everything from absent to many pixels."""
    generator = torch.Generator().manual_seed(seed)
    owners = torch.randint(IGNORED, objects, (frames, 4, 6), generator=generator)
    return torch.randn(1, frames, 4, 6, generator=generator, dtype=torch.float64), owners


def values(losses: Losses) -> list[float]:
    return [float(losses[name]) for name in TERMS]


def loops(tags: Tensor, owners: Tensor, gap: float) -> dict[str, float]:
    """Eq. 2-5 as printed, and the mean of Eq. 1's squares, over all pixels."""
    objects = sorted(set(owners[owners >= 0].tolist()))
    frames = range(len(owners))
    of = {n: [float(x) for x in tags[0][owners == n]] for n in objects}
    of_frame = {(n, t): [float(x) for x in tags[0, t][owners[t] == n]] for n in objects for t in frames}
    mean = {n: sum(xs) / len(xs) for n, xs in of.items()}
    frame_mean = {key: sum(xs) / len(xs) for key, xs in of_frame.items() if xs}
    out = dict.fromkeys(TERMS, 0.0)
    for n in objects:
        out["spectra"] += sum((mean[n] - x) ** 2 for x in of[n]) / len(of[n]) / len(objects)
        for t in frames:
            if (n, t) in frame_mean:
                out["tempra"] += (mean[n] - frame_mean[n, t]) ** 2 / len(objects)
    for n in objects:
        for m in objects:
            if n < m:
                out["specter"] += max(0.0, gap - abs(mean[n] - mean[m]))
                for t in frames:
                    if (n, t) in frame_mean and (m, t) in frame_mean:
                        out["temper"] += max(0.0, gap - abs(frame_mean[n, t] - frame_mean[m, t]))
    return out


@pytest.mark.parametrize("objects", [0, 1, 2, 5, 20])
@pytest.mark.parametrize("gap", [0.4, 3.0])
def test_the_four_terms_are_those_of_the_loops(objects: int, gap: float) -> None:
    tags, owners = scene(objects)
    ours = tagging_losses(tags, owners, SUMS.but(gap=gap))
    expected = loops(tags, owners, gap)
    for name in ("specter", "tempra", "temper"):
        assert float(ours[name]) == pytest.approx(expected[name], abs=1e-9)
    # sampled: with so many pixels drawn, the sum over them comes close to so many times the mean
    many = tagging_losses(tags, owners, TagLossConfig(samples=20_000, reduction="balanced"))
    assert float(many["spectra"]) / 32 == pytest.approx(expected["spectra"], rel=0.05)


@given(st.integers(0, 6), st.integers(0, 1000), st.sampled_from(["paper", "balanced", "mean"]))
def test_no_term_is_negative(objects: int, seed: int, reduction: str) -> None:
    tags, owners = scene(objects, seed=seed)
    assert min(values(tagging_losses(tags, owners, TagLossConfig(reduction=reduction)))) >= 0


@given(st.permutations(range(5)), st.floats(3.01, 8))
def test_constant_tags_a_gap_apart_cost_exactly_nothing(order: list[int], gap: float) -> None:
    _, owners = scene(5)
    tags = torch.tensor([*(float(gap * n) for n in order), 1.0, -1.0])[owners][None]
    for reduction in ("paper", "balanced", "mean"):
        assert values(tagging_losses(tags, owners, TagLossConfig(gap=3.0, reduction=reduction))) == [0] * 4


@given(st.floats(-100, 100), st.integers(0, 100))
def test_a_constant_added_to_all_tags_changes_nothing(shift: float, seed: int) -> None:
    tags, owners = scene(3, seed=seed)
    before, after = (
        _same_draws(lambda: tagging_losses(tags, owners, SUMS)),
        _same_draws(lambda: tagging_losses(tags + shift, owners, SUMS)),
    )
    assert values(after) == pytest.approx(values(before), abs=1e-6)


@given(st.permutations(range(4)), st.integers(0, 100))
def test_relabelling_the_objects_changes_nothing(order: list[int], seed: int) -> None:
    tags, owners = scene(4, seed=seed)
    renamed = torch.tensor([*order, IGNORED, NOTHING])[owners]
    before, after = tagging_losses(tags, owners, SUMS), tagging_losses(tags, renamed, SUMS)
    for name in ("specter", "tempra", "temper"):
        assert float(after[name]) == pytest.approx(float(before[name]), abs=1e-9)


@given(st.floats(0, 2.9))
def test_two_objects_too_near_pay_what_is_missing(distance: float) -> None:
    _, owners = scene(2, frames=6)
    owners[0], owners[1] = 0, 1  # each is alone in one frame
    tags = torch.tensor([0.0, distance, 5.0, 9.0], dtype=torch.float64)[owners][None]
    both = sum(bool((frame == 0).any() and (frame == 1).any()) for frame in owners)
    assert both < 6
    expected = [0, 3 - distance, 0, both * (3 - distance)]
    assert values(tagging_losses(tags, owners, SUMS)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("reduction", ["paper", "balanced", "mean"])
def test_a_clip_without_objects_or_with_one_is_pushed_nowhere(reduction: str) -> None:
    config = TagLossConfig(reduction=reduction)
    for objects in (0, 1):
        tags, owners = scene(objects)
        tags.requires_grad_()
        losses = tagging_losses(tags, owners, config)
        assert float(losses["specter"]) == float(losses["temper"]) == 0
        sum(losses.values()).backward()
        assert tags.grad is not None
        assert tags.grad.isfinite().all()
        assert bool(tags.grad.any()) == bool(objects)


def test_ignored_and_background_pixels_have_no_say() -> None:
    tags, owners = scene(3)
    tags.requires_grad_()
    sum(tagging_losses(tags, owners, TagLossConfig()).values()).backward()
    assert tags.grad is not None
    assert not tags.grad[0][owners < 0].any()


def test_equal_tags_have_no_gradient_and_no_trap() -> None:
    _, owners = scene(3)
    tags = torch.zeros(1, *owners.shape, requires_grad=True)
    sum(tagging_losses(tags, owners, SUMS).values()).backward()
    assert tags.grad is not None
    assert tags.grad.isfinite().all()


def test_a_term_that_is_off_is_not_there() -> None:
    tags, owners = scene(2)
    for name in TERMS:
        losses = tagging_losses(tags, owners, TagLossConfig().override(f"{name}=false"))
        assert set(losses) == set(TERMS) - {name}


def test_tags_of_several_dimensions_are_apart_in_any_direction() -> None:
    owners = torch.tensor([[[0, 1, 2, -1]]])
    tags = torch.tensor([[0.0, 3, 0, 9], [0.0, 0, 3, 9]])[:, None, None]
    assert values(tagging_losses(tags, owners, SUMS)) == [0] * 4
    near = torch.tensor([[0.0, 1, 0, 9], [0.0, 0, 1, 9]])[:, None, None]
    expected = 2 * 2 + (3 - 2**0.5)
    assert float(tagging_losses(near, owners, SUMS)["specter"]) == pytest.approx(expected)


def test_means_of_absent_objects_are_marked() -> None:
    tags = torch.tensor([[1.0], [3.0], [8.0]])
    held = object_means(tags, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2, 3)
    assert held.means[:, 0].tolist() == [2, 8]
    assert held.present.tolist() == [[True, True, False], [False, True, False]]
    assert held.frame_means[held.present][:, 0].tolist() == [1, 3, 8]


# the gap and the range of tags


def descend(start: list[float], keep: Callable[[Tensor], Tensor]) -> list[float]:
    """The tags at which pushing alone ends, one object per tag."""
    tags = torch.tensor(start)
    for _ in range(4000):
        tags.requires_grad_()
        (push,) = torch.autograd.grad(specter(tags[:, None], SUMS), tags)
        tags = keep(tags.detach() - 0.01 * push)
    return tags.tolist()


def test_the_printed_range_merges_four_objects_into_two_and_ours_does_not() -> None:
    start = [0.2, 0.4, 0.6, 0.8]
    literal = descend(start, lambda tags: tags.clamp(0, 1))
    assert literal == pytest.approx([0, 0, 1, 1], abs=0.02)
    ours = sorted(descend(start, lambda tags: tags))
    gaps = [b - a for a, b in pairwise(ours)]
    assert min(gaps) > 2.9


def test_a_squashed_tag_merges_as_the_printed_range_does() -> None:
    logits = torch.logit(torch.tensor([0.2, 0.4, 0.6, 0.8])).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(2000):
        optimizer.zero_grad()
        specter(logits.sigmoid()[:, None], SUMS).backward()
        optimizer.step()
    assert logits.sigmoid().tolist() == pytest.approx([0, 0, 1, 1], abs=0.03)


# scales


def test_the_mean_does_not_grow_with_objects_or_frames() -> None:
    config = TagLossConfig(reduction="mean")
    for objects, frames in ((2, 1), (5, 1), (5, 7)):
        means = torch.zeros(objects, 1)
        held = Means(means, means[:, None].expand(objects, frames, 1), torch.ones(objects, frames, dtype=torch.bool))
        assert float(specter(means, config)) == float(temper(held, config)) == 3


def test_the_balanced_pull_does_not_grow_with_the_number_of_samples() -> None:
    tags, owners = scene(2)
    pulls = [
        float(_same_draws(lambda n=n: tagging_losses(tags, owners, TagLossConfig(samples=n)))["spectra"])
        for n in (2000, 8000)
    ]
    assert pulls[0] == pytest.approx(pulls[1], rel=0.1)
    raw = [
        float(tagging_losses(tags, owners, TagLossConfig(samples=n, reduction="paper"))["spectra"])
        for n in (2000, 8000)
    ]
    assert raw[1] / raw[0] == pytest.approx(4, rel=0.1)


def test_the_weight_scales_the_tagging_loss() -> None:
    tags, owners = scene(3)
    once, twice = (_same_draws(lambda w=w: tagging_losses(tags, owners, TagLossConfig(weight=w))) for w in (1, 2))
    assert values(twice) == pytest.approx([2 * v for v in values(once)])


def _same_draws(run: Callable[[], Losses]) -> Losses:
    torch.manual_seed(0)
    return run()


# cross-entropy


def test_cross_entropy_is_the_mean_over_cells_that_are_not_ignored() -> None:
    owners = torch.tensor([[[0, 1, NOTHING, IGNORED]]])
    logits = torch.randn(4, 1, 1, 4, generator=torch.Generator().manual_seed(0))
    log = logits.log_softmax(0)[:, 0, 0]
    loss = cross_entropy(logits, TagTruth(owners, torch.tensor([2, 0])), agnostic=False)
    assert float(loss) == pytest.approx(-float(log[3, 0] + log[1, 1] + log[0, 2]) / 3, abs=1e-6)
    blind = cross_entropy(logits[:2], TagTruth(owners, torch.tensor([2, 0])), agnostic=True)
    log = logits[:2].log_softmax(0)[:, 0, 0]
    assert float(blind) == pytest.approx(-float(log[1, 0] + log[1, 1] + log[0, 2]) / 3, abs=1e-6)


def test_cross_entropy_of_nothing_is_zero_with_a_gradient() -> None:
    logits = torch.randn(2, 1, 1, 3, requires_grad=True)
    loss = cross_entropy(
        logits, TagTruth(torch.full((1, 1, 3), IGNORED), torch.zeros(0, dtype=torch.int64)), agnostic=True
    )
    loss.backward()
    assert float(loss) == 0
    assert logits.grad is not None
