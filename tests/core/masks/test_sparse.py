"""A sparse track is what a tuple with a None for each frame without the object was."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.masks import RLE
from tubelet.core.masks.packed import pack
from tubelet.core.masks.sparse import SparseMasks, sparse

SIZE = (4, 6)
Dense = tuple[RLE | None, ...]


def rle(column: int) -> RLE:
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 1:3, : column + 1] = True
    return masks.encode(mask)[0]


RLES = st.one_of(st.none(), st.sampled_from([rle(column) for column in range(6)]))
DENSE = st.lists(RLES, max_size=9).map(tuple)
BOUNDS = st.one_of(st.none(), st.integers(-11, 11))


def forms(dense: Dense) -> list[SparseMasks]:
    return [sparse(dense), sparse(list(dense)), *(pack([dense], SIZE) if dense else [])]


@settings(deadline=None)
@given(dense=DENSE)
def test_it_reads_like_the_tuple(dense: Dense) -> None:
    for thin in forms(dense):
        assert len(thin) == len(dense)
        assert tuple(thin) == dense
        assert [thin[t] for t in range(-len(dense), len(dense))] == [*dense, *dense]
        assert thin.count(None) == dense.count(None)
        assert [thin.index(entry) for entry in dense] == [dense.index(entry) for entry in dense]
        assert tuple(reversed(thin)) == dense[::-1]
        assert list(thin.items()) == [(t, entry) for t, entry in enumerate(dense) if entry is not None]
        for t in (len(dense), -len(dense) - 1):
            with pytest.raises(IndexError):
                thin[t]


@settings(deadline=None)
@given(dense=DENSE, start=BOUNDS, stop=BOUNDS, step=st.one_of(st.none(), st.integers(1, 4), st.integers(-4, -1)))
def test_it_is_cut_like_the_tuple(dense: Dense, start: int | None, stop: int | None, step: int | None) -> None:
    for thin in forms(dense):
        assert thin[start:stop:step] == dense[start:stop:step]


@settings(deadline=None)
@given(first=DENSE, second=DENSE)
def test_it_equals_what_has_the_same_entries(first: Dense, second: Dense) -> None:
    for thin, other in zip(forms(first), forms(second), strict=False):
        assert (thin == other) == (thin == second) == (first == other) == (first == second)
        assert hash(thin) == hash(first)
        assert pickle.loads(pickle.dumps(thin)) == thin


@settings(deadline=None)
@given(dense=DENSE, cuts=st.lists(st.integers(0, 9), max_size=3))
def test_parts_that_are_cut_out_join_to_the_whole(dense: Dense, cuts: list[int]) -> None:
    for thin in forms(dense):
        parts = [thin.between(start, stop) for start, stop in pairwise([0, *sorted(cuts), 10])]
        whole = parts[-1]
        for part in parts[:-1]:
            assert len(part) == len(dense)
            whole = whole.joined(part)
        assert whole == dense


def test_tracks_that_share_a_frame_do_not_join() -> None:
    with pytest.raises(FormatError, match="both tracks have a mask in frame 1"):
        sparse((rle(0), rle(1))).joined(sparse((None, rle(2))))
    with pytest.raises(FormatError, match="disagree on length: 2 and 3 frames"):
        sparse((None, None)).joined(sparse((None, None, None)))


def test_a_short_appearance_in_a_long_video_takes_little_memory() -> None:
    length = 1_000_000
    thin = SparseMasks(length, np.array([5], np.int32), (rle(0),))
    (tube,) = pack([thin], SIZE)
    assert len(pickle.dumps(thin)) < 2000
    assert len(pickle.dumps(tube)) < 2000
    assert (len(tube), tube[5], tube[6]) == (length, rle(0), None)
    assert tube.areas.sum() == 2
    assert tube == thin


@settings(deadline=None)
@given(first=DENSE, second=DENSE)
def test_the_overlap_of_two_tracks_is_counted_frame_by_frame(first: Dense, second: Dense) -> None:
    length = min(len(first), len(second))
    one, other = (_pixels(dense[:length]) for dense in (first, second))
    union = (one | other).sum()
    expected = (one & other).sum() / union if union else 0.0
    assert masks.spatio_temporal_iou(first[:length], second[:length]) == pytest.approx(expected)


def _pixels(dense: Dense) -> np.ndarray:
    empty = np.zeros(SIZE, bool)
    frames = [empty if entry is None else masks.decode([entry])[0].astype(bool) for entry in dense]
    return np.stack(frames) if frames else empty[None]
