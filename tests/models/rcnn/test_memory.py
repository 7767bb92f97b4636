"""What enters the memory, what stays as it was, and what is forgotten."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from tubelet.models.rcnn.context import FrameFeatures
from tubelet.models.rcnn.detectors.detector import Detections
from tubelet.models.rcnn.memory import NO_HISTORY, PER_OBJECT, Memory, entered, forget, remember, resized
from tubelet.models.rcnn.propagation import History
from tubelet.tracking.association import DROPPED, NEW


def known() -> Memory:
    """Objects 3, 5 and 8, last seen in frames 2, 6 and 7."""
    return Memory(
        descriptors=torch.arange(6.0).view(3, 2),
        boxes=torch.arange(12.0).view(3, 4),
        labels=torch.tensor([0, 1, 0]),
        ids=torch.tensor([3, 5, 8]),
        seen=torch.tensor([2, 6, 7]),
        scores=torch.tensor([[0.8, 0.1], [0.2, 0.6], [0.5, 0.4]]),
        next_id=9,
        time=8,
    )


def found() -> Detections:
    boxes = torch.arange(16.0).view(4, 4) + 100
    return Detections(boxes=boxes, scores=torch.tensor([[0.1, 0.9], [0.3, 0.2], [0.7, 0.0], [0.0, 0.4]]))


DESCRIPTORS = torch.arange(8.0).view(4, 2) - 50
DECIDED = torch.tensor([2, DROPPED, NEW, 0])  # the first is object 8, the last object 3


def test_the_matched_overwrite_the_new_append_and_the_dropped_leave_no_trace() -> None:
    memory, ids, kept = remember(known(), DESCRIPTORS, found(), DECIDED, time=8)
    assert ids.tolist() == [8, 9, 3]
    assert torch.equal(kept.boxes, found().boxes[[0, 2, 3]])
    assert torch.equal(kept.scores, found().scores[[0, 2, 3]])
    assert memory.ids.tolist() == [3, 5, 8, 9]
    assert memory.next_id == 10
    assert memory.seen.tolist() == [8, 6, 8, 8]
    assert torch.equal(
        memory.boxes, torch.stack([found().boxes[3], known().boxes[1], found().boxes[0], found().boxes[2]])
    )
    assert torch.equal(
        memory.descriptors, torch.stack([DESCRIPTORS[3], known().descriptors[1], DESCRIPTORS[0], DESCRIPTORS[2]])
    )
    assert memory.labels.tolist() == [0, 1, 0, 0]  # of the first sight, whatever was seen since


def test_remembering_leaves_the_old_memory_and_the_detections_alone() -> None:
    before, answer = known(), found()
    remember(before, DESCRIPTORS, answer, DECIDED, time=8, persistence=0.9)
    for name in (f.name for f in fields(Memory)):
        now, then = getattr(before, name), getattr(known(), name)
        assert torch.equal(now, then) if isinstance(then, torch.Tensor) else now == then
    assert torch.equal(answer.scores, found().scores)


def test_with_persistence_an_object_keeps_a_share_of_its_best_scores() -> None:
    memory, _, kept = remember(known(), DESCRIPTORS, found(), DECIDED, time=8, persistence=0.5)
    torch.testing.assert_close(kept.scores, torch.tensor([[0.25, 0.9], [0.7, 0.0], [0.4, 0.4]]))
    wanted = torch.tensor([[0.4, 0.4], [0.2, 0.6], [0.25, 0.9], [0.7, 0.0]])
    torch.testing.assert_close(memory.scores, wanted)
    assert memory.labels.tolist() == [0, 1, 1, 0]  # the label follows the scores: object 8 has changed its class


def test_persistence_fades_frame_by_frame() -> None:
    memory = known()
    weak = Detections(boxes=torch.zeros(1, 4), scores=torch.zeros(1, 2))
    for time, wanted in ((8, 0.4), (9, 0.2), (10, 0.1)):
        memory, _, kept = remember(memory, torch.zeros(1, 2), weak, torch.tensor([0]), time, persistence=0.5)
        assert kept.scores[0, 0].item() == pytest.approx(wanted)


@pytest.mark.parametrize(("keep", "left"), [(None, [3, 5, 8]), (6, [3, 5, 8]), (5, [5, 8]), (2, [5, 8]), (1, [8])])
def test_objects_unseen_for_longer_than_told_are_forgotten(keep: int | None, left: list[int]) -> None:
    memory = forget(known(), 8, keep)
    assert memory.ids.tolist() == left
    assert {len(getattr(memory, name)) for name in PER_OBJECT} == {len(left)}
    assert memory.next_id == 9


def test_an_empty_memory_can_be_forgotten_and_filled() -> None:
    empty = replace(known(), **{name: getattr(known(), name)[:0] for name in PER_OBJECT}, next_id=1)
    assert len(forget(empty, 8, 1).ids) == 0
    memory, ids, _ = remember(empty, DESCRIPTORS, found(), torch.full((4,), NEW), time=0)
    assert ids.tolist() == memory.ids.tolist() == [1, 2, 3, 4]
    assert memory.labels.tolist() == [1, 0, 0, 1]


# scene cuts


def test_at_a_cut_maps_and_history_go_and_objects_stay() -> None:
    history = History(size=(1, 2))
    before = replace(known(), frames=(FrameFeatures(index=8, maps=[], size=(1, 1)),), history=history)
    assert entered(before, 0, 9) is before
    after = entered(before, 1, 9)
    assert (after.shot, after.shot_start, after.frames, after.history) == (1, 9, (), History())
    assert after.ids.tolist() == [3, 5, 8]
    assert after.elsewhere.tolist() == [True] * 3
    assert before.elsewhere.tolist() == [False] * 3
    assert replace(after, seen=torch.tensor([2, 8, 9])).elsewhere.tolist() == [True, True, False]


def test_objects_of_another_shot_are_remembered_longer_if_they_were_there_at_its_end() -> None:
    after = entered(known(), 1, 9)
    assert forget(after, 30, keep=5).ids.tolist() == [5, 8]
    assert forget(after, 30, keep=5, cut_keep=24).ids.tolist() == [5, 8]
    assert forget(after, 30, keep=5, cut_keep=23).ids.tolist() == [8]
    assert forget(after, 30, keep=None, cut_keep=23).ids.tolist() == [8]
    assert forget(known(), 30, keep=None, cut_keep=1).ids.tolist() == [3, 5, 8]


# another size of the input


def stored() -> Memory:
    """With what attention and propagation look at, for an input of 10 x 20."""
    kept = FrameFeatures(index=8, maps=[torch.zeros(1, 2, 3, 5)], size=(10, 20))
    return replace(known(), size=(10, 20), frames=(kept,), history=History(size=(3, 5, 10, 20)))


def test_boxes_follow_a_frame_that_changes_its_size() -> None:
    wider = resized(stored(), (30, 40))
    assert wider.size == (30, 40)
    assert wider.boxes[1].tolist() == [4 * 2, 5 * 3, 6 * 2, 7 * 3]
    assert torch.equal(wider.descriptors, known().descriptors)
    assert wider.ids.tolist() == [3, 5, 8]


def test_maps_of_another_size_are_forgotten() -> None:
    wider = resized(stored(), (10, 40))
    assert wider.frames == ()
    assert wider.history is NO_HISTORY


def test_a_frame_of_the_same_size_changes_nothing() -> None:
    before = stored()
    after = resized(before, (10, 20))
    assert after.boxes is before.boxes
    assert after.frames is before.frames
    assert after.history is before.history


def test_the_first_frame_gives_the_size_and_moves_nothing() -> None:
    first = resized(known(), (10, 20))
    assert first.size == (10, 20)
    assert torch.equal(first.boxes, known().boxes)
