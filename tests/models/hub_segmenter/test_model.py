"""Identities: a scripted segmenter finds what each test writes down, and the bridge says which object is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tubelet.core.types import Clip, Tracks
from tubelet.inference.predict import predict
from tubelet.models.hub_segmenter.answers import SegmenterAnswer, SegmenterFamily
from tubelet.models.hub_segmenter.model import HubSegmenter, HubSegmenterConfig
from tubelet.models.hub_segmenter.pictures import PictureConfig

CLASSES = ("dog", "cat")
SIZE = (48, 64)
QUERIES, CELL = 4, 4


class Thing(NamedTuple):
    """What the segmenter finds in a frame: a square of 12 pixels."""

    left: int
    looks: int = 0  # axis of its embedding
    label: int = 0
    score: float = 0.9
    shade: float = 0.0  # of its looks: 1 brings the cosine with no shade to 0.7


class Scripted(nn.Module):
    """Answers with the script's things of frame t, which is written into every pixel of the frame."""

    def __init__(self, script: Sequence[Sequence[Thing]]) -> None:
        super().__init__()
        self.script = script
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def forward(self, pixel_values: Tensor) -> SegmenterAnswer:
        numbers = (pixel_values[:, 0, 0, 0] * 255).round().int().tolist()
        self.batches.append(len(numbers))
        scores = torch.zeros(len(numbers), QUERIES, len(CLASSES))
        masks = torch.full((len(numbers), QUERIES, SIZE[0] // CELL, SIZE[1] // CELL), -9.0)
        embeddings = torch.zeros(len(numbers), QUERIES, 8)
        for b, t in enumerate(numbers):
            for q, thing in enumerate(self.script[t]):
                scores[b, q, thing.label] = thing.score
                embeddings[b, q, thing.looks] = 1
                embeddings[b, q, 7] = thing.shade
                masks[b, q, 4:7, thing.left // CELL : thing.left // CELL + 3] = 9.0
        return SegmenterAnswer(scores, masks, embeddings)


class AsItIs(SegmenterFamily):
    """The scripted answers need no reading."""

    threshold = 0.5
    rescored = False

    def network_class(self) -> Any:
        return Scripted

    def read(self, outputs: Any) -> SegmenterAnswer:
        assert isinstance(outputs, SegmenterAnswer)
        return outputs


def segmenter(script: Sequence[Sequence[Thing]], **fields: object) -> HubSegmenter:
    pictures = PictureConfig(exact=SIZE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    config = HubSegmenterConfig().but(**fields)
    return HubSegmenter(Scripted(script), AsItIs(), pictures, CLASSES, (0, 1), config).eval()


def clips(length: int, cut: int | None = None) -> list[Clip]:
    made = []
    for t in range(length):
        shot = int(cut is not None and t >= cut)
        frame = torch.full((1, 3, *SIZE), t, dtype=torch.uint8)
        made.append(Clip(frames=frame, index=torch.tensor([t]), key=torch.ones(1, dtype=torch.bool), shot=shot))
    return made


def followed(script: Sequence[Sequence[Thing]], cut: int | None = None, **fields: object) -> list[list[int]]:
    """The ids of each frame's things, in the order of their left borders."""
    model, found = segmenter(script, **fields), []
    state = model.start()
    for clip in clips(len(script), cut):
        state, tracks = model.step(state, clip)
        order = tracks.boxes[:, 0, 0].argsort() if len(tracks) else torch.zeros(0, dtype=torch.int64)
        found.append(tracks.ids[order].tolist())
    return found


def test_things_that_move_keep_their_ids() -> None:
    script = [[Thing(4 * t, looks=0), Thing(40 - 4 * t, looks=1)] for t in range(4)]
    assert followed(script) == [[1, 2], [1, 2], [1, 2], [1, 2]]


def test_things_that_cross_are_known_by_their_looks() -> None:
    script = [[Thing(4 * t, looks=0), Thing(40 - 4 * t, looks=1)] for t in range(10)]
    assert followed(script)[-1] == [2, 1]


def test_a_thing_that_is_hidden_for_a_while_comes_back_as_itself() -> None:
    script = [[Thing(8)], [], [], [Thing(20)], [Thing(20), Thing(44, looks=3)]]
    assert followed(script) == [[1], [], [], [1], [1, 2]]


def test_a_thing_that_was_gone_for_long_is_another_one() -> None:
    script = [[Thing(8)], [], [], [], [Thing(8)]]
    association = HubSegmenterConfig().association.but(keep=2)
    assert followed(script, association=association)[-1] == [2]


def test_a_weak_detection_continues_a_thing_but_starts_none() -> None:
    script = [[Thing(8)], [Thing(8, score=0.2), Thing(40, looks=1, score=0.2)], [Thing(8)]]
    assert followed(script) == [[1], [1], [1]]
    assert followed(script, birth=0.15)[1] == [1, 2]
    assert followed(script, score=0.3)[1] == []


def test_a_second_mask_of_the_same_thing_is_left_out() -> None:
    script = [[Thing(8), Thing(8, looks=1, score=0.7)]] * 2
    assert followed(script) == [[1], [1]]


def test_a_change_of_class_in_a_frame_keeps_the_id_and_the_vote_decides() -> None:
    script = [[Thing(8, label=label)] for label in (0, 1, 0)]
    assert followed(script) == [[1], [1], [1]]
    video = torch.cat([clip.frames for clip in clips(3)]).permute(0, 2, 3, 1).numpy()
    (track,) = predict(segmenter(script), video, threshold=0.3).tracks
    assert track.label == 0


def test_across_a_cut_place_is_no_cue_and_looks_must_be_beyond_doubt() -> None:
    same = [[Thing(8, looks=0)], [Thing(44, looks=0)]]
    assert followed(same, cut=1) == [[1], [1]]
    other = [[Thing(8)], [Thing(8, shade=1.0)]]
    assert followed(other, cut=1) == [[1], [2]]
    assert followed(other) == [[1], [1]]  # in one shot it is in the same place


def test_frames_of_a_clip_run_as_batches_and_give_the_same() -> None:
    script = [[Thing(4 * t, looks=0), Thing(40 - 4 * t, looks=1)] for t in range(5)]
    model, single = segmenter(script, frames_at_a_time=2), segmenter(script)
    parts = clips(5)
    whole = Clip(
        frames=torch.cat([clip.frames for clip in parts]),
        index=torch.arange(5),
        key=torch.ones(5, dtype=torch.bool),
    )
    _, tracks = model.step(model.start(), whole)
    assert isinstance(model.network, Scripted)
    assert model.network.batches == [2, 2, 1]
    state, found = single.start(), []
    for clip in parts:
        state, frame = single.step(state, clip)
        found.append(frame)
    assert tracks.ids.tolist() == [1, 2]
    for t, frame in enumerate(found):
        torch.testing.assert_close(tracks.masks[frame.ids - 1, t], frame.masks[:, 0])


def test_two_videos_never_mix_and_repeated_frames_are_seen_once() -> None:
    model = segmenter([[Thing(8)], [Thing(12)]])
    first, second = clips(2)
    state, _ = model.step(model.start(), first)
    other, tracks = model.step(model.start(), second)
    assert tracks.ids.tolist() == [1]
    state, tracks = model.step(state, second)
    assert tracks.ids.tolist() == [1]
    _, nothing = model.step(state, replace(second))
    assert isinstance(nothing, Tracks)
    assert len(nothing) == 0
    assert other.next_id == 2


def test_the_memory_does_not_grow_with_the_frames() -> None:
    script = [[Thing(8 + 4 * (t % 3))] for t in range(20)]
    model = segmenter(script)
    state = model.start()
    for clip in clips(20):
        state, _ = model.step(state, clip)
    assert len(state.ids) == 1
    assert state.descriptors.shape == (1, 8)
