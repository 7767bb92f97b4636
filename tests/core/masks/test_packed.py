from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.masks import RLE
from tubelet.core.masks import packed as tubes


def random_masks(rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """Empty, full, noisy and blocky masks, bool [count, H, W]."""
    stack = np.zeros((count, *size), bool)
    for mask in stack:
        row, column = (int(rng.integers(side)) for side in size)
        kind = rng.integers(6)
        if kind == 1:
            mask[:] = True
        elif kind == 2:
            mask[:] = rng.random(size) < 0.5
        elif kind == 3:
            mask[row:, column:] = True
        elif kind == 4:
            mask[: row + 1, : column + 1] = True
        elif kind == 5:
            mask[row, column] = True
    return stack


def random_track(rng: np.random.Generator, length: int, size: tuple[int, int]) -> tuple[list[RLE | None], np.ndarray]:
    stack = random_masks(rng, length, size)
    absent = rng.random(length) < 0.3
    rles = [None if gone else rle for gone, rle in zip(absent, masks.encode(stack), strict=True)]
    stack[absent] = False
    return rles, stack


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_tube_holds_what_was_packed_and_counts_it_rightly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, length = (int(rng.integers(1, 40)), int(rng.integers(1, 40))), int(rng.integers(1, 6))
    tracks, stacks = zip(*(random_track(rng, length, size) for _ in range(5)), strict=True)
    for tube, track, stack in zip(tubes.pack(tracks, size), tracks, stacks, strict=True):
        assert tuple(tube) == tuple(track)
        assert tube == track
        assert tube.areas.tolist() == stack.sum((1, 2)).tolist()
        assert (tube.pixels, tube.held) == (stack.sum(), stack.any((1, 2)).sum())
        columns = [np.flatnonzero(mask.any(0)) for mask in stack]
        ends = [(c[0], c[-1]) if c.size else (1, 0) for c in columns]
        assert tube.facts[:, 1:].tolist() == [list(pair) for pair in ends]
        assert pickle.loads(pickle.dumps(tube)) == tube


@settings(max_examples=100, deadline=None)
@given(counts=st.binary(min_size=1, max_size=12), size=st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_broken_counts_are_refused_exactly_where_the_single_check_refuses_them(
    counts: bytes, size: tuple[int, int]
) -> None:
    whole = masks.encode(np.ones((1, *size), bool))[0].counts
    lengths = np.array([len(whole), len(counts), len(whole)])
    packed = tubes.pack_counts([tubes.TrackCounts.dense(whole + counts + whole, lengths, size)])[0]
    try:
        masks.check_counts(counts, size)
    except FormatError:
        assert isinstance(packed, tubes.Broken)
        assert packed.frame == 1
    else:
        assert isinstance(packed, tubes.Tube)
        area = masks.areas([RLE(size, counts)])[0]
        assert packed.areas.tolist() == [size[0] * size[1], area, size[0] * size[1]]


@settings(deadline=None)
@given(
    runs=st.lists(st.integers(-40, 40), min_size=1, max_size=8), size=st.tuples(st.integers(1, 8), st.integers(1, 8))
)
def test_runs_that_are_negative_or_do_not_fill_the_mask_are_refused(runs: list[int], size: tuple[int, int]) -> None:
    counts = _as_counts(runs)
    packed = tubes.pack_counts([tubes.TrackCounts.dense(counts, np.array([len(counts)]), size)])[0]
    assert isinstance(packed, tubes.Broken) == (min(runs) < 0 or sum(runs) != size[0] * size[1])


def _as_counts(runs: list[int]) -> bytes:
    """The format's own writing, run by run."""
    text = bytearray()
    for n, run in enumerate(runs):
        rest = run - runs[n - 2] if n > 2 else run
        more = True
        while more:
            low, rest = rest & 31, rest >> 5
            more = rest != -1 if low & 16 else rest != 0
            text.append(low + (32 if more else 0) + 48)
    return bytes(text)


def test_one_broken_track_does_not_spoil_its_neighbours() -> None:
    size = (4, 5)
    good = masks.encode(np.ones((2, *size), bool))
    data = [b"".join(rle.counts for rle in good), b"\xff", good[0].counts]
    lengths = [np.array([len(rle.counts) for rle in good]), np.array([0, 1]), np.array([0, len(good[0].counts)])]
    tracks = [tubes.TrackCounts.dense(*track, size) for track in zip(data, lengths, strict=True)]
    packed = tubes.pack_counts(tracks)
    assert [isinstance(tube, tubes.Broken) for tube in packed] == [False, True, False]
    assert packed[2].areas.tolist() == [0, 20]


def test_a_track_of_more_pixels_than_fit_in_32_bits_is_counted() -> None:
    size = (1 << 14, 1 << 14)
    runs = [size[0] * size[1] - 5, 5]
    rle = RLE(size, _as_counts(runs))
    assert masks.areas([rle])[0] == 5
    tube = tubes.pack([[rle] * 20], size)[0]
    assert tube.areas.tolist() == [5] * 20
    assert tube.pixels == 100


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(FormatError, match=r"frame 1: expected a mask of size \[2, 3\]"):
        tubes.pack([[None, RLE((3, 2), b"6")]], (2, 3))


def test_counts_written_with_more_symbols_than_needed_are_taken_and_written_anew() -> None:
    padded = b"PPPPPPPPP0"  # a run of 0, in ten symbols
    counts = padded + b"6"
    masks.check_counts(counts, (2, 3))
    tube = tubes.pack([[RLE((2, 3), counts)]], (2, 3))[0]
    assert tube[0] == RLE((2, 3), b"06")
    assert tube.areas.tolist() == [6]
