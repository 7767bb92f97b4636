from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core import masks
from tubelet.core.masks import RLE, overlaps
from tubelet.core.masks import packed as tubes


def random_track(rng: np.random.Generator, length: int, size: tuple[int, int]) -> tuple[list[RLE | None], np.ndarray]:
    """Noisy and blocky masks, some or most absent, some empty, some full."""
    stack = rng.random((length, *size)) < rng.choice([0, 0.1, 0.5, 1], (length, 1, 1))
    for mask in stack:
        if rng.random() < 0.5:
            row, column = (int(rng.integers(side)) for side in size)
            mask[: row + 1, column:] = True
    absent = rng.random(length) < rng.choice([0.3, 0.9])
    rles = [None if gone else rle for gone, rle in zip(absent, masks.encode(stack), strict=True)]
    stack[absent] = False
    return rles, stack


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_shared_pixels_are_counted_as_dense_masks_count_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, length = (int(rng.integers(1, 30)), int(rng.integers(1, 30))), int(rng.integers(1, 14))
    tracks, stacks = zip(*(random_track(rng, length, size) for _ in range(5)), strict=True)
    packed = tubes.pack(tracks, size)
    pairs = [(one, other) for one in packed[:3] for other in packed[1:] if rng.random() < 0.8]
    dense = {id(tube): stack for tube, stack in zip(packed, stacks, strict=True)}
    expected = [int((dense[id(one)] & dense[id(other)]).sum()) for one, other in pairs]
    assert overlaps.intersections(pairs).tolist() == expected
    assert (overlaps.shared_at_most(pairs)[:, 0] >= expected).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_bounds_of_parts_hold_in_every_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, length = (5, 9), int(rng.integers(1, 14))
    tracks, stacks = zip(*(random_track(rng, length, size) for _ in range(2)), strict=True)
    packed = tubes.pack(tracks, size)
    (bounds,) = overlaps.shared_at_most([(packed[0], packed[1])], 3)
    (borders,) = overlaps.part_borders(np.array([length]), 3)
    shared = (stacks[0] & stacks[1]).sum((1, 2))
    assert borders[0] == 0
    assert borders[-1] == length
    for part, bound in enumerate(bounds):
        assert bound >= shared[borders[part] : borders[part + 1]].sum()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_frame_by_frame_counts_are_those_of_dense_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, length = (int(rng.integers(1, 20)), int(rng.integers(1, 20))), int(rng.integers(1, 14))
    tracks, stacks = zip(*(random_track(rng, length, size) for _ in range(5)), strict=True)
    packed = tubes.pack(tracks, size)
    found = overlaps.frame_intersections(packed[:2], packed[2:])
    for t, n, m in np.ndindex(length, 2, 3):
        assert found[t, n, m] == (stacks[n][t] & stacks[2 + m][t]).sum()


@pytest.mark.parametrize("seed", range(12))
def test_counts_are_the_same_where_a_long_video_is_compared_in_parts(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    size = (6, 8)
    tracks, stacks = zip(*(random_track(rng, 12, size) for _ in range(5)), strict=True)
    packed = tubes.pack(tracks, size)
    monkeypatch.setattr(overlaps, "MOST_COLUMNS", size[1] * 10)  # frames of all tracks at once
    by_frame = overlaps.frame_intersections(packed[:2], packed[2:])
    in_total = overlaps.intersections([(one, other) for one in packed[:2] for other in packed[2:]])
    dense = np.stack(stacks)
    expected = (dense[:2, None] & dense[None, 2:]).sum((3, 4))  # [2, 3, T]
    assert np.array_equal(by_frame, expected.transpose(2, 0, 1))
    assert np.array_equal(in_total, expected.sum(2).ravel())


def test_a_track_of_more_pixels_than_fit_in_32_bits_is_compared() -> None:
    size = (1 << 14, 1 << 14)
    mask = masks.from_json({"size": size, "counts": [size[0] * size[1] - 5, 5]}, size)
    tube = tubes.pack([[mask] * 20], size)[0]
    assert overlaps.intersections([(tube, tube)]).tolist() == [100]
    assert overlaps.frame_intersections([tube], [tube]).ravel().tolist() == [5] * 20


def test_no_tracks_share_nothing() -> None:
    tube = tubes.pack([[None, None]], (3, 4))[0]
    assert overlaps.frame_intersections([tube], []).shape == (2, 1, 0)
    assert overlaps.shared_at_most([]).size == overlaps.intersections([]).size == 0


def test_many_tracks_of_large_frames_are_counted_in_several_tables() -> None:
    """A frame of each does not fit into one table, whose pixels are numbered in 32 bits."""
    size = (11_000, 11_000)
    mask = np.zeros((1, *size), bool)
    mask[0, 40:50, 10_900:10_910] = True
    (rle,) = masks.encode(mask)
    del mask
    packed = tubes.pack([[rle]] * 24, size)
    assert (overlaps.frame_intersections(packed, packed) == 100).all()
    assert (overlaps.intersections([(one, other) for one in packed[:8] for other in packed[:8]]) == 100).all()
    assert (overlaps.intersections(list(zip(packed, packed[::-1], strict=True))) == 100).all()
