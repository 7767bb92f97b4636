"""Scene cuts: an object goes on in another shot only if label and appearance say so, and nothing is carried over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from tubelet.core.types import Clip, Tracks
from tubelet.models.rcnn.model import MaskTrackRCNN

Follow = Callable[..., tuple[MaskTrackRCNN, Clip]]
Build = Callable[..., MaskTrackRCNN]
MakeClip = Callable[..., Clip]

LEFT, RIGHT = (10.0, 10.0, 40.0, 50.0), (60.0, 8.0, 90.0, 56.0)
DOG, CAT = (LEFT, 0, 0.8), (LEFT, 1, 0.8)
ALIKE, UNLIKE = "association.cut_match=0.4", "association.cut_match=0.9"
SQUARES = ((7, 0, 6, 6, 30), (8, 1, 50, 20, 34))


def run(model: MaskTrackRCNN, clip: Clip, shots: Sequence[int]) -> list[Tracks]:
    """The clip's frames one by one, each with its shot."""
    state, out = model.start(), []
    with torch.inference_mode():
        for t, shot in enumerate(shots):
            one = slice(t, t + 1)
            frame = Clip(frames=clip.frames[one], index=clip.index[one], key=clip.key[one], shot=shot)
            state, tracks = model.step(state, frame)
            out.append(tracks)
    return out


def ids(following: tuple[MaskTrackRCNN, Clip], shots: Sequence[int]) -> list[list[int]]:
    """Of a match head to which all look alike: each known object gets 0.78 against a new one."""
    nn.init.constant_(following[0].match.layers[-1].bias, 0.2)  # type: ignore[union-attr]
    return [tracks.ids.tolist() for tracks in run(*following, shots)]


def test_somebody_else_at_the_same_place_in_another_shot_is_somebody_else(follow: Follow) -> None:
    script = [DOG], [DOG], [DOG], [DOG]
    assert ids(follow(*script, overrides=(UNLIKE,)), [0, 0, 1, 1]) == [[1], [1], [2], [2]]
    assert ids(follow(*script, overrides=(UNLIKE,)), [0, 0, 0, 0]) == [[1]] * 4


def test_who_looks_the_same_goes_on_wherever_it_is_in_the_frame(follow: Follow) -> None:
    assert ids(follow([DOG], [(RIGHT, 0, 0.8)], [DOG], overrides=(ALIKE,)), [0, 1, 2]) == [[1], [1], [1]]


def test_another_label_is_another_object(follow: Follow) -> None:
    overrides = (ALIKE, "association.label_weight=0", "association.iou_weight=50")
    assert ids(follow([DOG], [CAT], overrides=overrides), [0, 1]) == [[1], [2]]
    assert ids(follow([DOG], [CAT], overrides=overrides), [0, 0]) == [[1], [1]]


@pytest.mark.parametrize("assignment", ["greedy", "optimal"])
def test_the_way_back_gives_back_the_identity(assignment: str, follow: Follow) -> None:
    overrides = (ALIKE, f"association.assignment={assignment}")
    assert ids(follow([DOG], [], [DOG], overrides=overrides), [0, 1, 2]) == [[1], [], [1]]


def test_a_missed_object_is_not_looked_for_where_it_was_in_another_shot(follow: Follow) -> None:
    recall = (UNLIKE, 'recall={"agreement": 0.4}')
    assert ids(follow([DOG], [], [], overrides=recall), [0, 0, 1]) == [[1], [1], []]
    assert ids(follow([DOG], [], [], overrides=recall), [0, 0, 0]) == [[1], [1], [1]]


def test_objects_of_earlier_shots_are_forgotten_in_time(follow: Follow) -> None:
    overrides = (ALIKE, "association.keep=1", "association.cut_keep=3")
    script = [DOG], [], [], [DOG], [], [], [], [], [DOG]
    assert ids(follow(*script, overrides=overrides), [0, 1, 1, 1, 2, 2, 2, 2, 2])[::3] == [[1], [1], []]
    assert ids(follow(*script, overrides=overrides), [0, 1, 1, 1, 2, 2, 2, 2, 2])[8] == [2]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ('neck={"kind": "sta"}',),
        ('neck={"kind": "dual"}',),
        ('regions={"kind": "dual"}',),
        ("propagation={}", "propagation.threshold=0.0"),
        ('recall={"agreement": 0.0}',),
    ],
    ids=lambda overrides: overrides[0] if overrides else "plain",
)
def test_a_new_shot_of_strangers_is_read_like_a_new_video(
    overrides: tuple[str, ...], build: Build, make_clip: MakeClip
) -> None:
    model = build(*overrides, "association.cut_match=1.0")
    before, after = make_clip(SQUARES, SQUARES, seed=1), make_clip(SQUARES[:1], SQUARES, first=2, seed=2)
    both = replace(
        before,
        frames=torch.cat([before.frames, after.frames]),
        index=torch.arange(4),
        key=torch.ones(4, dtype=torch.bool),
        tracks=None,
    )
    edited, alone = run(model, both, [0, 0, 1, 1])[2:], run(model, replace(after, tracks=None), [0, 0])
    for tracks, fresh in zip(edited, alone, strict=True):
        assert len(tracks) == len(fresh) > 0
        assert torch.equal(tracks.ids - tracks.ids.min(), fresh.ids - fresh.ids.min())
        assert torch.equal(tracks.masks, fresh.masks)
        assert torch.equal(tracks.scores, fresh.scores)
