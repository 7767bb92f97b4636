from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tubelet.core import masks
from tubelet.core.errors import ConfigError
from tubelet.core.types import Track, Video
from tubelet.data.sampling import (
    AnySampler,
    DroppedClip,
    NearbyPair,
    OrderedPair,
    RandomPair,
    Repeat,
    Sample,
    SupportReference,
    to_and_fro,
    valid_frames,
)

RNG = np.random.default_rng
SEEDS = st.integers(0, 2**32 - 1)
LENGTHS = st.integers(1, 90)
FULL = masks.encode(np.ones((1, 4, 4), bool))[0]
EMPTY = masks.encode(np.zeros((1, 4, 4), bool))[0]
ALL = (
    Repeat(), RandomPair(), OrderedPair(), SupportReference(), SupportReference(supports=3, spread="uniform"),
    NearbyPair(), NearbyPair(frames=5), DroppedClip(),
)  # fmt: skip


def video_with(present: str, ignored: str = "") -> Video:
    """A video whose one object is present where the text has an x, and one ignored object where `ignored` has."""
    code = {"x": FULL, "-": None, "o": EMPTY}
    tracks = [Track(id=1, label=0, score=1.0, rles=tuple(code[c] for c in present))]
    if ignored:
        tracks.append(Track(id=2, label=0, score=1.0, rles=tuple(code[c] for c in ignored), ignore=True))
    return Video(id="v", size=(4, 4), frames=[None] * len(present), tracks=tuple(tracks))


def full(length: int) -> Video:
    return video_with("x" * length)


@pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: repr(sampler))
@given(length=LENGTHS, seed=SEEDS, named=st.booleans())
def test_every_sampler_stays_inside_the_video_and_predicts_a_frame(sampler, length, seed, named):
    current = length // 2 if named else None
    sample = sampler.sample(full(length), RNG(seed), current)
    assert all(0 <= t < length for t in sample.indices)
    assert len(sample.key) == len(sample.indices)
    assert any(sample.key)
    assert sample == sampler.sample(full(length), RNG(seed), current)


@pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: repr(sampler))
def test_a_sampler_reads_back_from_json(sampler):
    assert TypeAdapter(AnySampler).validate_json(sampler.model_dump_json()) == sampler


def test_a_frame_is_valid_with_a_pixel_of_an_object_that_is_not_ignored():
    assert valid_frames(video_with("x-ox-", ignored="xxxxx")).tolist() == [0, 3]
    assert valid_frames(video_with("----")).tolist() == []


def test_repeat_names_one_frame_again_and_counts_its_own_time():
    sample = Repeat(frames=3, context=1).sample(full(5), RNG(0))
    assert len(set(sample.indices)) == 1
    assert sample.key == (False, True, True)
    assert sample.times == (0, 1, 2)
    assert Repeat(frames=2).sample(full(5), RNG(0), current=3).indices == (3, 3)


def test_random_pair_is_of_two_distinct_valid_frames_in_both_directions():
    video = video_with("x-xx-x")
    samples = [RandomPair().sample(video, RNG(seed)) for seed in range(200)]
    assert all(s.key == (False, True) for s in samples)
    assert {s.indices for s in samples} == {(a, b) for a in (0, 2, 3, 5) for b in (0, 2, 3, 5) if a != b}


def test_random_pair_of_a_named_frame_draws_the_reference_only():
    samples = {RandomPair(context=0).sample(full(3), RNG(seed), current=1) for seed in range(40)}
    assert {s.indices for s in samples} == {(0, 1), (2, 1)}
    assert all(s.key == (True, True) for s in samples)


def test_a_single_valid_frame_is_its_own_reference():
    assert RandomPair().sample(video_with("--x-"), RNG(0)).indices == (2, 2)
    assert OrderedPair().sample(video_with("--x-"), RNG(0)).indices == (2, 2)


def test_a_video_without_objects_still_gives_a_pair():
    assert set(RandomPair().sample(video_with("---"), RNG(0)).indices) <= {0, 1, 2}


@pytest.mark.parametrize(("current", "reference"), [(5, 3), (3, 2), (2, 0), (0, 2)])
def test_ordered_pair_takes_the_nearest_earlier_valid_frame_and_else_the_nearest_later(current, reference):
    sample = OrderedPair().sample(video_with("x-xx-x"), RNG(0), current)
    assert sample == Sample((reference, current), (False, True))


@given(length=st.integers(2, 40), seed=SEEDS)
def test_ordered_pair_never_looks_ahead_except_from_the_first_frame(length, seed):
    reference, current = OrderedPair().sample(full(length), RNG(seed)).indices
    assert reference < current or (current == 0 and reference == 1)


@given(length=st.integers(5, 40), seed=SEEDS, supports=st.integers(2, 3))
def test_random_supports_are_apart_from_reference_and_current(length, seed, supports):
    sample = SupportReference(supports=supports).sample(full(length), RNG(seed))
    assert len(set(sample.indices)) == supports + 2
    assert sample.key == (False,) * (supports + 1) + (True,)


def test_uniform_supports_are_spread_over_the_video():
    sample = SupportReference(supports=3, spread="uniform").sample(full(21), RNG(0))
    assert sample.indices[:3] == (0, 10, 20)


@given(length=LENGTHS, supports=st.integers(1, 40))
def test_uniform_supports_are_rounded_even_steps_and_repeat_in_short_videos(length, supports):
    sample = SupportReference(supports=supports, spread="uniform").sample(full(length), RNG(0))
    assert sample.indices[:supports] == tuple(round(t) for t in np.linspace(0, length - 1, supports))


@given(length=st.integers(2, 90), seed=SEEDS)
def test_nearby_frames_are_two_sorted_and_within_reach(length, seed):
    first, second = NearbyPair().sample(full(length), RNG(seed)).indices
    assert 0 < second - first <= 20


def test_nearby_frames_reach_twenty_both_ways_and_no_further():
    distances = {b - a for a, b in (NearbyPair().sample(full(90), RNG(s), 45).indices for s in range(600))}
    assert distances == set(range(1, 21))


@given(length=st.integers(33, 200), seed=SEEDS)
def test_a_dropped_clip_has_one_gap_in_an_even_stride(length, seed):
    sample = DroppedClip().sample(full(length), RNG(seed))
    steps = np.diff(sample.indices)
    stride = steps.min()
    gaps = steps[steps != stride] - stride
    assert len(sample.indices) == 32
    assert all(sample.key)
    assert 1 <= stride <= 5
    assert len(gaps) == 1
    assert 1 <= gaps[0] <= 5


def test_short_videos_are_played_to_and_fro_without_predicting_a_frame_twice():
    assert to_and_fro(4, 9).indices == (0, 1, 2, 3, 2, 1, 0, 1, 2)
    assert to_and_fro(4, 9).key == (True,) * 4 + (False,) * 5
    assert to_and_fro(1, 3).indices == (0, 0, 0)
    sample = DroppedClip(frames=8).sample(full(5), RNG(0))
    assert sum(sample.key) == 5
    assert {t for t, key in zip(sample.indices, sample.key, strict=True) if key} == set(range(5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Repeat(frames=2, context=2),
        lambda: DroppedClip(drop=(3, 1)),
        lambda: DroppedClip(stride=(0, 1)),
        lambda: SupportReference(supports=0),
        lambda: NearbyPair(reach=0),
    ],
)
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(ConfigError):
        make()
