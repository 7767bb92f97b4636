"""The criterion: who is matched, what is compared where, and what must be equal or zero."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.models import losses
from tubelet.models.queries.criterion import Criterion, CriterionConfig, Target, apply_kernels
from tubelet.models.queries.prediction import Classification, QueryPrediction

Q, D, K, H, W = 5, 8, 3, 12, 16
CONFIG = CriterionConfig(points=48)
NO_PADDING = torch.ones(2)


def criterion(kind: Classification = "focal", cross: float = 0.3, *, all_layers: bool = True) -> Criterion:
    return CONFIG.build(kind, cross, all_layers=all_layers)


def squares(count: int, length: int) -> Tensor:
    masks = torch.zeros(count, length, 4 * H, 4 * W)
    for n, t in itertools.product(range(count), range(length)):
        masks[n, t, 4 * n : 4 * n + 12, 6 * n + 2 * t : 6 * n + 2 * t + 14] = 1
    return masks


def target(count: int = 2, length: int = 2) -> Target:
    return Target(labels=torch.arange(count) % K, masks=squares(count, length), padding=NO_PADDING)


def case(
    kind: Classification = "focal", batch: int = 1, length: int = 2, seed: int = 0
) -> tuple[QueryPrediction, Tensor]:
    made = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, Q, K + (kind == "ce"), generator=made)
    kernels = torch.randn(batch, length, Q, D, generator=made)
    features = torch.randn(batch, length, D, H, W, generator=made)
    return QueryPrediction(logits.requires_grad_(), kernels.requires_grad_()), features.requires_grad_()


def costs_by_loops(prediction: QueryPrediction, features: Tensor, truth: Target, points: Tensor) -> dict[str, Tensor]:
    """The three terms of Eq. 4 for every pair of a query and an object, [Q, M] each."""
    terms = {name: torch.zeros(Q, len(truth.labels)) for name in ("class", "entropy", "dice")}
    for q, m in itertools.product(range(Q), range(len(truth.labels))):
        x, y = [], []
        for t in range(len(features)):
            logits = torch.einsum("d,dhw->hw", prediction.kernels[0, t, q], features[t])
            x.append(losses.sample(logits[None, None], points)[0, 0])
            y.append(losses.sample(truth.masks[m, t][None, None], points)[0, 0])
        flat_x, flat_y = torch.cat(x), torch.cat(y)
        terms["class"][q, m] = -2 * prediction.logits[0, q].softmax(0)[truth.labels[m]]
        terms["entropy"][q, m] = 5 * F.binary_cross_entropy_with_logits(flat_x, flat_y)
        terms["dice"][q, m] = 5 * losses.dice(flat_x, flat_y)
    return terms


def cheapest(cost: Tensor) -> dict[int, int]:
    """Object -> query, by trying all."""
    best = min(itertools.permutations(range(Q), 2), key=lambda pair: float(cost[pair[0], 0] + cost[pair[1], 1]))
    return {0: best[0], 1: best[1]}


@torch.no_grad()
def test_matching_takes_the_cheapest_of_all_assignments_and_every_term_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = target(2)
    points = torch.rand(1, CONFIG.points, 2, generator=torch.Generator().manual_seed(7))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: points)
    decided = set()
    for seed in range(12):
        prediction, features = case("ce", seed=seed)
        prediction = prediction._replace(kernels=prediction.kernels / 4)  # so that no term outweighs the others
        terms = costs_by_loops(prediction, features[0], truth, points)
        expected = cheapest(sum(terms.values(), torch.zeros(())))
        queries, objects = criterion("ce").match(prediction, 0, features[0], truth)
        assert dict(zip(objects.tolist(), queries.tolist(), strict=True)) == expected
        without = {name: sum((t for n, t in terms.items() if n != name), torch.zeros(())) for name in terms}
        decided |= {name for name, cost in without.items() if cheapest(cost) != expected}
    assert decided == {"class", "entropy", "dice"}  # left out, each would have matched otherwise


def test_costs_that_are_no_numbers_cannot_stop_the_matching() -> None:
    prediction, features = case()
    with torch.no_grad():
        prediction.kernels[0, :, 0] = torch.nan
        prediction.kernels[0, :, 1] = torch.inf
    queries, objects = criterion().match(prediction, 0, features[0], target(2))
    assert len(queries) == 2
    assert set(objects.tolist()) == {0, 1}
    assert not {0, 1} & set(queries.tolist())


def test_a_kernel_is_compared_in_its_own_frame_and_in_the_others() -> None:
    prediction, features = case(length=3)
    kernels = prediction.kernels[0][:, :2]
    pairs = apply_kernels(kernels, features[0], 0.3)
    assert pairs.maps.shape == (2, 3, 3, H, W)
    for m, a, t in itertools.product(range(2), range(3), range(3)):
        torch.testing.assert_close(pairs.maps[m, a, t], torch.einsum("d,dhw->hw", kernels[a, m], features[0, t]))
        assert float(pairs.weights[a, t]) == pytest.approx(1.0 if a == t else 0.3)
    own = apply_kernels(kernels, features[0], 0.0)
    torch.testing.assert_close(own.maps[:, 0], pairs.maps[:, pairs.same_frame])


def test_mask_losses_are_sums_over_frames_divided_by_objects() -> None:
    """Against a loop over objects, kernels and frames, each with the points that the criterion draws."""
    prediction, features = case(length=2)
    truth, rule = target(2), criterion()
    maps = apply_kernels(prediction.kernels[0][:, [0, 1]], features[0], 0.3).maps
    torch.manual_seed(3)
    bce, dice = rule.of_masks(maps, truth)
    torch.manual_seed(3)
    points = losses.uncertain_points(maps.flatten(0, 2), CONFIG.points, 3.0, 0.75).unflatten(0, (2, 2, 2))
    for m, a, t in itertools.product(range(2), range(2), range(2)):
        where = points[m, a, t][None]
        x = losses.sample(maps[m, a, t][None, None], where)[0, 0]
        y = losses.sample(truth.masks[m, t][None, None], where)[0, 0]
        torch.testing.assert_close(bce[m, a, t], F.binary_cross_entropy_with_logits(x, y))
        torch.testing.assert_close(dice[m, a, t], losses.dice(x, y))
    torch.manual_seed(4)
    queries, objects = rule.match(prediction, 0, features[0], truth)
    pairs = apply_kernels(prediction.kernels[0][:, queries], features[0], 0.3)
    bce, dice = rule.of_masks(pairs.maps, Target(labels=truth.labels, masks=truth.masks[objects], padding=NO_PADDING))
    torch.manual_seed(4)
    found = rule([prediction], features, [truth])
    torch.testing.assert_close(found["mask_0"], 5 * (bce[:, 0, 0] + bce[:, 1, 1]).sum() / 2)
    torch.testing.assert_close(found["dice_0"], 5 * (dice[:, 0, 0] + dice[:, 1, 1]).sum() / 2)
    cross = 5 * (bce + dice)[:, 0, 1].sum() + 5 * (bce + dice)[:, 1, 0].sum()
    torch.testing.assert_close(found["cross_0"], 0.3 * cross / 2)


def test_lambda_zero_is_the_base_loss() -> None:
    prediction, features = case()
    torch.manual_seed(0)
    found = criterion(cross=0.0)([prediction], features, [target()])
    assert sorted(found) == ["class_0", "dice_0", "mask_0"]


def test_one_frame_has_no_cross_loss() -> None:
    prediction, features = case(length=1)
    torch.manual_seed(0)
    with_cross = criterion(cross=0.3)([prediction], features, [target(length=1)])
    torch.manual_seed(0)
    without = criterion(cross=0.0)([prediction], features, [target(length=1)])
    assert with_cross.pop("cross_0").item() == 0.0
    for name, loss in without.items():
        torch.testing.assert_close(with_cross[name], loss)


@pytest.mark.parametrize("length", [2, 3])
def test_in_identical_frames_the_cross_loss_is_the_own_loss_for_every_other_frame(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With lambda 1 and the same points everywhere."""
    prediction, features = case(length=1)
    same = QueryPrediction(prediction.logits, prediction.kernels.expand(-1, length, -1, -1))
    truth = Target(labels=torch.arange(2), masks=squares(2, 1).expand(-1, length, -1, -1), padding=NO_PADDING)
    points = torch.rand(1, CONFIG.points, 2)
    monkeypatch.setattr(losses, "uncertain_points", lambda maps, *_: points.expand(len(maps), -1, -1))
    found = criterion(cross=1.0)([same], features.expand(-1, length, -1, -1, -1), [truth])
    torch.testing.assert_close(found["cross_0"], (length - 1) * (found["mask_0"] + found["dice_0"]))


def test_the_cross_loss_may_be_on_the_last_prediction_alone() -> None:
    prediction, features = case()
    found = criterion(all_layers=False)([prediction, prediction], features, [target()])
    assert [name for name in found if name.startswith("cross")] == ["cross_1"]


def test_a_class_is_learnt_by_cross_entropy_with_a_light_no_object() -> None:
    prediction, features = case("ce")
    truth, rule = target(2), criterion("ce", 0.0)
    torch.manual_seed(0)
    queries, objects = rule.match(prediction, 0, features[0], truth)
    torch.manual_seed(0)
    found = rule([prediction], features, [truth])["class_0"]
    labels = [K] * Q
    for q, m in zip(queries.tolist(), objects.tolist(), strict=True):
        labels[q] = int(truth.labels[m])
    weights = [0.1 if label == K else 1.0 for label in labels]
    terms = [-w * prediction.logits[0, q].log_softmax(0)[labels[q]] for q, w in enumerate(weights)]
    torch.testing.assert_close(found, 2 * torch.stack(terms).sum() / sum(weights))


def test_a_class_is_learnt_by_focal_loss_over_the_number_of_objects() -> None:
    prediction, features = case()
    truth, rule = target(2), criterion()
    torch.manual_seed(0)
    queries, objects = rule.match(prediction, 0, features[0], truth)
    torch.manual_seed(0)
    found = rule([prediction], features, [truth])["class_0"]
    wanted = torch.zeros(1, Q, K)
    wanted[0, queries, truth.labels[objects]] = 1
    torch.testing.assert_close(found, 2 * losses.focal(prediction.logits, wanted).sum() / 2)


@pytest.mark.parametrize("kind", ["ce", "focal"])
@pytest.mark.parametrize("count", [0, Q, Q + 3])
def test_no_objects_as_many_as_queries_and_more(kind: Classification, count: int) -> None:
    prediction, features = case(kind)
    found = criterion(kind)([prediction], features, [target(count)])
    total = torch.stack(list(found.values())).sum()
    gradients = torch.autograd.grad(total, [*prediction, features])
    assert total.isfinite()
    assert all(g.isfinite().all() for g in gradients)
    assert (count > 0) == bool(gradients[1].abs().sum() > 0)


def test_a_clip_without_objects_beside_one_with_some() -> None:
    prediction, features = case(batch=2)
    both = criterion(cross=0.0)([prediction], features, [target(0), target(2)])
    torch.manual_seed(0)
    assert both["mask_0"] > 0
    assert both["class_0"].isfinite()


def test_an_absent_object_is_to_have_an_empty_mask() -> None:
    masks = squares(1, 2)
    masks[:, 1] = 0
    truth = Target(labels=torch.tensor([0]), masks=masks, padding=NO_PADDING)
    shown = torch.full((1, 2, 2, H, W), 9.0)
    (full, full_dice), (empty, empty_dice) = (criterion().of_masks(maps, truth) for maps in (shown, -shown))
    assert float(full[0, 1, 1]) > 5  # less than 9, because logits fade to 0 at the border of the map
    assert float(empty[0, 1, 1]) < 0.02
    assert float(full_dice[0, 1, 1]) > 0.9
    assert float(empty_dice[0, 1, 1]) < 0.3
    assert float(empty[0, 0, 0]) > 0.1  # but where it is present, it is missed


def test_the_dummy_label_is_learnt_as_no_object_but_keeps_its_mask_loss() -> None:
    for kind in ("ce", "focal"):
        prediction, features = case(kind)
        truth = Target(labels=torch.tensor([K]), masks=squares(1, 2), padding=NO_PADDING)
        found = criterion(kind)([prediction], features, [truth])
        (gradient,) = torch.autograd.grad(found["class_0"], prediction.logits, retain_graph=True)
        assert found["mask_0"] > 0
        assert (gradient[..., :K] > 0).all()  # no class is wanted of any query


def test_padding_is_no_part_of_the_truth() -> None:
    masks = torch.ones(1, 1, 8, 8)
    truth = Target(labels=torch.tensor([0]), masks=masks, padding=torch.tensor([2.0, 1.0]))
    points = torch.tensor([[0.1, 0.5], [0.4, 0.5], [0.6, 0.5], [0.9, 0.9]]).view(1, 1, 4, 2)
    assert truth.sampled(points)[0, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("kind", ["ce", "focal"])
def test_logits_at_the_extremes_give_finite_losses_and_gradients(kind: Classification) -> None:
    prediction, features = case(kind)
    for dtype, size in ((torch.float32, 1e6), (torch.bfloat16, 1e6), (torch.float16, 6e4)):
        wild = QueryPrediction((prediction.logits * size).clamp(-size, size), prediction.kernels * 1e3)
        found = criterion(kind)([wild], (features * 1e3).clamp(-6e4, 6e4).to(dtype), [target()])
        total = torch.stack(list(found.values())).sum()
        gradients = torch.autograd.grad(total, [*prediction, features])
        assert total.isfinite()
        assert all(g.isfinite().all() for g in gradients)


def test_the_same_seed_draws_the_same_points() -> None:
    prediction, features = case()
    totals = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        totals.append(criterion()([prediction], features, [target()])["mask_0"].item())
    assert totals[0] == totals[1] != totals[2]
