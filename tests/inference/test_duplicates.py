"""Objects found twice: the better one stays, and only output for people is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from toy import Toy, moving_patches
from tubelet.core import masks
from tubelet.core.errors import ConfigError
from tubelet.core.types import Clip, Track, Tracks
from tubelet.inference.duplicates import without_duplicates
from tubelet.inference.predict import predict


def track(id: int, score: float, left: int, right: int, *, label: int = 0) -> Track:
    mask = np.zeros((1, 8, 16), bool)
    mask[:, :, left:right] = True
    rle = masks.encode(mask)[0]
    return Track(id=id, label=label, score=score, rles=(rle, rle, None))


def ids(tracks: tuple[Track, ...]) -> list[int]:
    return [one.id for one in tracks]


def test_the_better_of_two_that_overlap_stays_whatever_their_classes() -> None:
    tracks = [track(1, 0.5, 0, 8), track(2, 0.9, 0, 7, label=1), track(3, 0.7, 8, 16)]
    assert ids(without_duplicates(tracks, 0.5)) == [2, 3]


def test_what_is_left_out_leaves_nothing_out_itself() -> None:
    """2 falls to 1; 3 overlaps 2 alone, and stays."""
    tracks = [track(1, 0.9, 0, 8), track(2, 0.8, 2, 10), track(3, 0.7, 4, 12)]
    assert ids(without_duplicates(tracks, 0.5)) == [1, 3]


def test_an_overlap_of_one_and_no_tracks_leave_all_as_it_is() -> None:
    tracks = [track(1, 0.5, 0, 8), track(2, 0.9, 0, 8)]
    assert ids(without_duplicates(tracks, 1.0)) == [1, 2]
    assert without_duplicates([], 0.5) == ()


class Doubled(Toy):
    """Every object is found twice, the second time with a smaller score."""

    def step(self, state: Any, clip: Clip) -> tuple[Any, Tracks]:
        state, found = super().step(state, clip)
        again = replace(
            found,
            ids=torch.cat([found.ids, found.ids + 100]),
            scores=torch.cat([found.scores, found.scores * 0.9]),
            masks=torch.cat([found.masks, found.masks]),
        )
        return state, again


def test_predict_shows_each_object_once_if_asked_and_benchmarks_get_all() -> None:
    frames = moving_patches(3)
    plain = predict(Toy(), frames, threshold=0.0)
    doubled = predict(Doubled(), frames, threshold=0.0)
    assert len(doubled.tracks) == 2 * len(plain.tracks)
    assert predict(Doubled(), frames, threshold=0.0, distinct=0.5).tracks == plain.tracks
    with pytest.raises(ConfigError, match="top or distinct"):
        predict(Doubled(), frames, top=10, distinct=0.5)
    with pytest.raises(ConfigError, match="distinct: expected a number from 0 to 1"):
        predict(Doubled(), frames, distinct=2)
