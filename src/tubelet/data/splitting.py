"""A validation split by video, stratified by class: no video is on both sides, and rare classes are on both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tubelet.core.errors import ConfigError
from tubelet.core.types import VideoSet
from tubelet.data.ytvis_set import AnnotatedSet


def split(videos: VideoSet, held_out: int, seed: int = 0) -> tuple[VideoSet, VideoSet]:
    """(training, validation) sets, `held_out` videos in the second (IFR: 400 of YouTube-VIS 2019's training videos).

    Each class gets about its share of the held-out videos: the class that still lacks most, relative to how many videos
    it has, picks next, among the videos whose classes are lacking most. Raises ConfigError unless at least one video is
    left on either side.
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
    """Positions of `number` videos, ascending, in which each label is about as frequent as in all of them."""
    rng = np.random.default_rng(seed)
    share = number / len(labels)
    # videos without any object are a class of their own
    groups = [group or frozenset({-1}) for group in labels]
    wanted = {label: count * share for label, count in Counter(label for g in groups for label in g).items()}
    left = list(rng.permutation(len(labels)))
    chosen: list[int] = []
    while len(chosen) < number:
        present = {label for n in left for label in groups[n]}
        rarest = max(present, key=lambda label: (wanted[label] > 0, -_remaining(groups, left, label), wanted[label]))
        holders = [n for n in left if rarest in groups[n]] if wanted[rarest] > 0 else left
        best = max(holders, key=lambda n: sum(wanted[label] for label in groups[n]) / len(groups[n]))
        chosen.append(int(best))
        left.remove(best)
        for label in groups[best]:
            wanted[label] -= 1
    return sorted(chosen)


def subset(videos: VideoSet, positions: Sequence[int]) -> VideoSet:
    """Some videos of a set, in the order given, with all its classes."""
    chosen = [videos.videos[n] for n in positions]
    if isinstance(videos, AnnotatedSet):
        names = tuple(videos.names[n] for n in positions)
        subsets = tuple(videos.subsets[n] for n in positions) if videos.subsets else ()
        return replace(videos, videos=chosen, names=names, subsets=subsets)
    return replace(videos, videos=chosen)


def _remaining(groups: Sequence[frozenset[int]], left: Sequence[int], label: int) -> int:
    return sum(label in groups[n] for n in left)
