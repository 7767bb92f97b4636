"""The affinity against loops over places, and what must hold of it whatever the features."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tubelet.attention.affinity import (
    AffinityConfig,
    affinity,
    box_attention,
    box_cells,
    carried,
    spatial_prior,
    weighted,
)

HEIGHT, WIDTH, DEPTH = 3, 4, 5
PLACES = HEIGHT * WIDTH
SIGMA = 1.5
seeds = st.integers(0, 2**31 - 1)


def random_case(seed: int = 0, objects: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Features of two frames and boxes filled with 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(PLACES, DEPTH, generator=generator)
    current = torch.randn(PLACES, DEPTH, generator=generator)
    inside = (torch.rand(objects, PLACES, generator=generator) > 0.5).float()
    return reference, current, inside


def by_loops(
    reference: Tensor, current: Tensor, weight: Tensor, sigma: float | None, renorm: bool
) -> list[list[float]]:
    """A (or A G) as the papers write it, one pair of places at a time."""
    r, x, w = reference.tolist(), current.tolist(), weight.tolist()
    table = [[0.0] * PLACES for _ in range(PLACES)]
    for q in range(PLACES):
        products = []
        for p in range(PLACES):
            total = 0.0
            for i in range(DEPTH):
                for j in range(DEPTH):
                    total += r[p][i] * w[i][j] * x[q][j]
            products.append(math.exp(total))
        shares = [one / sum(products) for one in products]
        if sigma is not None:
            for p in range(PLACES):
                down, across = p // WIDTH - q // WIDTH, p % WIDTH - q % WIDTH
                shares[p] *= math.exp(-(down**2 + across**2) / sigma**2)
            if renorm:
                shares = [one / sum(shares) for one in shares]
        for p in range(PLACES):
            table[p][q] = shares[p]
    return table


# equations


@pytest.mark.parametrize("renorm", [True, False])
@pytest.mark.parametrize("sigma", [None, SIGMA])
def test_the_affinity_is_the_papers(sigma: float | None, renorm: bool) -> None:
    reference, current, _ = random_case()
    weight = torch.randn(DEPTH, DEPTH, generator=torch.Generator().manual_seed(1))
    prior = None if sigma is None else spatial_prior(HEIGHT, WIDTH, sigma)
    wanted = torch.tensor(by_loops(reference, current, weight, sigma, renorm))
    torch.testing.assert_close(affinity(reference, weighted(current, weight), prior, renorm), wanted)


def test_the_spatial_prior_is_a_bell_about_each_place() -> None:
    first, second = spatial_prior(HEIGHT, WIDTH, SIGMA)
    for p in range(PLACES):
        for q in range(PLACES):
            square = (p // WIDTH - q // WIDTH) ** 2 + (p % WIDTH - q % WIDTH) ** 2
            assert math.exp(float(first[p] @ second[q])) == pytest.approx(math.exp(-square / SIGMA**2), rel=1e-4)


def test_the_spatial_prior_is_exact_at_the_papers_size() -> None:
    first, second = (table.double() for table in spatial_prior(48, 80, 8.0))
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(80.0), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], 1).double()
    wanted = -(torch.cdist(places, places) ** 2) / 64
    torch.testing.assert_close(first @ second.T, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("renorm", [True, False])
@pytest.mark.parametrize("sigma", [None, SIGMA])
def test_foreground_and_background_are_the_boxes_carried_over(sigma: float | None, renorm: bool) -> None:
    reference, current, inside = random_case()
    table = by_loops(reference, current, torch.eye(DEPTH), sigma, renorm)
    foreground, background = carried(
        reference, current, inside, None if sigma is None else spatial_prior(HEIGHT, WIDTH, sigma), renorm
    )
    for k in range(len(inside)):
        for q in range(PLACES):
            wanted = sum(float(inside[k, p]) * table[p][q] for p in range(PLACES))
            missed = sum((1 - float(inside[k, p])) * table[p][q] for p in range(PLACES))
            assert float(foreground[k, q]) == pytest.approx(wanted, abs=1e-5)
            assert float(background[k, q]) == pytest.approx(missed, abs=1e-5)


def test_box_attention_is_a_softmax_over_background_and_foreground() -> None:
    for temperature in (1.0, 4.0):
        for foreground in (0.0, 0.3, 1.0):
            for background in (0.0, 0.7):
                ours = box_attention(torch.tensor([foreground]), torch.tensor([background]), temperature)
                both = math.exp(temperature * foreground), math.exp(temperature * background)
                assert float(ours) == pytest.approx(both[0] / sum(both))


# boxes in cells


def test_a_box_covers_every_cell_that_it_touches() -> None:
    boxes = torch.tensor([[8.0, 0.0, 24.0, 8.0], [7.9, 7.9, 16.1, 8.1]])
    cells = box_cells(boxes, (2, 4), 8)
    assert cells[0].tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]
    assert cells[1].tolist() == [[1, 1, 1, 0], [1, 1, 1, 0]]


@given(corner=st.tuples(st.floats(-50, 150), st.floats(-50, 150)), extent=st.tuples(st.floats(0, 90), st.floats(0, 90)))
def test_every_box_has_a_cell_even_outside_the_frame(corner: tuple[float, float], extent: tuple[float, float]) -> None:
    box = torch.tensor([[*corner, corner[0] + extent[0], corner[1] + extent[1]]])
    cells = box_cells(box, (6, 9), 8)
    assert cells.sum() >= 1
    assert set(cells.unique().tolist()) <= {0.0, 1.0}


def test_a_box_smaller_than_a_cell_is_not_lost() -> None:
    assert box_cells(torch.tensor([[9.0, 9.0, 12.0, 12.0]]), (3, 3), 8).sum() == 1


# invariants


@given(seed=seeds, scale=st.floats(0.01, 30))
def test_columns_sum_to_one_and_rows_do_not(seed: int, scale: float) -> None:
    reference, current, _ = random_case(seed)
    for prior in (None, spatial_prior(HEIGHT, WIDTH, SIGMA)):
        table = affinity(scale * reference, scale * current, prior)
        torch.testing.assert_close(table.sum(0), torch.ones(PLACES))
    assert not torch.allclose(affinity(reference, current).sum(1), torch.ones(PLACES), atol=1e-3)


@given(seed=seeds)
def test_without_renormalisation_columns_sum_to_less_than_one(seed: int) -> None:
    reference, current, inside = random_case(seed)
    foreground, background = carried(reference, current, inside, spatial_prior(HEIGHT, WIDTH, SIGMA), renorm=False)
    mass = foreground + background
    assert (mass < 1).all()
    torch.testing.assert_close(mass, mass[:1].expand_as(mass))  # whatever the box


@given(seed=seeds, scale=st.floats(0.01, 30))
def test_foreground_and_background_sum_to_one_so_attention_is_bounded(seed: int, scale: float) -> None:
    reference, current, inside = random_case(seed)
    foreground, background = carried(scale * reference, scale * current, inside)
    torch.testing.assert_close(foreground + background, torch.ones_like(foreground))
    attention = box_attention(foreground, background)
    assert attention.min() >= 0.26894
    assert attention.max() <= 0.73106


def test_a_box_of_the_whole_frame_gives_the_same_attention_everywhere() -> None:
    reference, current, _ = random_case()
    whole = box_cells(torch.tensor([[0.0, 0.0, 8.0 * WIDTH, 8.0 * HEIGHT]]), (HEIGHT, WIDTH), 8).flatten(1)
    attention = box_attention(*carried(reference, current, whole))
    torch.testing.assert_close(attention, torch.full((1, PLACES), 1 / (1 + math.exp(-1))))


def test_the_same_frame_seen_sharply_gives_the_box_itself() -> None:
    _, current, inside = random_case()
    current = 100 * torch.nn.functional.normalize(current, dim=1)  # each place is most like itself
    torch.testing.assert_close(carried(current, current, inside)[0], inside)


@given(seed=seeds, columns=st.integers(1, PLACES + 3), renorm=st.booleans(), bell=st.booleans())
def test_any_number_of_columns_at_a_time_gives_the_same(seed: int, columns: int, renorm: bool, bell: bool) -> None:
    reference, current, inside = (t.requires_grad_() for t in random_case(seed))
    prior = spatial_prior(HEIGHT, WIDTH, SIGMA) if bell else None
    whole = affinity(reference, current, prior, renorm)
    wanted = inside @ whole, (1 - inside) @ whole
    got = carried(reference, current, inside, prior, renorm, columns)
    with torch.no_grad():
        unlearning = carried(reference, current, inside, prior, renorm, columns)
    for a, b, c in zip(got, wanted, unlearning, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(c, b)
    gradients = [torch.autograd.grad(f.square().sum(), (reference, current, inside)) for f, _ in (got, wanted)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@given(seed=seeds, order=st.permutations(range(4)))
def test_permuted_boxes_give_permuted_answers(seed: int, order: list[int]) -> None:
    reference, current, inside = random_case(seed, objects=4)
    foreground, _ = carried(reference, current, inside)
    torch.testing.assert_close(carried(reference, current, inside[order])[0], foreground[order])


def test_products_are_taken_in_full_precision_under_autocast() -> None:
    reference, current, inside = random_case()
    wanted = carried(20 * reference, 20 * current, inside)
    bell = spatial_prior(HEIGHT, WIDTH, SIGMA)
    in_part = carried(20 * reference, 20 * current, inside, bell, renorm=False)
    with torch.autocast("cpu", torch.bfloat16):
        got = carried(20 * reference, 20 * current, inside)
        got_in_part = carried(20 * reference, 20 * current, inside, bell, renorm=False)
    assert got[0].dtype == got_in_part[0].dtype == torch.float32
    torch.testing.assert_close((got, got_in_part), (wanted, in_part))


# weights


def labels_of(inside: Tensor) -> Tensor:
    return torch.tensor([2, 0, 1, 0])[: len(inside)]


@pytest.mark.parametrize("weight", ["shared", "per_class", "per_slot"])
def test_a_weight_starts_as_the_plain_affinity(weight: str) -> None:
    reference, current, inside = random_case(objects=4)
    module = AffinityConfig(weight=weight).build(DEPTH, 3)
    if weight == "per_slot":
        module.eval()  # in training it starts at random; at test it is the identity
    got = module(reference, current, inside, labels_of(inside))
    torch.testing.assert_close(got, carried(reference, current, inside), rtol=1e-5, atol=1e-6)


def test_a_slot_has_its_own_weight_in_training_and_none_at_test() -> None:
    reference, current, inside = random_case()
    torch.manual_seed(0)
    module = AffinityConfig(weight="per_slot", slots=2).build(DEPTH, 3)
    assert module.weight is not None
    for slot in range(4):
        wanted = carried(reference, weighted(current, module.weight[slot % 2]), inside)
        torch.testing.assert_close(module(reference, current, inside, labels_of(inside), slot), wanted)
    first, second = (module(reference, current, inside, labels_of(inside), slot)[0] for slot in (0, 1))
    assert not torch.allclose(first, second, atol=1e-3)
    plain = AffinityConfig().build(DEPTH, 3)
    for slot in range(2):
        got = module.eval()(reference, current, inside, labels_of(inside), slot)
        assert torch.equal(got[0], plain(reference, current, inside, labels_of(inside))[0])


def test_each_class_looks_through_its_own_weight() -> None:
    reference, current, inside = random_case(objects=4)
    module = AffinityConfig(weight="per_class").build(DEPTH, 3)
    assert module.weight is not None
    torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(1))
    labels = labels_of(inside)
    foreground, background = module(reference, current, inside, labels)
    for k, label in enumerate(labels.tolist()):
        one = carried(reference, weighted(current, module.weight[label + 1]), inside[k : k + 1])
        torch.testing.assert_close((foreground[k : k + 1], background[k : k + 1]), one)


@pytest.mark.parametrize("weight", ["none", "shared", "per_class"])
def test_one_can_look_where_a_place_of_the_current_frame_looks(weight: str) -> None:
    reference, current, inside = random_case()
    module = AffinityConfig(weight=weight).build(DEPTH, 3)
    for one in module.parameters():
        torch.nn.init.normal_(one, generator=torch.Generator().manual_seed(1))
    looks = module.look(reference, current[[4, 7]], label=2)
    assert looks.shape == (2, PLACES)
    foreground, _ = module(reference, current, inside, torch.full((len(inside),), 2))
    torch.testing.assert_close(inside @ looks.T, foreground[:, [4, 7]])


@pytest.mark.parametrize(("weight", "parameters"), [("none", 0), ("shared", 65_536), ("per_slot", 262_144)])
def test_weights_have_the_stated_number_of_parameters(weight: str, parameters: int) -> None:
    module = AffinityConfig(weight=weight).build(256, 40)
    assert sum(p.numel() for p in module.parameters()) == parameters


def test_a_weight_per_class_has_one_for_the_background_too() -> None:
    with torch.device("meta"):
        module = AffinityConfig(weight="per_class").build(256, 40)
    assert module.weight is not None
    assert module.weight.shape == (41, 256, 256)


@pytest.mark.parametrize("weight", ["shared", "per_class", "per_slot"])
@pytest.mark.parametrize("objects", [0, 3])
def test_a_weight_learns_even_where_there_is_no_object(weight: str, objects: int) -> None:
    reference, current, inside = random_case(objects=objects)
    module = AffinityConfig(weight=weight).build(DEPTH, 3)
    foreground, background = module(reference, current, inside, labels_of(inside))
    assert foreground.shape == background.shape == (objects, PLACES)
    foreground.square().sum().backward()
    assert module.weight is not None
    assert module.weight.grad is not None
    assert bool(module.weight.grad.any()) == (objects > 0)


# memory


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(t.numel() for t in tree_leaves(made) if isinstance(t, Tensor))])
        return made


@pytest.mark.parametrize("learning", [False, True])
def test_the_whole_affinity_never_exists_neither_forwards_nor_backwards(learning: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    reference, current = (torch.randn(400, 4, generator=generator, requires_grad=learning) for _ in range(2))
    inside = (torch.rand(2, 400, generator=generator) > 0.5).float()
    with Largest() as largest, torch.set_grad_enabled(learning):
        foreground, _ = carried(reference, current, inside, columns=20)
        if learning:
            foreground.square().sum().backward()
    assert largest.elements == 20 * 400
