"""A validation split by video, stratified by class: each class keeps its share on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tubelet.core.errors import ConfigError
from tubelet.core.types import VideoSet
from tubelet.formats.ytvis.numbering import AnnotatedSet


def split(videos: VideoSet, held_out: int, seed: int = 0) -> tuple[VideoSet, VideoSet]:
    """(training, validation) sets, `held_out` videos in the second (IFR: 400 of YouTube-VIS 2019's training videos).

    Each class gets about its share of the held-out videos. Raises ConfigError unless a video is left on either side.
    """
    if not 0 < held_out < len(videos.videos):
        raise ConfigError(f"expected to hold out 1 to {len(videos.videos) - 1} videos, got {held_out}")
    held = stratify(classes_of(videos), held_out, seed)
    kept = sorted(set(range(len(videos.videos))) - set(held))
    return subset(videos, kept), subset(videos, held)


def classes_of(videos: VideoSet) -> list[frozenset[int]]:
    """The labels of each video's objects, ignored ones left out."""
    return [frozenset(t.label for t in video.tracks or () if not t.ignore) for video in videos.videos]


def stratify(labels: Sequence[frozenset[int]], number: int, seed: int) -> list[int]:
    """Positions of `number` videos, ascending, in which each label is about as frequent as in all of them.

    Starts from a random choice and swaps one video at a time while that lowers chi-square: the squared distance of each
    label's count from its share, over the label's frequency. Videos without any object count as a kind of their own.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    kinds = sorted({label for group in labels for label in group})
    present = np.array([[*(kind in labels[n] for kind in kinds), not labels[n]] for n in order], float)
    weights = 1 / np.maximum(present.sum(0), 1)
    chosen = np.arange(len(labels)) < number
    excess = present[chosen].sum(0) - present.sum(0) * number / len(labels)
    for _ in range(len(labels)):
        leaving = np.where(chosen, present @ ((1 - 2 * excess) * weights), np.inf)
        out = int(leaving.argmin())
        without = excess - present[out]
        entering = np.where(chosen, np.inf, present @ ((1 + 2 * without) * weights))
        into = int(entering.argmin())
        if leaving[out] + entering[into] > -1e-9:
            break
        chosen[out], chosen[into] = False, True
        excess = without + present[into]
    return sorted(int(n) for n in order[chosen])


def subset(videos: VideoSet, positions: Sequence[int]) -> VideoSet:
    """Some videos of a set, in the order given, with all its classes."""
    chosen = [videos.videos[n] for n in positions]
    if isinstance(videos, AnnotatedSet):
        names = tuple(videos.names[n] for n in positions)
        subsets = tuple(videos.subsets[n] for n in positions) if videos.subsets else ()
        return replace(videos, videos=chosen, names=names, subsets=subsets)
    return replace(videos, videos=chosen)
