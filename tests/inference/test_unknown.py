"""Doubtful names: an object whose class is not sure enough is called unknown, where that is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from toy import Toy, moving_patches
from tubelet.core.errors import ConfigError
from tubelet.core.types import Clip, Tracks
from tubelet.inference.predict import predict, stream


class Doubtful(Toy):
    """The first object's score is 0.6, the others' are 0.9."""

    def step(self, state: Any, clip: Clip) -> tuple[Any, Tracks]:
        state, tracks = super().step(state, clip)
        scores = tracks.scores.bool() * 0.9
        scores[:1] *= 2 / 3
        return state, replace(tracks, scores=scores)


def test_objects_with_a_lower_score_are_named_unknown_and_keep_all_else() -> None:
    frames = moving_patches(3)
    plain = predict(Doubtful(), frames)
    prediction = predict(Doubtful(), frames, unknown=0.7)
    assert prediction.classes == (*plain.classes, "unknown")
    names = [prediction.classes[track.label] for track in prediction.tracks]
    assert names == ["unknown", *(plain.classes[track.label] for track in plain.tracks[1:])]
    assert [(t.id, t.score, t.rles) for t in prediction.tracks] == [(t.id, t.score, t.rles) for t in plain.tracks]


def test_a_stream_names_them_as_predict_does() -> None:
    frames = moving_patches(3)
    prediction = predict(Doubtful(), frames, unknown=0.7)
    for frame, streamed in zip(prediction.frames(), stream(Doubtful(), frames, unknown=0.7), strict=True):
        assert streamed.names == frame.names
        assert streamed.labels.tolist() == frame.labels.tolist()


def test_without_the_switch_every_object_has_its_best_class() -> None:
    assert "unknown" not in predict(Doubtful(), moving_patches(3)).classes


def test_benchmarks_rank_every_name_however_doubtful() -> None:
    with pytest.raises(ConfigError, match="top or unknown"):
        predict(Doubtful(), moving_patches(2), top=5, unknown=0.5)
    with pytest.raises(ConfigError, match="unknown: expected a number from 0 to 1"):
        predict(Doubtful(), moving_patches(2), unknown=2)
