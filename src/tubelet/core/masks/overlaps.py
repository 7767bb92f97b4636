"""How many pixels tracks share, over a video or frame by frame.

The places where two tracks change between background and object, sorted together, bound the pixels in which they
differ; and two sorted lists are merged faster than anything else could be done with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tubelet.core.masks.packed import Tube
from tubelet.core.masks.run_codec import AREA, BATCH_BYTES, LEFT, RIGHT, decode, keep_freed_memory, places_of

AT_ONCE = 4096  # pairs whose columns are compared together

TrackPairs = Sequence[tuple[Tube, Tube]]  # two tracks of one video each


def intersections(pairs: TrackPairs) -> np.ndarray:
    """Pixels that the two tracks of each pair share over the whole video, int64 [K].

    TrackPairs that have a track in common are best beside each other: each is decoded once.
    """
    keep_freed_memory()
    shared = np.zeros(len(pairs), np.int64)
    begin = 0
    while begin < len(pairs):
        used: dict[int, Tube] = {}
        end, size = begin, 0
        while end < len(pairs) and size < 4 * BATCH_BYTES:
            for tube in pairs[end]:
                if id(tube) not in used:
                    used[id(tube)] = tube
                    size += len(tube.data)
            end += 1
        places = dict(zip(used, changes(list(used.values())), strict=True))
        for n, (one, other) in enumerate(pairs[begin:end], begin):
            shared[n] = (one.pixels + other.pixels - _differing(places[id(one)], places[id(other)])) // 2
        begin = end
    return shared


def shared_at_most(pairs: TrackPairs) -> np.ndarray:
    """A cheap bound on shared pixels, int64 [K]: the smaller area, in frames where both touch a common column."""
    bounds = [np.zeros(0, np.int64)]
    for begin in range(0, len(pairs), AT_ONCE):
        some = pairs[begin : begin + AT_ONCE]
        one, other = (np.concatenate([pair[side].facts for pair in some]) for side in (0, 1))  # [frames of all, 3]
        meeting = (one[:, LEFT] <= other[:, RIGHT]) & (other[:, LEFT] <= one[:, RIGHT])
        starts = np.cumsum([0, *(len(tube) for tube, _ in some[:-1])])
        bounds.append(np.add.reduceat(np.minimum(one[:, AREA], other[:, AREA]) * meeting, starts, dtype=np.int64))
    return np.concatenate(bounds)


def frame_intersections(first: Sequence[Tube], second: Sequence[Tube]) -> np.ndarray:
    """Pixels that two tracks of one video share in each frame, int64 [T, N, M]."""
    length = len(first[0]) if first else len(second[0]) if second else 0
    shared = np.zeros((length, len(first), len(second)), np.int64)
    pairs = [(one, other) for one in first for other in second]
    wanted = [divmod(n, len(second)) for n in np.flatnonzero(shared_at_most(pairs)).tolist()]
    one, other = (_changes_of(tubes, {pair[side] for pair in wanted}) for side, tubes in enumerate((first, second)))
    for n, m in wanted:
        merged = np.sort(np.concatenate([one[n], other[m]]), kind="stable")
        begins, pixels = merged[::2], merged[1::2] - merged[::2]
        frames = begins // (first[n].size[0] * first[n].size[1])  # a stretch of nothing may begin after the last
        differing = np.bincount(frames, pixels, minlength=length)[:length].astype(np.int64)
        shared[:, n, m] = (first[n].areas + second[m].areas - differing) // 2
    return shared


def changes(tubes: Sequence[Tube]) -> list[np.ndarray]:
    """Where each track changes between background and object, int [even], rising; frame t begins at t * H * W.

    The object lies from the first place up to the second, from the third up to the fourth, and so on, each such stretch
    within one frame.
    """
    if not tubes:
        return []
    frames = [len(tube) for tube in tubes]
    between = np.cumsum(np.array(frames) + 1)[:-1] - 1  # steps from one tube to the next, which mean nothing
    counts = np.delete(np.diff(np.concatenate([tube.starts for tube in tubes])), between).astype(np.int64)
    present = counts > 0
    if not present.any():
        return [np.zeros(0, np.int64)] * len(tubes)
    pixels = np.repeat([tube.size[0] * tube.size[1] for tube in tubes], frames)
    frame = np.arange(len(counts)) - np.repeat(np.cumsum([0, *frames[:-1]]), frames)
    runs, _ = decode(np.frombuffer(b"".join([tube.data for tube in tubes]), np.uint8), counts[present])
    assert runs is not None, "a tube is made of sound masks"
    places = places_of(runs, (frame * pixels)[present], pixels[present])
    ends = np.zeros(len(counts) + 1, np.int64)
    ends[1:][present] = (runs.last - runs.first + 1) & ~1
    bounds = np.cumsum(ends)[np.cumsum([0, *frames])].tolist()
    return [places[begin:end] for begin, end in pairwise(bounds)]


def _changes_of(tubes: Sequence[Tube], used: set[int]) -> dict[int, np.ndarray]:
    return dict(zip(sorted(used), changes([tubes[n] for n in sorted(used)]), strict=True))


def _differing(one: np.ndarray, other: np.ndarray) -> int:
    """Pixels that belong to one track but not to both."""
    merged = np.concatenate([one, other])
    merged.sort(kind="stable")  # stable: made for lists that are sorted in parts
    return int((merged[1::2] - merged[::2]).sum(dtype=merged.dtype))
