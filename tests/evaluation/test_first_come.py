from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core import masks
from tubelet.core.masks import overlaps
from tubelet.core.masks.packed import Tube, pack
from tubelet.core.records import Prediction, Track, Video
from tubelet.evaluation import first_come, partners
from tubelet.evaluation.pairing import pair
from tubelet.evaluation.partners import LIMITS
from tubelet.evaluation.ytvis import AREAS

SIZE = (24, 30)


def moving_box(rng: np.random.Generator, start: np.ndarray, length: int) -> Tube:
    """A box that trembles around `start` (x, y), and is absent from some frames."""
    boxes = np.stack([box(start + rng.integers(-2, 3, 2)) for _ in range(length)])
    return pack([[None if rng.random() < 0.1 else rle for rle in masks.encode(boxes)]], SIZE)[0]


def box(corner: np.ndarray) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    x, y = np.maximum(corner, 0).tolist()
    mask[y : y + 9, x : x + 11] = True
    return mask


def near_duplicates(rng: np.random.Generator) -> tuple[list[Video], list[Prediction]]:
    """Videos with a few objects, and many predictions of each."""
    videos = []
    predictions = []
    for name in "abc":
        length = int(rng.integers(1, 9))
        starts = rng.integers(0, 14, (2, 2))
        truths = [
            Track(id=n, label=n % 2, score=1.0, rles=moving_box(rng, start, length), ignore=bool(rng.random() < 0.2))
            for n, start in enumerate(starts)
        ]
        guesses = [
            Track(id=n, label=int(rng.random() < 0.5), score=rng.random(), rles=moving_box(rng, starts[n % 2], length))
            for n in range(12)
        ]
        videos.append(Video(id=name, size=SIZE, frames=[None] * length, tracks=tuple(truths)))
        predictions.append(Prediction(video=name, size=SIZE, length=length, tracks=tuple(guesses)))
    return videos, predictions


@pytest.mark.parametrize("columns", [30, 1 << 20])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_matches_are_those_of_predictions_that_are_all_compared_in_full(columns: int, seed: int) -> None:
    pairs = pair(*near_duplicates(np.random.default_rng(seed)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first_come, "MOST_COLUMNS", columns * 9)
        found = partners.match(pairs, AREAS)
        patch.setattr(partners, "can_be_table", lambda tube: False)
        expected = partners.match(pairs, AREAS)

    assert np.array_equal(found.partner, expected.partner)
    assert np.array_equal(found.ignored, expected.ignored)


def test_a_prediction_that_cannot_beat_an_earlier_one_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, half = masks.encode(np.stack([np.ones((4, 6), bool), np.arange(24).reshape(4, 6) < 15]))
    truth, best, other = pack([[whole] * 3, [whole] * 3, [half] * 3], size=(4, 6))
    pairs = [(best, truth), (other, truth)]
    at_most = overlaps.shared_at_most(pairs, first_come.PARTS)
    decoded: set[int] = set()
    strokes = first_come.strokes

    def watched(tracks: Any, parts: Any) -> Any:
        decoded.update(parts.track.tolist())
        return strokes(tracks, parts)

    monkeypatch.setattr(first_come, "strokes", watched)
    monkeypatch.setattr(first_come, "BATCH_BYTES", 0)  # one part at a time
    assert first_come.compare_in_turn(pairs, np.zeros(2, int), at_most, LIMITS).tolist() == [72, 0]
    assert decoded == {0}


def test_a_prediction_that_may_beat_an_earlier_one_is_counted() -> None:
    whole, half = masks.encode(np.stack([np.ones((4, 6), bool), np.arange(24).reshape(4, 6) < 15]))
    truth, worse, better = pack([[whole] * 3, [half] * 3, [whole] * 3], size=(4, 6))
    pairs = [(worse, truth), (better, truth)]
    at_most = overlaps.shared_at_most(pairs, first_come.PARTS)
    assert first_come.compare_in_turn(pairs, np.zeros(2, int), at_most, LIMITS).tolist() == [45, 72]
