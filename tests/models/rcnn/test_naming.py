"""How frames vote on the class of an object, and what its score says of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tubelet.core.types import Clip
from tubelet.inference.predict import predict
from tubelet.models.rcnn.model import MaskTrackRCNN

Follow = Callable[..., tuple[MaskTrackRCNN, Clip]]

NAMING = ("association.label_weight=0", "vote=score")
VOTES = (*NAMING, 'naming={"size": 0.5}')
LARGE = (10.0, 10.0, 40.0, 50.0)
SMALL = (10.0, 10.0, 30.0, 35.0)
DOG, CAT = 0, 1


def track(model: MaskTrackRCNN, clip: Clip) -> tuple[str, float]:
    """Name and score of the only object."""
    (found,) = predict(model, clip.frames, threshold=0.0, cuts=False).tracks
    return model.classes[found.label], found.score


def test_two_classes_that_share_the_frames_show_in_the_score(follow: Follow) -> None:
    frames = [[(LARGE, DOG if t % 20 < 11 else CAT, 0.98)] for t in range(100)]
    assert track(*follow(*frames, overrides=NAMING)) == ("dog", pytest.approx(0.98))
    name, score = track(*follow(*frames, overrides=VOTES))
    assert name == "dog"
    assert score == pytest.approx(0.55 * 0.98, abs=0.12)  # the mean over frames of the share so far


def test_an_object_that_is_surely_there_is_not_lost_for_want_of_a_name(follow: Follow) -> None:
    frames = [[(LARGE, t % 3, 0.9)] for t in range(30)]
    _, score = track(*follow(*frames, overrides=(*NAMING, 'naming={"floor": 0}')))
    assert score < 0.5
    _, score = track(*follow(*frames, overrides=VOTES))
    assert 0.5 <= score < 0.55


def test_the_floor_raises_no_score(follow: Follow) -> None:
    frames = [[(LARGE, t % 2, 0.3)] for t in range(10)]
    assert track(*follow(*frames, overrides=VOTES))[1] == pytest.approx(0.3)


def test_an_object_whose_frames_agree_keeps_its_score(follow: Follow) -> None:
    frames = [[(LARGE, DOG, 0.9)]] * 5
    assert track(*follow(*frames, overrides=VOTES)) == ("dog", pytest.approx(0.9))


@pytest.mark.parametrize(("size", "label"), [(0.5, DOG), (0.0, CAT)])
def test_a_large_view_counts_for_more_than_a_small_one(follow: Follow, size: float, label: int) -> None:
    frames = [*[[(SMALL, CAT, 0.9)]] * 3, *[[(LARGE, DOG, 0.9)]] * 2]
    model, clip = follow(*frames, overrides=(*NAMING, f'naming={{"size": {size}}}'))
    state, _ = model.step(model.start(), clip)
    assert state.labels.tolist() == [label]


def test_a_missed_object_keeps_the_name_of_its_votes(follow: Follow) -> None:
    recall = 'recall={"agreement": 0.4, "decay": 1.0}'
    frames = [[(LARGE, DOG, 0.8)], [(LARGE, DOG, 0.8)], [(LARGE, CAT, 0.8)], []]
    model, clip = follow(*frames, overrides=(*VOTES, recall))
    state, tracks = model.step(model.start(), clip)
    assert tracks.present[0].all()
    assert state.labels.tolist() == [DOG]
    last = Clip(frames=clip.frames[3:], index=clip.index[3:], key=clip.key[3:])
    first = Clip(frames=clip.frames[:3], index=clip.index[:3], key=clip.key[:3])
    state, _ = model.step(model.start(), first)
    _, recalled = model.step(state, last)
    torch.testing.assert_close(recalled.scores, torch.tensor([[0.8 * 2 / 3, 0.8 / 3, 0.0]]))


def test_without_naming_scores_are_the_frames_own(follow: Follow) -> None:
    model, clip = follow([(LARGE, DOG, 0.9)], [(LARGE, CAT, 0.8)], overrides=NAMING)
    state, tracks = model.step(model.start(), clip)
    assert state.votes is None
    torch.testing.assert_close(tracks.scores, torch.tensor([[0.45, 0.4, 0.0]]))
