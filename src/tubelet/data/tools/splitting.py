"""Split a data set by video into training and validation, stratified by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tubelet.core.errors import ConfigError
from tubelet.core.types import VideoSet
from tubelet.formats.ytvis.numbering import AnnotatedSet


def split(videos: VideoSet, held_out: int, seed: int = 0) -> tuple[VideoSet, VideoSet]:
    """Split into (training, validation) sets, with `held_out` videos in the second.

    Each class has about the same share of the videos in both. IFR holds out 400 of YouTube-VIS 2019's training videos.
    Raises ConfigError unless both sets have at least one video.

    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.data.tools.splitting import split
    >>> videos = [tubelet.Video(id=str(n), size=(8, 8), frames=[], tracks=()) for n in range(5)]
    >>> training, validation = split(VideoSet(videos=videos, classes=("dog",)), held_out=2)
    >>> len(training.videos), len(validation.videos)
    (3, 2)
    """
    if not 0 < held_out < len(videos.videos):
        raise ConfigError(f"expected to hold out 1 to {len(videos.videos) - 1} videos, got {held_out}")
    validation = stratify(classes_of(videos), held_out, seed)
    training = sorted(set(range(len(videos.videos))) - set(validation))
    return subset(videos, training), subset(videos, validation)


def classes_of(videos: VideoSet) -> list[frozenset[int]]:
    """The labels of each video's objects, without ignored ones.

    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.data.tools.splitting import classes_of
    >>> tracks = tuple(tubelet.Track(id=n, label=n % 2, score=1.0, rles=()) for n in range(3))
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=[], tracks=tracks)
    >>> classes_of(VideoSet(videos=[video], classes=("cat", "dog")))
    [frozenset({0, 1})]
    """
    return [frozenset(t.label for t in video.tracks or () if not t.ignore) for video in videos.videos]


def stratify(labels: Sequence[frozenset[int]], number: int, seed: int) -> list[int]:
    """Choose `number` videos in which each label is about as frequent as in all; returns positions, ascending.

    Starts from a random choice and swaps one video at a time while that lowers chi-square: the squared distance of each
    label's count from its share, over the label's frequency. Videos without objects count as one more label.

    >>> from tubelet.data.tools.splitting import stratify
    >>> labels = [frozenset({0})] * 4 + [frozenset({1})] * 2
    >>> chosen = stratify(labels, number=3, seed=0)
    >>> sum(n < 4 for n in chosen), sum(n >= 4 for n in chosen)
    (2, 1)
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    present = _indicators([labels[n] for n in order])
    weights = 1 / np.maximum(present.sum(0), 1)
    chosen = np.arange(len(labels)) < number
    excess = present[chosen].sum(0) - present.sum(0) * number / len(labels)

    for _ in range(len(labels)):
        # change of chi-square if a chosen video leaves, and then if another one enters
        removal = np.where(chosen, present @ ((1 - 2 * excess) * weights), np.inf)
        removed = int(removal.argmin())
        excess_without = excess - present[removed]
        addition = np.where(chosen, np.inf, present @ ((1 + 2 * excess_without) * weights))
        added = int(addition.argmin())
        if removal[removed] + addition[added] > -1e-9:
            break

        chosen[removed] = False
        chosen[added] = True
        excess = excess_without + present[added]
    return sorted(int(n) for n in order[chosen])


def subset(videos: VideoSet, positions: Sequence[int]) -> VideoSet:
    """The videos at `positions`, in that order, with all classes of the set.

    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.data.tools.splitting import subset
    >>> videos = [tubelet.Video(id=name, size=(8, 8), frames=[]) for name in "abc"]
    >>> [video.id for video in subset(VideoSet(videos=videos, classes=()), [2, 0]).videos]
    ['c', 'a']
    """
    chosen = [videos.videos[n] for n in positions]
    if isinstance(videos, AnnotatedSet):
        names = tuple(videos.names[n] for n in positions)
        subsets = tuple(videos.subsets[n] for n in positions) if videos.subsets else ()
        return replace(videos, videos=chosen, names=names, subsets=subsets)
    return replace(videos, videos=chosen)


def _indicators(labels: Sequence[frozenset[int]]) -> np.ndarray:
    """1 for each label of a video, and in the last column for a video without any: float64 [videos, labels + 1]."""
    every_label = sorted({label for group in labels for label in group})
    rows = [[*(label in group for label in every_label), not group] for group in labels]
    return np.array(rows, float)
