"""What a prediction and its tracks answer: by id, by frame, by condition."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core import masks
from tubelet.core.errors import ConfigError
from tubelet.core.records import Prediction, Track

SIZE = (4, 6)
TIMES = (0.0, 0.5, 1.0, 1.5)


@pytest.fixture(autouse=True)
def as_shipped() -> Iterator[None]:
    """Without the tests' own checker of types, which would refuse wrong arguments first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def square(left: int) -> masks.RLE:
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 1:3, left : left + 2] = True
    return masks.encode(mask)[0]


def track(id: int = 3, label: int = 0, frames: tuple[int, ...] = (1, 2), score: float = 0.9) -> Track:
    rles = tuple(square(t) if t in frames else None for t in range(4))
    return Track(id=id, label=label, score=score, rles=rles, video_times=TIMES)


def prediction(*tracks: Track) -> Prediction:
    return Prediction(video="v", size=SIZE, length=4, tracks=tracks, classes=("dog", "cat", "person"))


def test_rows_of_a_track_are_the_frames_in_which_it_appears() -> None:
    seen = track(frames=(1, 3))
    assert seen.frames.tolist() == [1, 3]
    assert seen.times.tolist() == [0.5, 1.5]
    assert seen.boxes.tolist() == [[1, 1, 3, 3], [3, 1, 5, 3]]
    assert seen.areas.tolist() == [4, 4]
    assert seen.seconds == 1.0


def test_a_mask_has_the_size_of_the_frame_and_is_empty_where_the_object_is_absent() -> None:
    seen = track(frames=(1,))
    assert seen.mask(1).dtype == bool
    assert seen.mask(1).nonzero()[1].tolist() == [1, 2, 1, 2]
    assert seen.mask(0).shape == SIZE
    assert not seen.mask(0).any()


@pytest.mark.parametrize("t", [4, -1, 1.0, True])
def test_a_frame_that_does_not_exist_has_no_mask(t: int) -> None:
    with pytest.raises(ConfigError, match="a frame: expected a whole number from 0 to 3"):
        track().mask(t)


def test_times_that_are_unknown_are_said_to_be() -> None:
    with pytest.raises(ConfigError, match="the times of track 1 are unknown"):
        _ = Track(id=1, label=0, score=1.0, rles=(None,)).times


def test_what_predict_adds_does_not_make_a_track_another() -> None:
    assert track() == Track(id=3, label=0, score=0.9, rles=track().rles, name="dog")


def test_a_prediction_is_its_tracks_and_a_number_is_an_id() -> None:
    both = prediction(track(7), track(3))
    assert len(both) == 2
    assert [seen.id for seen in both] == [7, 3] == list(both.ids)
    assert both[3] is both.tracks[1]
    assert both[np.int64(7)] is both.tracks[0]
    assert 3 in both
    assert both.tracks[0] in both
    assert 1 not in both


@pytest.mark.parametrize("id", [0, "3", 3.5, True, None])
def test_an_id_that_is_not_there_is_an_error_that_lists_those_that_are(id: int) -> None:
    with pytest.raises(ConfigError, match=r"no track with the id .*; ids: \[1, 3\]"):
        prediction(track(1), track(3))[id]


def test_a_prediction_without_tracks_is_a_result_too() -> None:
    assert prediction()
    assert len(prediction()) == 0


def test_each_condition_of_a_filter_leaves_out_what_fails_it() -> None:
    long_dog = track(1, label=0, frames=(0, 1, 2, 3), score=0.6)
    short_cat = track(2, label=1, frames=(2,), score=0.9)
    both = prediction(long_dog, short_cat)
    assert both.filter().tracks == both.tracks
    assert both.filter(classes=["dog", "person"]).ids == (1,)
    assert both.filter(ids=[2, 5]).ids == (2,)
    assert both.filter(min_score=0.7).ids == (2,)
    assert both.filter(min_seconds=1.9).ids == (1,)
    assert both.filter(min_frames=2).ids == (1,)
    assert both.filter(classes=["dog"], min_score=0.7).ids == ()


def test_a_filter_by_seconds_needs_times() -> None:
    with pytest.raises(ConfigError, match="times of track 1 are unknown"):
        prediction(Track(id=1, label=0, score=1.0, rles=(square(0),) * 4)).filter(min_seconds=1)


@pytest.mark.parametrize(
    ("classes", "said"),
    [(["persn"], "did you mean 'person'"), ("person", r"expected a list of class names"), ([0], "expected names such")],
)
def test_an_unknown_class_is_told_with_the_nearest(classes: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        prediction().filter(classes=classes)


# the frames in which an object is absent are not stored, and nobody notices

DENSE = st.lists(st.one_of(st.none(), st.sampled_from([square(left) for left in range(4)])), min_size=4, max_size=4)


@settings(deadline=None)
@given(dense=DENSE.map(tuple))
def test_a_track_answers_as_if_it_had_a_mask_or_none_for_each_frame(dense: tuple[masks.RLE | None, ...]) -> None:
    seen = Track(id=3, label=0, score=0.9, rles=dense, video_times=TIMES)
    present = [(t, rle) for t, rle in enumerate(dense) if rle is not None]
    assert seen.frames.tolist() == [t for t, _ in present]
    assert seen.frames.dtype == np.int64
    assert seen.times.tolist() == [TIMES[t] for t, _ in present]
    assert np.array_equal(seen.boxes, masks.boxes([rle for _, rle in present]))
    assert np.array_equal(seen.areas, masks.areas([rle for _, rle in present]))
    assert list(seen.entries.items()) == present
    assert tuple(seen.rles) == dense
    assert seen.rles == dense
    for t, rle in present:
        assert np.array_equal(seen.mask(t), masks.decode([rle])[0])
    assert repr(seen) == f"Track(id=3, label=0, score=0.9, frames={len(present)} of 4)"
    for same in (replace(seen, rles=list(dense)), replace(seen, name="dog"), pickle.loads(pickle.dumps(seen))):
        assert same == seen
        assert hash(same) == hash(seen)
    assert (replace(seen, rles=dense[::-1]) == seen) == (dense[::-1] == dense)


@settings(deadline=None)
@given(tracks=st.lists(DENSE, max_size=4))
def test_the_tracks_of_a_frame_are_those_that_have_a_mask_there(tracks: list[list[masks.RLE | None]]) -> None:
    both = prediction(*(Track(id=n, label=0, score=0.9, rles=rles) for n, rles in enumerate(tracks)))
    for t in range(4):
        expected = [(each.id, each.rles[t]) for each in both if each.rles[t] is not None]
        assert [(each.id, rle) for each, rle in both.in_frame(t)] == expected
