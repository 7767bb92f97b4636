"""The decision rule against nested loops and brute force, and the invariants that its paper implies."""

from __future__ import annotations

import math
from itertools import permutations, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tubelet.core.errors import ConfigError
from tubelet.tracking.association import (
    DROPPED,
    NEW,
    AssociationConfig,
    across_cuts,
    associate,
    cue_scores,
    drop_shadows,
    take_wholes,
)

counts = st.tuples(st.integers(0, 6), st.integers(0, 5))
seeds = st.integers(0, 100_000)
ALWAYS = AssociationConfig()


def scene(n: int, m: int, seed: int) -> dict[str, Tensor]:
    """N detections and M known objects on a small plane, so that boxes overlap and labels agree often."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(count: int) -> Tensor:
        corners = torch.rand(count, 2, 2, generator=generator) * 20
        return torch.cat([corners.amin(1), corners.amax(1)], 1)

    return {
        "logits": torch.cat([torch.zeros(n, 1), torch.randn(n, m, generator=generator) * 3], 1),
        "scores": torch.rand(n, generator=generator) * 0.95 + 0.05,
        "boxes": boxes(n),
        "labels": torch.randint(0, 3, (n,), generator=generator),
        "known_boxes": boxes(m),
        "known_labels": torch.randint(0, 3, (m,), generator=generator),
    }


def table_of(n: int, m: int, seed: int, config: AssociationConfig = ALWAYS) -> Tensor:
    return cue_scores(**scene(n, m, seed), config=config)


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def by_loops(table: list[list[float]], unique: bool) -> list[int]:
    """The published rule: detections in order, each at its best column; who does not beat the holder is lost."""
    best, holder = [-math.inf] * len(table[0]) if table else [], {}
    decided = []
    for i, row in enumerate(table):
        column = max(range(len(row)), key=lambda j: row[j])
        if column == 0:
            decided.append(NEW)
        elif row[column] > best[column]:
            if unique and column in holder:
                decided[holder[column]] = DROPPED
            best[column], holder[column] = row[column], i
            decided.append(column - 1)
        else:
            decided.append(DROPPED)
    return decided


# the cues


def test_the_golden_example_picks_the_same_class_over_the_higher_logit() -> None:
    table = cue_scores(
        torch.tensor([[0.0, 3.0, 1.0]]),
        torch.tensor([0.8]),
        torch.tensor([[0.0, 0.0, 10.0, 10.0]]),
        torch.tensor([4]),
        torch.tensor([[0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 1.0]]),
        torch.tensor([7, 4]),
        AssociationConfig(),
    )
    torch.testing.assert_close(table, torch.tensor([[6.607010, 0.607010, 7.807011]]), rtol=0, atol=2e-6)
    assert associate(table, torch.tensor([0.8]), AssociationConfig()).tolist() == [1]


@given(counts=counts, seed=seeds)
def test_cues_equal_the_formula_in_loops(counts: tuple[int, int], seed: int) -> None:
    a, b, c = 0.5, 3.0, 1.5
    parts = scene(*counts, seed)
    table = cue_scores(**parts, config=AssociationConfig(score_weight=a, iou_weight=b, label_weight=c))
    assert table.shape == (counts[0], counts[1] + 1)
    for i, row in enumerate(parts["logits"].tolist()):
        total = math.log(sum(math.exp(x) for x in row))
        for j, logit in enumerate(row):
            cue = a * math.log(parts["scores"][i].item())
            if j == 0:
                cue += c
            else:
                cue += b * overlap(parts["boxes"][i].tolist(), parts["known_boxes"][j - 1].tolist())
                cue += c * (parts["labels"][i] == parts["known_labels"][j - 1]).item()
            assert table[i, j].item() == pytest.approx(logit - total + cue, abs=1e-4)


@given(counts=counts, seed=seeds)
def test_without_cues_rows_are_probabilities(counts: tuple[int, int], seed: int) -> None:
    table = table_of(*counts, seed, AssociationConfig(cues=False))
    torch.testing.assert_close(table.exp().sum(1), torch.ones(counts[0]))


@given(counts=counts, seed=seeds)
def test_weights_of_nothing_equal_no_cues_and_decide_by_the_logits(counts: tuple[int, int], seed: int) -> None:
    nothing = AssociationConfig(score_weight=0, iou_weight=0, label_weight=0)
    table = table_of(*counts, seed, nothing)
    assert torch.equal(table, table_of(*counts, seed, AssociationConfig(cues=False)))
    assert torch.equal(table.argmax(1), scene(*counts, seed)["logits"].argmax(1))


@given(counts=counts, seed=seeds, weight=st.floats(0, 5))
def test_the_score_never_changes_what_one_detection_prefers(counts: tuple[int, int], seed: int, weight: float) -> None:
    with_score, without = (table_of(*counts, seed, AssociationConfig(score_weight=w)).double() for w in (weight, 0.0))
    shift = with_score - without
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), rtol=0, atol=1e-4)


def test_a_score_of_zero_stays_finite() -> None:
    parts = scene(2, 2, 0)
    parts["scores"] = torch.zeros(2)
    assert cue_scores(**parts, config=AssociationConfig()).isfinite().all()


def test_half_precision_logits_are_judged_in_single() -> None:
    parts = scene(3, 2, 1)
    parts["logits"] = parts["logits"].bfloat16()
    assert cue_scores(**parts, config=AssociationConfig()).dtype == torch.float32


@given(counts=counts, seed=seeds, doubt=st.floats(0, 4))
def test_doubt_raises_the_first_column_of_weak_detections_alone(
    counts: tuple[int, int], seed: int, doubt: float
) -> None:
    plain, doubting = table_of(*counts, seed), table_of(*counts, seed, AssociationConfig(doubt=doubt))
    assert torch.equal(plain[:, 1:], doubting[:, 1:])
    wanted = plain[:, 0] - doubt * scene(*counts, seed)["scores"].log()
    torch.testing.assert_close(doubting[:, 0], wanted, rtol=1e-4, atol=1e-4)


@given(counts=counts, seed=seeds, birth=st.floats(0, 1), leash=st.floats(0.01, 1))
def test_a_leash_ties_those_too_weak_for_a_birth_to_objects_that_they_overlap(
    counts: tuple[int, int], seed: int, birth: float, leash: float
) -> None:
    parts = scene(*counts, seed)
    free, tied = (table_of(*counts, seed, AssociationConfig(birth=birth, leash=x)) for x in (0.0, leash))
    assert torch.equal(free[:, 0], tied[:, 0])
    for i in range(counts[0]):
        for j in range(counts[1]):
            stray = overlap(parts["boxes"][i].tolist(), parts["known_boxes"][j].tolist()) < leash
            if parts["scores"][i].item() < birth and stray:
                assert tied[i, j + 1] == -math.inf
            else:
                assert tied[i, j + 1] == free[i, j + 1]


@pytest.mark.parametrize("assignment", ["greedy", "optimal"])
def test_a_weak_stray_on_a_leash_becomes_nothing(assignment: str) -> None:
    config = AssociationConfig(assignment=assignment, birth=0.5, leash=0.3)
    here, there = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[50.0, 0.0, 60.0, 10.0]])
    same = torch.tensor([1])
    for box, score, wanted in ((here, 0.2, 0), (there, 0.2, DROPPED), (there, 0.9, 0)):
        table = cue_scores(torch.tensor([[0.0, 5.0]]), torch.tensor([score]), box, same, here, same, config)
        assert associate(table, torch.tensor([score]), config).tolist() == [wanted]


# greedy, the paper's rule


@given(counts=counts, seed=seeds, unique=st.booleans())
def test_greedy_equals_nested_loops(counts: tuple[int, int], seed: int, unique: bool) -> None:
    table = table_of(*counts, seed)
    decided = associate(table, torch.ones(counts[0]), AssociationConfig(unique_ids=unique))
    assert decided.dtype == torch.int64
    assert decided.tolist() == by_loops(table.tolist(), unique)


@given(
    rows=st.integers(0, 3).flatmap(
        lambda m: st.lists(st.lists(st.integers(0, 2), min_size=m + 1, max_size=m + 1), max_size=5)
    )
)
def test_greedy_equals_nested_loops_where_scores_tie(rows: list[list[int]]) -> None:
    table = torch.tensor(rows, dtype=torch.float32).view(len(rows), -1 if rows else 1)
    for unique in (True, False):
        decided = associate(table, torch.ones(len(rows)), AssociationConfig(unique_ids=unique))
        assert decided.tolist() == by_loops(table.tolist(), unique)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_two_that_claim_one_object_the_higher_survives_in_either_order(order: list[int]) -> None:
    table = torch.tensor([[0.0, 5.0], [0.0, 4.0]])[order]
    decided = associate(table, torch.ones(2), AssociationConfig())
    assert decided[order].tolist() == [0, DROPPED]


def test_the_loser_gets_no_second_choice() -> None:
    table = torch.tensor([[0.0, 9.0, 1.0], [0.0, 8.0, 7.9]])
    assert associate(table, torch.ones(2), AssociationConfig()).tolist() == [0, DROPPED]


def test_without_unique_ids_a_beaten_claimant_keeps_its_id_in_this_frame() -> None:
    table = torch.tensor([[0.0, 4.0], [0.0, 5.0], [0.0, 4.5]])
    assert associate(table, torch.ones(3), AssociationConfig(unique_ids=False)).tolist() == [0, 0, DROPPED]
    assert associate(table, torch.ones(3), AssociationConfig(unique_ids=True)).tolist() == [DROPPED, 0, DROPPED]


# optimal


def best_total(table: list[list[float]]) -> float:
    """The highest sum of any decision that gives every known object to one detection at most."""
    columns = range(len(table[0]))
    totals = []
    for choice in product(columns, repeat=len(table)):
        taken = [j for j in choice if j > 0]
        if len(taken) == len(set(taken)):
            totals.append(sum(table[i][j] for i, j in enumerate(choice)))
    return max(totals)


@given(n=st.integers(1, 4), m=st.integers(0, 4), seed=seeds)
def test_optimal_reaches_the_best_total_and_loses_no_detection(n: int, m: int, seed: int) -> None:
    table = table_of(n, m, seed)
    decided = associate(table, torch.ones(n), AssociationConfig(assignment="optimal")).tolist()
    assert DROPPED not in decided
    reached = sum(table[i, 0 if d == NEW else d + 1].item() for i, d in enumerate(decided))
    assert reached == pytest.approx(best_total(table.tolist()), abs=1e-4)


def test_optimal_gives_a_second_choice_where_greedy_drops() -> None:
    table = torch.tensor([[0.0, 9.0, 1.0], [0.0, 8.0, 7.9]])
    assert associate(table, torch.ones(2), AssociationConfig(assignment="optimal")).tolist() == [0, 1]


# both

rules = pytest.mark.parametrize("assignment", ["greedy", "optimal"])


@rules
@given(counts=counts, seed=seeds)
def test_an_object_is_given_to_one_detection_at_most(assignment: str, counts: tuple[int, int], seed: int) -> None:
    config = AssociationConfig(assignment=assignment)
    decided = associate(table_of(*counts, seed), torch.ones(counts[0]), config)
    given_away = decided[decided >= 0].tolist()
    assert len(given_away) == len(set(given_away))
    assert set(given_away) <= set(range(counts[1]))
    assert set(decided.tolist()) <= {*range(counts[1]), NEW, DROPPED}


@rules
@given(counts=counts, seed=seeds)
def test_the_order_of_detections_changes_nothing(assignment: str, counts: tuple[int, int], seed: int) -> None:
    config = AssociationConfig(assignment=assignment)
    table = table_of(*counts, seed)
    order = torch.randperm(counts[0], generator=torch.Generator().manual_seed(seed))
    decided = associate(table, torch.ones(counts[0]), config)
    assert torch.equal(associate(table[order], torch.ones(counts[0]), config), decided[order])


@rules
@given(counts=counts, seed=seeds)
def test_permuting_the_memory_permutes_columns_and_keeps_the_pairs(
    assignment: str, counts: tuple[int, int], seed: int
) -> None:
    config = AssociationConfig(assignment=assignment)
    parts = scene(*counts, seed)
    order = torch.randperm(counts[1], generator=torch.Generator().manual_seed(seed + 1))
    turned = dict(parts)
    turned["known_boxes"], turned["known_labels"] = parts["known_boxes"][order], parts["known_labels"][order]
    turned["logits"] = torch.cat([parts["logits"][:, :1], parts["logits"][:, 1:][:, order]], 1)
    table, other = cue_scores(**parts, config=config), cue_scores(**turned, config=config)
    torch.testing.assert_close(other[:, 1:], table[:, 1:][:, order], rtol=0, atol=1e-5)
    plain = associate(table, torch.ones(counts[0]), config)
    back = associate(other, torch.ones(counts[0]), config)
    back[back >= 0] = order[back[back >= 0]]
    assert torch.equal(back, plain)


@rules
def test_detections_that_repeat_the_memory_keep_their_objects_in_any_order(assignment: str) -> None:
    corners = torch.tensor([[0.0, 0.0, 10.0, 10.0], [30.0, 0.0, 40.0, 10.0], [60.0, 5.0, 70.0, 20.0]])
    labels = torch.tensor([1, 1, 2])
    for order in permutations(range(3)):
        kept = list(order)
        table = cue_scores(
            torch.zeros(3, 4),  # nothing learned yet: place and class decide
            torch.tensor([0.9, 0.6, 0.3])[kept],
            corners[kept],
            labels[kept],
            corners,
            labels,
            AssociationConfig(),
        )
        assert associate(table, torch.ones(3), AssociationConfig(assignment=assignment)).tolist() == kept


@rules
def test_with_an_empty_memory_everything_is_new(assignment: str) -> None:
    table = table_of(4, 0, 0)
    assert associate(table, torch.ones(4), AssociationConfig(assignment=assignment)).tolist() == [NEW] * 4


@rules
def test_without_detections_nothing_is_decided(assignment: str) -> None:
    decided = associate(table_of(0, 3, 0), torch.ones(0), AssociationConfig(assignment=assignment))
    assert decided.shape == (0,)
    assert decided.dtype == torch.int64


@rules
def test_a_new_object_needs_the_score_of_birth_but_a_known_one_does_not(assignment: str) -> None:
    table = torch.tensor([[5.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    config = AssociationConfig(assignment=assignment, birth=0.5)
    assert associate(table, torch.tensor([0.5, 0.49, 0.1]), config).tolist() == [NEW, DROPPED, 0]


# second answers for one object


def shadows_by_loops(decided: list[int], boxes: list[list[float]], labels: list[int], shadow: float) -> list[int]:
    accepted = [i for i, d in enumerate(decided) if d >= 0]
    result = list(decided)
    for i, decision in enumerate(decided):
        if decision != NEW:
            continue
        hidden = False
        for j in accepted:
            shared = overlap(boxes[i], boxes[j])
            if labels[i] == labels[j]:  # how much of it lies inside the accepted one
                (x1, y1, x2, y2), (a1, b1, a2, b2) = boxes[i], boxes[j]
                inside = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
                shared = inside / ((x2 - x1) * (y2 - y1))
            hidden |= shared > shadow
        if hidden:
            result[i] = DROPPED
        else:
            accepted.append(i)
    return result


@given(counts=counts, seed=seeds, shadow=st.floats(0, 0.99))
def test_shadows_of_accepted_objects_are_dropped_as_loops_say(
    counts: tuple[int, int], seed: int, shadow: float
) -> None:
    parts = scene(*counts, seed)
    decided = associate(cue_scores(**parts, config=ALWAYS), torch.ones(counts[0]), ALWAYS)
    before = decided.clone()
    found = drop_shadows(decided, parts["boxes"], parts["labels"], shadow)
    assert found.tolist() == shadows_by_loops(
        before.tolist(), parts["boxes"].tolist(), parts["labels"].tolist(), shadow
    )
    assert torch.equal(decided, before)


WHOLE = [0.0, 0.0, 8.0, 4.0]
PART = [0.0, 0.0, 2.0, 4.0]
OUTSIDE = [7.0, 0.0, 11.0, 4.0]


@pytest.mark.parametrize(
    ("second", "same_class", "usual", "swapped"),
    [
        (PART, True, 30.0, True),
        (PART, True, 9.0, False),  # as large as ever: another object stands around it
        (PART, False, 30.0, False),
        (OUTSIDE, True, 30.0, False),
        ([0.0, 0.0, 7.0, 4.0], True, 30.0, False),  # has not shrunk
    ],
)
def test_a_shrunken_object_continues_with_the_whole(
    second: list[float], same_class: bool, usual: float, swapped: bool
) -> None:
    boxes = torch.tensor([WHOLE, second])
    labels = torch.tensor([1, 1 if same_class else 2])
    config = AssociationConfig(shrunk=0.75, shadow=0.5)
    decided = take_wholes(torch.tensor([NEW, 0]), boxes, labels, torch.tensor([usual]), config)
    assert decided.tolist() == ([0, NEW] if swapped else [NEW, 0])


def test_of_two_parts_the_larger_one_s_object_continues() -> None:
    boxes = torch.tensor([WHOLE, PART, [4.0, 0.0, 8.0, 4.0]])
    usual = torch.tensor([32.0, 32.0])
    config = AssociationConfig(shrunk=0.75, shadow=0.5)
    decided = take_wholes(torch.tensor([NEW, 0, 1]), boxes, torch.tensor([1, 1, 1]), usual, config)
    assert decided.tolist() == [1, 0, NEW]
    assert drop_shadows(decided, boxes, torch.tensor([1, 1, 1]), config.shadow).tolist() == [1, 0, DROPPED]


@given(counts=counts, seed=seeds)
def test_taking_wholes_gives_no_identity_away_twice(counts: tuple[int, int], seed: int) -> None:
    parts = scene(*counts, seed)
    decided = associate(cue_scores(**parts, config=ALWAYS), torch.ones(counts[0]), ALWAYS)
    usual = torch.rand(counts[1], generator=torch.Generator().manual_seed(seed)) * 400
    config = AssociationConfig(shrunk=0.9, shadow=0.3)
    after = take_wholes(decided, parts["boxes"], parts["labels"], usual, config)
    assert sorted(after.tolist()) == sorted(decided.tolist())
    assert torch.equal(take_wholes(decided, parts["boxes"], parts["labels"], usual, ALWAYS), decided)


def test_without_a_bound_nothing_is_a_shadow() -> None:
    boxes, labels = torch.tensor([[0.0, 0.0, 5.0, 5.0]] * 2), torch.zeros(2, dtype=torch.int64)
    decided = torch.tensor([NEW, NEW])
    assert drop_shadows(decided, boxes, labels, 1.0).tolist() == [NEW, NEW]
    assert drop_shadows(decided, boxes, labels, 0.5).tolist() == [NEW, DROPPED]


@pytest.mark.parametrize("values", [{"birth": 1.5}, {"birth": -0.1}, {"keep": 0}, {"assignment": "best"}])
def test_a_rule_out_of_range_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        AssociationConfig(**values)  # type: ignore[arg-type]


def test_the_defaults_are_the_papers() -> None:
    config = AssociationConfig()
    assert (config.score_weight, config.iou_weight, config.label_weight) == (1, 2, 10)
    assert (config.assignment, config.birth, config.keep) == ("greedy", 0, None)
    assert (config.doubt, config.leash, config.shadow) == (0, 0, 1)


# another shot

PROVEN = torch.tensor([[0.0, 4.0], [0.0, 4.0], [0.0, 0.5]])  # match probabilities 0.98, 0.98 and 0.62
SAME, OTHER = torch.tensor([0, 1, 0]), torch.tensor([0])


def bounded(elsewhere: bool, cut_match: float) -> list[list[float]]:
    config = AssociationConfig(cut_match=cut_match)
    return across_cuts(PROVEN + 7, PROVEN, SAME, OTHER, torch.tensor([elsewhere]), config).tolist()


def test_across_a_cut_label_and_appearance_must_agree() -> None:
    free, barred = [7.0, 11.0], [7.0, -math.inf]
    assert bounded(True, 0.9) == [free, barred, barred]
    assert bounded(True, 0.6) == [free, barred, [7.0, 7.5]]


def test_across_a_cut_two_equal_candidates_are_none() -> None:
    logits, config = torch.tensor([[0.0, 8.0, 8.0], [0.0, 8.0, 7.0]]), AssociationConfig(cut_match=0.99)
    nobody = torch.zeros(2, dtype=torch.int64)
    table = across_cuts(logits, logits, nobody, nobody, torch.ones(2, dtype=torch.bool), config)
    assert table.tolist() == [[0.0, -math.inf, -math.inf], [0.0, 8.0, -math.inf]]


def test_within_a_shot_the_bound_asks_for_nothing() -> None:
    assert bounded(False, 1.0) == (PROVEN + 7).tolist()
