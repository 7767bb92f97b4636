"""Count the pixels in the intersection of two packed tracks, over a video or frame by frame.

A track is the sorted list of positions where it changes between background and object. In the
merged list of two tracks, the pixels from the first position to the second, from the third to the
fourth and so on are those of exactly one of the two. Merging two sorted lists is fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tubelet.core.masks.packed import Tube
from tubelet.core.masks.run_codec import AREA, BATCH_BYTES, LEFT, RIGHT, decode, keep_freed_memory, run_ends

AT_ONCE = 4096  # pairs per batch of `shared_at_most`

TrackPairs = Sequence[tuple[Tube, Tube]]  # the two tracks of a pair are of the same video


def intersections(pairs: TrackPairs) -> np.ndarray:
    """Count the pixels that the two tracks of each pair share over the whole video, int64 [K].

    A track in several pairs is decoded once if the pairs are next to each other.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.overlaps import intersections
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> first, second = pack([[rle, rle], [rle, None]], size=(4, 6))
        >>> intersections([(first, second), (first, first)])
        array([24, 48])
    """
    keep_freed_memory()
    shared = np.zeros(len(pairs), np.int64)
    begin = 0
    while begin < len(pairs):
        tubes, end = _next_batch(pairs, begin)
        positions = dict(zip(tubes, changes(list(tubes.values())), strict=True))
        for n, (first, second) in enumerate(pairs[begin:end], begin):
            differing = _differing(positions[id(first)], positions[id(second)])
            shared[n] = (first.pixels + second.pixels - differing) // 2
        begin = end
    return shared


def _next_batch(pairs: TrackPairs, begin: int) -> tuple[dict[int, Tube], int]:
    """The tracks, by identity, of the batch of pairs that starts at `begin`; and its end."""
    tubes: dict[int, Tube] = {}
    num_bytes = 0
    end = begin
    while end < len(pairs) and num_bytes < 4 * BATCH_BYTES:
        for tube in pairs[end]:
            if id(tube) not in tubes:
                tubes[id(tube)] = tube
                num_bytes += len(tube.data)
        end += 1
    return tubes, end


def shared_at_most(pairs: TrackPairs) -> np.ndarray:
    """Compute a cheap upper bound of `intersections`, int64 [K].

    It is the smaller of the two areas, summed over frames in which both have pixels in a range of
    columns that the two share.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.overlaps import shared_at_most
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> first, second = pack([[rle, rle], [rle, None]], size=(4, 6))
        >>> shared_at_most([(first, second)])
        array([24])
    """
    bounds = [np.zeros(0, np.int64)]
    for begin in range(0, len(pairs), AT_ONCE):
        batch = pairs[begin : begin + AT_ONCE]
        first = np.concatenate([first.facts for first, _ in batch])  # [frames of all pairs, 3]
        second = np.concatenate([second.facts for _, second in batch])

        columns_meet = (first[:, LEFT] <= second[:, RIGHT]) & (second[:, LEFT] <= first[:, RIGHT])
        smaller = np.minimum(first[:, AREA], second[:, AREA])
        starts = np.cumsum([0, *(len(tube) for tube, _ in batch[:-1])])
        bounds.append(np.add.reduceat(smaller * columns_meet, starts, dtype=np.int64))
    return np.concatenate(bounds)


def frame_intersections(first: Sequence[Tube], second: Sequence[Tube]) -> np.ndarray:
    """Count the pixels that tracks of one video share in each frame, int64 [T, N, M].

    Args:
        first: N tracks.
        second: M tracks.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.overlaps import frame_intersections
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> first, second = pack([[rle, rle], [rle, None]], size=(4, 6))
        >>> frame_intersections([first], [second]).tolist()
        [[[24]], [[0]]]
    """
    length = len(first[0]) if first else len(second[0]) if second else 0
    shared = np.zeros((length, len(first), len(second)), np.int64)

    pairs = [(first_tube, second_tube) for first_tube in first for second_tube in second]
    candidates = [divmod(n, len(second)) for n in np.flatnonzero(shared_at_most(pairs)).tolist()]
    first_changes = _changes_of(first, {n for n, _ in candidates})
    second_changes = _changes_of(second, {m for _, m in candidates})

    for n, m in candidates:
        merged = np.sort(np.concatenate([first_changes[n], second_changes[m]]), kind="stable")
        begins = merged[::2]
        pixels = merged[1::2] - begins

        height, width = first[n].size
        frames = begins // (height * width)  # an interval without pixels may begin after the last frame
        differing = np.bincount(frames, pixels, minlength=length)[:length].astype(np.int64)
        shared[:, n, m] = (first[n].areas + second[m].areas - differing) // 2
    return shared


def changes(tubes: Sequence[Tube]) -> list[np.ndarray]:
    """Find where each track changes between background and object, int [even], ascending.

    Positions count pixels column by column; frame t begins at t * H * W. The object is from the
    first position up to the second, from the third up to the fourth and so on; each of these
    intervals is within one frame.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.masks.overlaps import changes
        >>> from tubelet.core.masks.packed import pack
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> changes(pack([[None, rle]], size=(4, 6)))[0].tolist()
        [24, 48]
    """
    if not tubes:
        return []

    num_frames = [len(tube) for tube in tubes]
    # differences from one tube's last start to the next tube's first are no lengths
    between = np.cumsum(np.array(num_frames) + 1)[:-1] - 1
    lengths = np.diff(np.concatenate([tube.starts for tube in tubes]))
    lengths = np.delete(lengths, between).astype(np.int64)  # bytes of each frame of all tubes
    present = lengths > 0
    if not present.any():
        return [np.zeros(0, np.int64)] * len(tubes)

    pixels = np.repeat([tube.size[0] * tube.size[1] for tube in tubes], num_frames)
    frame = np.arange(len(lengths)) - np.repeat(np.cumsum([0, *num_frames[:-1]]), num_frames)
    runs, _ = decode(np.frombuffer(b"".join([tube.data for tube in tubes]), np.uint8), lengths[present])
    assert runs is not None, "the masks of a tube are valid"
    positions = run_ends(runs, (frame * pixels)[present], pixels[present])

    num_changes = np.zeros(len(lengths) + 1, np.int64)
    num_changes[1:][present] = (runs.last - runs.first + 1) & ~1
    bounds = np.cumsum(num_changes)[np.cumsum([0, *num_frames])].tolist()
    return [positions[begin:end] for begin, end in pairwise(bounds)]


def _changes_of(tubes: Sequence[Tube], numbers: set[int]) -> dict[int, np.ndarray]:
    """The changes of the tubes with these numbers."""
    ordered = sorted(numbers)
    return dict(zip(ordered, changes([tubes[n] for n in ordered]), strict=True))


def _differing(first: np.ndarray, second: np.ndarray) -> int:
    """Count the pixels of exactly one of two tracks, from their changes."""
    merged = np.concatenate([first, second])
    merged.sort(kind="stable")  # the stable sort is fast on lists that consist of sorted parts
    return int((merged[1::2] - merged[::2]).sum(dtype=merged.dtype))
