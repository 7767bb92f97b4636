from __future__ import annotations

from typing import Any

import hota_oracle
import motmetrics
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rectangles import SIZE, scene, track

from tubelet.core import masks
from tubelet.core.types import Prediction, Track, Video
from tubelet.evaluation import identity
from tubelet.evaluation.pairing import pair

HERE, FAR = (10, 10, 10, 10), (50, 40, 8, 8)


def test_golden_values_of_a_split_track() -> None:
    guesses = [
        track(1, [HERE, HERE, None, None]),
        track(2, [None, None, HERE, HERE]),
        track(3, [FAR, None, None, None]),
    ]
    numbers = identity.evaluate(*scene([track(1, [HERE] * 4)], guesses))
    expected = {"MOTA": 0.5, "IDF1": 4 / 9, "IDP": 0.4, "IDR": 0.5, "IDs": 1, "FP": 1, "FN": 0, "fragments": 0}
    assert {key: numbers[key] for key in expected} == pytest.approx(expected)


def test_golden_values_of_a_gap_between_partners() -> None:
    guesses = [track(1, [HERE, None, None, HERE]), track(2, [None, None, HERE, None])]
    numbers = identity.evaluate(*scene([track(1, [HERE] * 4)], guesses))
    assert (numbers["IDs"], numbers["MOTA"], numbers["fragments"]) == (2, 0.25, 1)
    assert numbers["IDF1"] == pytest.approx(4 / 7)


def test_an_overlap_of_exactly_one_half_can_be_paired() -> None:
    half = identity.evaluate(*scene([track(1, [(10, 10, 10, 10)])], [track(1, [(10, 10, 5, 10)])]))
    less = identity.evaluate(*scene([track(1, [(10, 10, 10, 10)])], [track(1, [(10, 10, 4, 10)])]))
    assert (half["FN"], less["FN"]) == (0, 1)


def test_the_last_partner_is_kept_although_another_fits_better() -> None:
    guesses = [track(1, [HERE, (10, 10, 6, 10)]), track(2, [None, HERE])]
    numbers = identity.evaluate(*scene([track(1, [HERE, HERE])], guesses))
    assert (numbers["IDs"], numbers["FP"]) == (0, 1)


def random_scene(seed: int) -> tuple[list[Video], list[Prediction]]:
    rng = np.random.default_rng(seed)
    length, truths, guesses = int(rng.integers(1, 9)), [], []
    for number in range(int(rng.integers(0, 4))):
        path = rng.integers(0, 40, 2) + np.cumsum(rng.integers(-5, 6, (length, 2)), 0)
        extent = rng.integers(8, 25, 2)
        boxes = [(int(x), int(y), int(extent[0]), int(extent[1])) for x, y in path]
        truths.append(track(number, [b if rng.random() < 0.85 else None for b in boxes]))
        for _ in range(int(rng.integers(0, 3))):
            near = [(x + int(rng.integers(-3, 4)), y + int(rng.integers(-3, 4)), w, h) for x, y, w, h in boxes]
            kept = [b if rng.random() < 0.8 else None for b in near]
            guesses.append(track(len(guesses), kept, score=float(rng.random())))
    if len(guesses) > 1 and length > 2:  # two identities change places
        middle, (one, other) = length // 2, (list(g.rles) for g in guesses[:2])
        swapped = (one[:middle] + other[middle:], other[:middle] + one[middle:])
        guesses[:2] = [
            Track(id=n, label=0, score=0.9, rles=tuple(rles)) for n, rles in zip((90, 91), swapped, strict=True)
        ]
    truths = truths or [track(0, [None] * length)]
    return scene(truths, guesses)


def motmetrics_numbers(table: identity.Overlaps) -> dict[str, float]:
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for similarity, truths, guesses in zip(table.similarity, table.truths, table.predictions, strict=True):
        g, p = np.flatnonzero(truths), np.flatnonzero(guesses)
        distance = 1 - similarity[np.ix_(g, p)]
        distance[distance > 0.5] = np.nan
        accumulator.update(g.tolist(), p.tolist(), distance)
    names = {
        "idf1": "IDF1",
        "idp": "IDP",
        "idr": "IDR",
        "mota": "MOTA",
        "num_switches": "IDs",
        "num_false_positives": "FP",
        "num_misses": "FN",
        "num_fragmentations": "fragments",
        "mostly_tracked": "MT",
        "partially_tracked": "PT",
        "mostly_lost": "ML",
    }
    metrics = motmetrics.metrics.create()
    computed = metrics.compute(accumulator, metrics=list(names), name="v")
    numbers = {ours: float(computed.loc["v", theirs]) for theirs, ours in names.items()}
    distance = float(metrics.compute(accumulator, metrics=["motp"], name="v").loc["v", "motp"])
    return numbers | {"MOTP": -1.0 if np.isnan(distance) else 1 - distance}


def _no_ties(similarity: np.ndarray) -> bool:
    overlaps = similarity[similarity > 0]
    return len(np.unique(overlaps)) == len(overlaps)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), on_masks=st.booleans())
def test_clear_and_id_measures_equal_py_motmetrics(seed: int, on_masks: bool) -> None:
    videos, guesses = random_scene(seed)
    table = identity.overlaps(pair(videos, guesses)[0], on_masks=on_masks)
    if not table.truths.any() or not table.predictions.any():
        return
    assume(all(_no_ties(frame) for frame in table.similarity))  # a tie has no right answer: each tool picks its own
    found, expected = identity.numbers(identity.count(table)), motmetrics_numbers(table)
    assert {key: found[key] for key in expected} == pytest.approx(expected)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), on_masks=st.booleans())
def test_hota_equals_its_definition(seed: int, on_masks: bool) -> None:
    tables = []
    total = identity.Counts.none()
    for number in range(2):
        videos, guesses = random_scene(seed + number)
        table = identity.overlaps(pair(videos, guesses)[0], on_masks=on_masks)
        assume(all(_no_ties(frame) for frame in table.similarity))  # nor does a tie here
        tables.append((table.similarity, table.truths, table.predictions))
        total += identity.count(table)
    if total.truths + total.predictions == 0:
        return
    expected = hota_oracle.evaluate(tables)
    assert {key: identity.numbers(total)[key] for key in expected} == pytest.approx(expected)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_overlaps_of_masks_are_those_of_dense_masks(seed: int) -> None:
    videos, guesses = random_scene(seed)
    one = pair(videos, guesses)[0]
    table = identity.overlaps(one, on_masks=True)
    dense = [[_dense(tube) for tube in tubes] for tubes in (one.truth_tubes, one.guess_tubes)]
    for t, g, p in np.ndindex(table.similarity.shape):
        real, guess = dense[0][g][t], dense[1][p][t]
        union = (real | guess).sum()
        assert table.similarity[t, g, p] == pytest.approx((real & guess).sum() / union if union else 0)


def _dense(tube: Any) -> list[np.ndarray]:
    return [np.zeros(SIZE, bool) if rle is None else masks.decode([rle])[0].astype(bool) for rle in tube]


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), on_masks=st.booleans())
def test_truth_as_prediction_is_perfect(seed: int, on_masks: bool) -> None:
    videos, _ = random_scene(seed)
    tracks = videos[0].tracks
    answer = Prediction(video="v", size=SIZE, length=len(videos[0]), tracks=tracks)
    numbers = identity.evaluate(videos, [answer], on_masks=on_masks)
    if any(rle is not None for one in tracks for rle in one.rles):
        assert (numbers["MOTA"], numbers["IDF1"], numbers["IDs"], numbers["HOTA"]) == pytest.approx((1, 1, 0, 1))


def test_two_identities_that_change_places_cost_two_switches_and_no_detection() -> None:
    one, other = [HERE] * 6, [FAR] * 6
    swapped = [track(1, one[:3] + other[3:]), track(2, other[:3] + one[3:])]
    numbers = identity.evaluate(*scene([track(1, one), track(2, other)], swapped))
    assert (numbers["IDs"], numbers["FP"], numbers["FN"]) == (2, 0, 0)
    assert numbers["DetA"] == 1
    assert numbers["AssA"] < 1


def test_classes_matter_only_where_asked_for() -> None:
    scenario = scene([track(1, [HERE], label=0)], [track(1, [HERE], label=1)])
    assert identity.evaluate(*scenario)["IDF1"] == 1
    assert identity.evaluate(*scenario, class_aware=True)["IDF1"] == 0


def test_crowds_and_low_scores_are_left_out() -> None:
    truths = [track(1, [HERE]), track(2, [FAR], ignore=True)]
    numbers = identity.evaluate(*scene(truths, [track(1, [HERE], score=0.3), track(2, [FAR], score=0.29)]))
    assert (numbers["FN"], numbers["FP"], numbers["MOTA"]) == (0, 0, 1)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_sweep_is_the_evaluation_at_each_threshold(seed: int) -> None:
    scenario = random_scene(seed)
    for threshold, numbers in identity.sweep(*scenario).items():
        assert numbers == identity.evaluate(*scenario, threshold=threshold)
