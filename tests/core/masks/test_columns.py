from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core import masks
from tubelet.core.masks import columns
from tubelet.core.masks import packed as tubes


def random_stack(rng: np.random.Generator, length: int, size: tuple[int, int]) -> np.ndarray:
    """Empty, full, noisy and striped masks, bool [length, H, W]."""
    stack = rng.random((length, *size)) < rng.choice([0, 0.1, 0.5, 1], (length, 1, 1))
    stack[rng.random(length) < 0.3, ::2] = False
    return stack


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_strokes_are_the_runs_of_the_object_in_every_column(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, lengths = (int(rng.integers(1, 12)), int(rng.integers(1, 12))), rng.integers(1, 5, 3).tolist()
    stacks = [random_stack(rng, length, size) for length in lengths]
    packed = [tubes.pack([masks.encode(stack)], size)[0] for stack in stacks]
    begin = int(rng.integers(0, 3))
    end = begin + int(rng.integers(1, 4))
    tracks = columns.TrackMasks.of(packed)
    found = columns.strokes(tracks, tracks.between(begin, end))

    for n, stack in enumerate(stacks):
        drawn = np.zeros((len(stack[begin:end]) * size[1], size[0]), int)
        span = slice(found.starts[n], found.starts[n + 1])
        for column, top, bottom in zip(found.column[span], found.top[span], found.bottom[span], strict=True):
            assert top < bottom
            drawn[column, top:bottom] += 1
        assert np.array_equal(drawn, stack[begin:end].transpose(0, 2, 1).reshape(drawn.shape))
        assert (np.diff(found.column[span]) >= 0).all()


@pytest.mark.parametrize("deepest", [0, 1, 100])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_pixels_are_counted_whether_columns_are_searched_or_gone_through(deepest: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, length = (int(rng.integers(1, 30)), int(rng.integers(1, 12))), int(rng.integers(1, 5))
    stacks = [random_stack(rng, length, size) for _ in range(4)]
    packed = tubes.pack([masks.encode(stack) for stack in stacks], size)
    tracks = columns.TrackMasks.of([packed[n] for n in (0, 1, 3)])
    found = columns.strokes(tracks, tracks.between())
    expected = np.array([(stacks[n] & stacks[2]).sum((1, 2)) for n in (0, 1, 3)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "DEEPEST", deepest)
        table = columns.lookup(packed[1:3])
        forward = table.origins[1]
        whole = columns.shared_pixels(found, table, shift=forward)
        by_mask = columns.shared_pixels(found, table, shift=forward, by_mask=True)

    assert whole.tolist() == expected.sum(1).tolist()
    assert by_mask.tolist() == expected.ravel().tolist()


def test_tracks_of_images_higher_than_16_bits_are_compared() -> None:
    size = (40_000, 2)
    stack = np.zeros((1, *size), bool)
    stack[:, 100:39_000] = True
    packed = tubes.pack([masks.encode(stack)], size)
    tracks = columns.TrackMasks.of(packed)
    found = columns.strokes(tracks, tracks.between())
    assert columns.shared_pixels(found, columns.lookup(packed)).tolist() == [77_800]
