from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rectangles import SIZE, scene, track

from tubelet.core import masks
from tubelet.core.types import Prediction, Track, Video
from tubelet.evaluation import diagnosis, ytvis
from tubelet.evaluation.cases import cases as cases_of
from tubelet.evaluation.costs import costs as costs_of
from tubelet.evaluation.diagnosis import (
    CHANGE,
    CLASS,
    DUPLICATE,
    FALSE,
    KINDS,
    LOOSE,
    LOST,
    MERGE,
    MISSED,
    SWITCH,
    Failure,
)
from tubelet.evaluation.pairing import pair

A, B, C = (5, 5, 12, 12), (30, 5, 12, 12), (55, 40, 12, 12)
NEAR = (19, 5, 12, 12)  # beside A
LENGTH = 6
STAYS = [A] * LENGTH


def diagnose(truths: list[Track], guesses: list[Track]) -> list[Failure]:
    cases = cases_of(pair(*scene(truths, guesses)))
    return diagnosis.failures(cases)


def told(failures: list[Failure]) -> list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    return [(f.kind, f.frames, f.truths, f.tracks) for f in failures]


ALL = tuple(range(LENGTH))
TWO = [track(1, STAYS), track(2, [B] * LENGTH)]
SCENES = {
    "a perfect result": ([track(1, STAYS)], [track(7, STAYS)], []),
    SWITCH: (
        TWO,
        [track(7, [A] * 3 + [B] * 3), track(8, [B] * 3 + [A] * 3)],
        [(SWITCH, (3,), (1, 2), (7, 8))],
    ),
    "a track that jumps": (
        TWO,
        [track(7, [A] * 3 + [B] * 3)],
        [(SWITCH, (3,), (1, 2), (7,)), (LOST, (3, 4, 5), (1,), (7,))],
    ),
    CHANGE: (
        [track(1, STAYS)],
        [track(7, [A] * 4 + [None] * 2), track(8, [None] * 4 + [A] * 2)],
        [(CHANGE, (4,), (1,), (7, 8))],
    ),
    MERGE: (
        [track(1, STAYS), track(2, [NEAR] * LENGTH)],
        [track(7, [A] * 3 + [[A, NEAR]] * 3), track(8, [NEAR] * 3 + [None] * 3)],
        [(MERGE, (3, 4, 5), (1, 2), (7,))],
    ),
    LOST: (
        [track(1, STAYS)],
        [track(7, [A] * 2 + [None] * 2 + [A] * 2)],
        [(LOST, (2, 3), (1,), (7,))],
    ),
    CLASS: ([track(1, STAYS)], [track(7, STAYS, label=1)], [(CLASS, ALL, (1,), (7,))]),
    DUPLICATE: (
        [track(1, STAYS)],
        [track(7, STAYS), track(8, STAYS, score=0.5)],
        [(DUPLICATE, ALL, (1,), (8,))],
    ),
    "a duplicate under another class": (
        [track(1, STAYS)],
        [track(7, STAYS), track(8, STAYS, score=0.5, label=1)],
        [(DUPLICATE, ALL, (1,), (8,))],
    ),
    FALSE: (
        [track(1, STAYS)],
        [track(7, STAYS), track(8, [None, C] * 3)],
        [(FALSE, (1, 3, 5), (), (8,))],
    ),
    LOOSE: (
        [track(1, STAYS)],
        [track(7, [A] * 4 + [(5, 5, 7, 12)] * 2)],
        [(LOOSE, (4, 5), (1,), (7,))],
    ),
    "a mask too loose to be counted": (
        [track(1, STAYS)],
        [track(7, [(5, 5, 5, 12)] * LENGTH, score=0.2)],
        [(LOOSE, ALL, (1,), (7,))],
    ),
    MISSED: (TWO, [track(7, STAYS)], [(MISSED, ALL, (2,), ())]),
    "a crowd is no object": ([track(1, STAYS), track(2, [C] * LENGTH, ignore=True)], [track(7, STAYS)], []),
    "an object that leaves is not lost": (
        [track(1, [A, A, None, None, A, A])],
        [track(7, [A, A, None, None, A, A])],
        [],
    ),
    "tracks of low scores take no identity over": (
        [track(1, STAYS)],
        [track(7, [A] * 5 + [None]), track(8, [None] * 5 + [A], score=0.1)],
        [(LOST, (5,), (1,), (7,)), (DUPLICATE, (5,), (1,), (8,))],
    ),
}


@pytest.mark.parametrize("name", SCENES)
def test_each_failure_is_named_with_its_frames_and_tracks(name: str) -> None:
    truths, guesses, expected = SCENES[name]
    assert told(diagnose(truths, guesses)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_mending_a_failure_repairs_the_scene_that_shows_it(kind: str) -> None:
    truths, guesses, _ = SCENES[kind]
    cases = cases_of(pair(*scene(truths, guesses)))
    base, costs, rest = costs_of(cases, diagnosis.failures(cases))
    assert base < 1 or kind in (DUPLICATE, FALSE)  # which cost nothing where they come last
    assert costs[kind].times == 1
    assert costs[kind].alone >= base
    assert costs[kind].alone == pytest.approx(1)
    assert rest == pytest.approx(0)


def test_a_false_object_of_high_score_costs_precision() -> None:
    truths, guesses = [track(1, STAYS)], [track(7, STAYS), track(8, [C] * LENGTH, score=1.0)]
    cases = cases_of(pair(*scene(truths, guesses)))
    base, costs, rest = costs_of(cases, diagnosis.failures(cases))
    assert base == pytest.approx(0.5)
    assert costs[FALSE].alone == pytest.approx(1)
    assert costs[FALSE].share == pytest.approx(1)
    assert rest == pytest.approx(0)


def test_failures_of_several_videos_keep_their_video() -> None:
    first, second = scene(*SCENES[CHANGE][:2], name="a"), scene(*SCENES[LOST][:2], name="b")
    cases = cases_of(pair(first[0] + second[0], first[1] + second[1]))
    assert [(f.video, f.kind, f.video_index) for f in diagnosis.failures(cases)] == [("a", CHANGE, 0), ("b", LOST, 1)]


def random_scene(seed: int) -> tuple[list[Video], list[Prediction]]:
    rng = np.random.default_rng(seed)
    length, truths, guesses = int(rng.integers(2, 8)), [], []
    for number in range(int(rng.integers(1, 4))):
        path = rng.integers(0, 50, 2) + np.cumsum(rng.integers(-4, 5, (length, 2)), 0)
        extent = rng.integers(6, 25, 2)
        label = int(rng.integers(2))
        boxes = [(int(x), int(y), int(extent[0]), int(extent[1])) for x, y in path]
        truths.append(track(number + 1, [b if rng.random() < 0.9 else None for b in boxes], label=label))
        for _ in range(int(rng.integers(0, 3))):
            near = [(x + int(rng.integers(-2, 3)), y, w, h) for x, y, w, h in boxes]
            kept = [b if rng.random() < 0.8 else None for b in near]
            kind = label if rng.random() < 0.8 else 1 - label
            guesses.append(track(len(guesses), kept, score=float(rng.random()), label=kind))
    if len(guesses) > 1:
        middle, (one, other) = length // 2, (list(g.rles) for g in guesses[:2])
        guesses[0] = replace(guesses[0], rles=tuple(one[:middle] + other[middle:]))
        guesses[1] = replace(guesses[1], rles=tuple(other[:middle] + one[middle:]))
    return scene(truths, guesses)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_shares_add_up_and_ap_is_the_official_one(seed: int) -> None:
    videos, guesses = random_scene(seed)
    pairs = pair(videos, guesses)
    cases = cases_of(pairs)
    named = diagnosis.failures(cases)
    base, costs, rest = costs_of(cases, named)
    assert base == pytest.approx(ytvis.evaluate(videos, guesses)["AP"])
    assert tuple(costs) == KINDS
    if base < 1 - 1e-9:
        assert sum(cost.share for cost in costs.values()) + rest == pytest.approx(1)
    for failure in named:
        assert failure.video == "v"
        assert all(0 <= t < pairs[0].length for t in failure.frames)
        assert set(failure.truths) <= {truth.id for truth in videos[0].tracks or ()}
        assert set(failure.tracks) <= {guess.id for guess in guesses[0].tracks}


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_truth_as_prediction_has_no_failures(seed: int) -> None:
    videos, _ = random_scene(seed)
    tracks = tuple(t for t in videos[0].tracks or () if masks.areas([rle for rle in t.rles if rle]).sum())
    shown = [replace(videos[0], tracks=tracks)]
    answer = Prediction(video="v", size=SIZE, length=len(videos[0]), tracks=tracks)
    overlapping = diagnosis.failures(cases_of(pair(shown, [answer])))
    assert {failure.kind for failure in overlapping} <= {MERGE}  # objects that lie within one another
