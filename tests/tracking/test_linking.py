"""Linking windows: the overlap against nested loops, identities through long videos, and a memory of fixed length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tubelet.core.types import Tracks
from tubelet.tracking.linking import LinkingConfig, Links, are_objects, known_overlaps, link

SIZE = (6, 40)


def tracks(masks: Tensor, start: int = 0, ids: list[int] | None = None) -> Tracks:
    count, length = masks.shape[:2]
    return Tracks(
        ids=torch.tensor(ids if ids is not None else [0] * count, dtype=torch.int64),
        scores=torch.full((count, 2), 0.5),
        masks=masks,
        index=torch.arange(start, start + length),
    )


def bars(lefts: list[list[int | None]], start: int = 0) -> Tracks:
    """Objects as bars five cells wide, at a left edge in each frame of a window, or absent."""
    masks = torch.zeros(len(lefts), len(lefts[0]) if lefts else 2, *SIZE)
    for n, row in enumerate(lefts):
        for t, left in enumerate(row):
            if left is not None:
                masks[n, t, :, left : left + 5] = 0.9
    return tracks(masks, start)


def follow(*windows: Tracks, config: LinkingConfig | None = None) -> list[list[int]]:
    state, ids = Links(), []
    for window in windows:
        state, linked = link(state, window, config or LinkingConfig())
        ids.append(linked.ids.tolist())
    return ids


# the overlap


def looped_overlaps(windows: list[Tracks], found: Tracks) -> dict[int, list[float]]:
    """The head's equation, cell by cell."""
    known = sorted({identity for window in windows for identity in window.ids.tolist()})
    result: dict[int, list[float]] = {}
    for identity in known:
        row = []
        for a in found.masks:
            shares = []
            for window in windows:
                common = [t for t in found.index.tolist() if t in window.index.tolist()]
                if identity not in window.ids.tolist() or not common:
                    continue
                b = window.masks[window.ids.tolist().index(identity)]
                product = union = 0.0
                for t in common:
                    first, second = a[t - int(found.index[0])], b[t - int(window.index[0])]
                    for x, y in zip(first.flatten().tolist(), second.flatten().tolist(), strict=True):
                        product += x * y
                        union += x + y - x * y
                shares.append(product / union if union else 0.0)
            row.append(sum(shares) / len(shares))
        result[identity] = row
    return result


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(2, 4), count=st.integers(1, 3), stored=st.integers(1, 3))
def test_overlaps_are_means_over_the_windows_that_hold_the_track(
    seed: int, length: int, count: int, stored: int
) -> None:
    rng = np.random.default_rng(seed)
    windows = []
    for start in range(length - 1)[:stored]:
        ids = sorted(rng.choice(5, count, replace=False).tolist())
        windows.append(tracks(torch.from_numpy(rng.random((count, length, 3, 4))).float(), start, ids))
    found = tracks(torch.from_numpy(rng.random((2, length, 3, 4))).float(), len(windows))
    ids, overlaps = known_overlaps(tuple(windows), found)
    expected = looped_overlaps(windows, found)
    assert ids.tolist() == list(expected)
    for column, identity in enumerate(ids.tolist()):
        assert overlaps[:, column].tolist() == pytest.approx(expected[identity], abs=1e-5)


def test_the_best_sum_of_overlaps_decides_and_not_the_first_come() -> None:
    before = bars([[10, 10], [14, 14]])
    after = bars([[12, 12], [16, 16]], start=1)  # the first overlaps both of them alike, the second only the second
    assert follow(before, after) == [[0, 1], [0, 1]]
    assert follow(before, bars([[16, 16], [12, 12]], start=1)) == [[0, 1], [1, 0]]


def test_an_overlap_at_the_threshold_is_none() -> None:
    before, after = bars([[10, 10]]), bars([[14, 14]], start=1)
    (overlap,) = known_overlaps((before,), after)[1].flatten().tolist()
    assert follow(before, after, config=LinkingConfig(overlap=overlap)) == [[0], [1]]
    assert follow(before, after, config=LinkingConfig(overlap=overlap - 1e-4)) == [[0], [0]]


# identities


def test_the_first_window_s_objects_are_all_new() -> None:
    assert follow(bars([[0, 0], [10, 10], [20, 20]])) == [[0, 1, 2]]


def test_objects_keep_their_ids_in_whatever_order_they_come() -> None:
    first = bars([[0, 1, 2], [20, 21, 22]])
    second = bars([[21, 22, 23], [1, 2, 3], [30, 30, 30]], start=1)
    third = bars([[30, 30, 30], [2, 3, 4], [22, 23, 24]], start=2)
    assert follow(first, second, third) == [[0, 1], [1, 0, 2], [2, 0, 1]]


def test_an_object_missing_from_a_window_is_found_again_while_a_stored_window_holds_it() -> None:
    held = bars([[5, 5, 5], [25, 25, 25]])
    without = bars([[5, 5, 5]], start=1)
    again = bars([[25, 25, 25], [5, 5, 5]], start=2)
    assert follow(held, without, again) == [[0, 1], [0], [1, 0]]
    assert follow(held, without, again, config=LinkingConfig(windows=1)) == [[0, 1], [0], [2, 0]]


def test_ids_are_never_used_twice() -> None:
    ids = follow(*(bars([[t % 35, t % 35]], start=4 * t) for t in range(30)), config=LinkingConfig(adjacent=False))
    assert [one for (one,) in ids] == list(range(30))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_a_window_s_objects_changes_nothing_but_their_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (tracks(torch.from_numpy(rng.random((4, 3, 3, 4))).float(), start) for start in (0, 1))
    order = torch.from_numpy(rng.permutation(4))
    state, _ = link(Links(), first, LinkingConfig())
    (_, plain), (_, permuted) = link(state, second, LinkingConfig()), link(state, second[order], LinkingConfig())
    assert torch.equal(permuted.ids, plain.ids[order])


def test_a_window_over_the_whole_video_changes_nothing_but_the_ids() -> None:
    found = tracks(torch.rand(5, 4, 3, 4, generator=torch.Generator().manual_seed(0)))
    _, linked = link(Links(), found, LinkingConfig())
    assert linked.ids.tolist() == list(range(5))
    assert torch.equal(linked.masks, found.masks)
    assert torch.equal(linked.scores, found.scores)


def test_windows_without_a_common_frame_are_compared_at_their_nearest_two() -> None:
    before, after = bars([[0, 4], [20, 24]]), bars([[26, 30], [5, 9]], start=2)
    assert follow(before, after) == [[0, 1], [1, 0]]
    assert follow(before, after, config=LinkingConfig(adjacent=False)) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_window_without_objects_is_no_end(position: int) -> None:
    windows = [bars([[3, 3, 3]], start) for start in range(3)]
    windows[position] = Tracks.empty(torch.arange(position, position + 3), 2, SIZE)
    ids = follow(*windows)
    assert ids.pop(position) == []
    assert ids == [[0], [0]]


def test_masks_that_are_no_numbers_start_new_tracks() -> None:
    broken = bars([[3, 3]], start=1)
    broken.masks.fill_(float("nan"))
    assert follow(bars([[3, 3]]), broken) == [[0], [1]]


def test_the_state_holds_a_fixed_number_of_windows_however_long_the_video() -> None:
    state = Links()
    for start in range(100):
        state, linked = link(state, bars([[start % 30] * 4, [(start + 12) % 30] * 4], start), LinkingConfig())
        assert len(state.windows) <= 4
        assert sum(window.masks.numel() for window in state.windows) <= 4 * linked.masks.numel()


def test_half_precision_masks_are_linked_in_single() -> None:
    windows = [bars([[3, 3], [20, 20]], start) for start in range(3)]
    halves = [Tracks(ids=w.ids, scores=w.scores, masks=w.masks.half(), index=w.index) for w in windows]
    assert follow(*halves) == follow(*windows) == [[0, 1]] * 3


# which queries are objects


def test_with_a_softmax_the_best_class_must_be_an_object_s() -> None:
    probabilities = torch.tensor([[0.3, 0.2], [0.4, 0.35], [0.02, 0.01]])  # "no object": 0.5, 0.25, 0.97
    assert are_objects(probabilities, LinkingConfig(), exclusive=True).tolist() == [False, True, False]


def test_with_sigmoids_the_best_class_must_exceed_the_score() -> None:
    probabilities = torch.tensor([[0.05, 0.01], [0.06, 0.9], [0.051, 0.0]])
    assert are_objects(probabilities, LinkingConfig(), exclusive=False).tolist() == [False, True, True]


def test_the_queries_of_the_best_pairs_stay_whatever_their_score() -> None:
    probabilities = torch.tensor([[0.01, 0.02], [0.03, 0.04], [0.9, 0.035]])
    stay = [are_objects(probabilities, LinkingConfig(top=top), exclusive=False).tolist() for top in (0, 2, 3, 99)]
    assert stay == [[False, False, True], [False, True, True], [False, True, True], [True, True, True]]


def test_without_any_query_there_is_no_object() -> None:
    assert are_objects(torch.zeros(0, 3), LinkingConfig(top=10), exclusive=True).tolist() == []


# another shot


def test_windows_of_another_shot_are_not_linked_and_ids_go_on_counting() -> None:
    state, first = link(Links(), bars([[3, 3]]), LinkingConfig())
    state, second = link(state, bars([[3, 3]], start=2), LinkingConfig(), shot=1)
    state, third = link(state, bars([[3, 3]], start=3), LinkingConfig(), shot=1)
    _, fourth = link(state, bars([[3, 3]], start=5), LinkingConfig(), shot=2)
    assert [tracks.ids.tolist() for tracks in (first, second, third, fourth)] == [[0], [1], [1], [2]]
