from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rectangles import scene, track

from tubelet.core.types import Prediction, Video
from tubelet.evaluation import significance, ytvis
from tubelet.evaluation.pairing import pair
from tubelet.evaluation.partners import Matches, match

A, B, C = (5, 5, 12, 12), (30, 5, 12, 12), (55, 40, 12, 12)


def matches_of(seed: int, skill: float, videos: int = 12) -> tuple[Matches, list[Video], list[Prediction]]:
    """Each object is found with a chance of `skill`; scores do not tie."""
    rng = np.random.default_rng(seed)
    held: tuple[list[Video], list[Prediction]] = ([], [])
    for n in range(videos):
        truths = [track(1, [A], label=n % 2), track(2, [B])]
        guesses = [t for t in truths if rng.random() < skill] + [track(9, [C], label=int(rng.integers(2)))]
        rescored = [
            track(g.id, [A if g.id == 1 else B if g.id == 2 else C], score=float(rng.random()), label=g.label)
            for g in guesses
        ]
        one = scene(truths, rescored, f"v{n}")
        held[0].extend(one[0])
        held[1].extend(one[1])
    return match(pair(*held), ytvis.AREAS), *held


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_videos_drawn_once_give_the_official_ap(seed: int) -> None:
    matches, videos, guesses = matches_of(seed, 0.7)
    expected = ytvis.evaluate(videos, guesses)["AP"]
    assert significance.precision(matches, np.ones((1, 12)))[0] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_video_drawn_twice_counts_as_two_videos(seed: int) -> None:
    matches, videos, guesses = matches_of(seed, 0.7, videos=4)
    weights = np.array([[2, 0, 1, 1]])
    copies = [(0, "a"), (0, "b"), (2, "c"), (3, "d")]
    drawn = [[scenes_copy(v[n], name) for n, name in copies] for v in (videos, guesses)]
    expected = ytvis.evaluate(*drawn)["AP"]
    assert significance.precision(matches, weights)[0] == pytest.approx(expected, abs=1e-9)


def scenes_copy(item: Video | Prediction, name: str) -> Video | Prediction:
    if isinstance(item, Video):
        return Video(id=name, size=item.size, frames=item.frames, tracks=item.tracks)
    return Prediction(video=name, size=item.size, length=item.length, tracks=item.tracks)


def test_the_same_result_differs_from_itself_by_nothing() -> None:
    matches = matches_of(1, 0.6)[0]
    gain = significance.compare(matches, matches, np.random.default_rng(0))
    assert (gain.value, gain.low, gain.high, gain.is_noise) == (0, 0, 0, True)


def test_a_clear_gain_is_told_from_luck() -> None:
    poor, good = matches_of(1, 0.1)[0], matches_of(1, 0.95)[0]
    gain = significance.compare(poor, good, np.random.default_rng(0))
    assert gain.low > 0
    assert not gain.is_noise


def test_the_same_seed_gives_the_same_interval() -> None:
    matches = matches_of(3, 0.6)[0]
    first, second = (significance.spread(matches, np.random.default_rng(7)) for _ in range(2))
    assert first == second
    assert first.low <= first.value <= first.high


def test_results_on_different_truths_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="on the same truth"):
        significance.compare(matches_of(1, 0.5)[0], matches_of(1, 0.5, videos=3)[0], np.random.default_rng(0))


def test_classes_without_predictions_count_as_zero() -> None:
    videos, guesses = scene([track(1, [A]), track(2, [B], label=1)], [track(1, [A])])
    matches = match(pair(videos, guesses), ytvis.AREAS)
    assert significance.precision(matches, np.ones((1, 1)))[0] == pytest.approx(0.5)


def test_runs_of_several_seeds_are_compared_by_their_means() -> None:
    runs = [matches_of(seed, skill)[0] for seed, skill in ((1, 0.4), (2, 0.5), (3, 0.8), (4, 0.9))]
    rng = np.random.default_rng
    both = significance.compare_runs(runs[:2], runs[2:], rng(0))
    singles = [significance.compare(a, b, rng(0)) for a, b in zip(runs[:2], runs[2:], strict=True)]
    assert both.value == pytest.approx(np.mean([one.value for one in singles]))
    assert both.low <= both.value <= both.high
    assert both.high - both.low <= max(one.high - one.low for one in singles) + 1e-9


def test_runs_on_other_videos_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same truth"):
        significance.compare_runs([matches_of(1, 0.5)[0]], [matches_of(1, 0.5, videos=5)[0]], np.random.default_rng(0))
