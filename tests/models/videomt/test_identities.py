"""Which query is which object: an identity outlives absence, and ends where another object takes its query."""

from __future__ import annotations

import torch
from torch import Tensor

from tubelet.models.videomt.identities import Identities, IdentityConfig, identify

Q, K, D = 4, 3, 8
CONFIG = IdentityConfig(score=0.2, keep=5, similarity=0.5)
CPU = torch.device("cpu")


def start(next_id: int = 1) -> Identities:
    return Identities.of(Q, D, (4, 6), CPU, next_id)


def probabilities(**classes: int) -> Tensor:
    """`q2=1`: query 2 shows class 1; the others show nothing."""
    found = torch.full((Q, K), 0.05)
    for query, label in classes.items():
        found[int(query[1:]), label] = 0.9
    return found


def mask(column: int) -> Tensor:
    masks = torch.zeros(Q, 4, 6, dtype=torch.bool)
    masks[:, :, column] = True
    return masks


def embedding(axis: int) -> Tensor:
    return torch.eye(D)[axis].expand(Q, D)


def step(
    known: Identities, time: int, shown: dict[str, int], column: int = 0, axis: int = 0
) -> tuple[Identities, list[int]]:
    known, rows = identify(known, probabilities(**shown), mask(column), embedding(axis), time, CONFIG)
    return known, known.ids[rows].tolist()


def test_queries_get_ids_as_they_are_first_shown_and_keep_them() -> None:
    known, first = step(start(), 0, {"q2": 0})
    known, second = step(known, 1, {"q0": 1, "q2": 0})
    known, third = step(known, 2, {"q2": 0})
    assert first == third == [1]
    assert sorted(second) == [1, 2]
    assert known.ids.tolist() == [2, -1, 1, -1]


def test_an_object_that_was_hidden_keeps_its_id_however_long() -> None:
    known, _ = step(start(), 0, {"q1": 0})
    for gap in (3, 100):
        _, after = step(known, gap, {"q1": 0}, column=5, axis=3)
        assert after == [1]  # its class is the same


def test_another_object_in_its_query_gets_another_id_after_a_long_absence() -> None:
    known, _ = step(start(), 0, {"q1": 0})
    known, after = step(known, 6, {"q1": 2}, column=5, axis=3)
    assert after == [2]
    assert step(known, 7, {"q1": 2}, column=5, axis=3)[1] == [2]


def test_every_sign_of_another_object_is_needed() -> None:
    known, _ = step(start(), 0, {"q1": 0})
    assert step(known, 5, {"q1": 2}, column=5, axis=3)[1] == [1]  # not gone for long
    assert step(known, 6, {"q1": 0}, column=5, axis=3)[1] == [1]  # the same class
    assert step(known, 6, {"q1": 2}, column=0, axis=3)[1] == [1]  # the same place
    assert step(known, 6, {"q1": 2}, column=5, axis=0)[1] == [1]  # the same looks


def test_nothing_shown_changes_nothing() -> None:
    known, _ = step(start(next_id=9), 0, {"q1": 0})
    after, shown = step(known, 1, {})
    assert shown == []
    assert (after.ids.tolist(), after.next_id, after.seen.tolist()) == (known.ids.tolist(), 10, known.seen.tolist())
