"""Random tables of overlaps, the same wherever Python runs: classes, their videos, and the objects in every frame."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import numpy as np


class RandomTable(NamedTuple):
    """One video and class; overlaps are 0 where one of the two is absent."""

    similarity: np.ndarray  # float [T, G, P]
    truths: np.ndarray  # bool [T, G]
    predictions: np.ndarray  # bool [T, P]


def random_classes(seed: int) -> list[list[RandomTable]]:
    """The videos of one to three classes."""
    random = Random(seed)
    num_videos = random.randint(1, 3)
    return [[_table(random) for _ in range(num_videos)] for _ in range(random.randint(1, 3))]


def _table(random: Random) -> RandomTable:
    """A few tracks with gaps; a prediction follows one truth closely and others loosely, and changes to another."""
    length, num_truths, num_predictions = random.randint(1, 9), random.randint(0, 4), random.randint(0, 5)
    crowded = random.random()
    truths = np.array([[random.random() < 0.8 for _ in range(num_truths)] for _ in range(length)], bool)
    predictions = np.array([[random.random() < 0.8 for _ in range(num_predictions)] for _ in range(length)], bool)
    truths, predictions = truths.reshape(length, num_truths), predictions.reshape(length, num_predictions)
    if random.random() < 0.3:  # a frame without one side
        (truths if random.random() < 0.5 else predictions)[random.randrange(length)] = False

    followed = [random.randrange(4) for _ in range(num_predictions)]
    similarity = np.zeros((length, num_truths, num_predictions))
    for t, g, p in np.ndindex(similarity.shape):
        if g == 0 and random.random() < 0.15:
            followed[p] = random.randrange(4)
        if followed[p] == g:
            similarity[t, g, p] = random.uniform(0.3, 1)
        elif random.random() < crowded:
            similarity[t, g, p] = random.uniform(0, 0.8)
    return RandomTable(similarity * truths[:, :, None] * predictions[:, None], truths, predictions)
