"""The truth of a batch as detector and heads want it, and which frame looks at which."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tubelet.core.types import Clip
from tubelet.models.inputs import InputConfig, Stretch
from tubelet.models.rcnn.detectors.detector import Targets
from tubelet.models.rcnn.targets import columns_of, crop_masks, partners_of, targets_of, where_now

MakeClip = Callable[..., Clip]

DOG, CAT = (7, 0, 6, 6, 30), (8, 1, 50, 20, 34)


def truth(ids: list[int], boxes: list[list[float]]) -> Targets:
    """Objects of one image, of which only ids and boxes matter."""
    return Targets(
        boxes=torch.tensor(boxes).view(-1, 4),
        labels=torch.zeros(len(ids), dtype=torch.int64),
        ids=torch.tensor(ids, dtype=torch.int64),
        masks=torch.zeros(len(ids), 8, 8),
        scale=torch.ones(4),
        ignored=torch.zeros(0, 4),
    )


# truth


def test_truth_follows_the_frame_to_the_input(make_clip: MakeClip) -> None:
    clip = make_clip((DOG, (5, -1, 50, 10, 20)), (CAT,))
    images = InputConfig(resize=Stretch(height=128, width=48)).prepare([clip.frames])
    first, second = targets_of([clip], images)
    assert first.boxes.tolist() == [[3, 12, 18, 72]]
    assert first.ignored.tolist() == [[25, 20, 35, 60]]
    assert (first.ids.tolist(), first.labels.tolist()) == ([7], [0])
    assert (second.ids.tolist(), second.labels.tolist(), second.ignored.tolist()) == ([8], [1], [])
    assert first.masks.shape == (1, 64, 96)


def test_an_object_is_true_where_it_is_seen_and_its_mask_goes_with_it(make_clip: MakeClip) -> None:
    moved = (8, 1, 60, 25, 34)
    clip = make_clip((DOG, CAT), (moved,), ())
    images = InputConfig(resize=Stretch(height=64, width=96)).prepare([clip.frames])
    first, second, third = targets_of([clip], images)
    assert [frame.ids.tolist() for frame in (first, second, third)] == [[7, 8], [8], []]
    assert first.masks[0, 6:36, 6:36].all()
    assert first.masks[0].sum() == 30 * 30
    assert second.masks[0, 25:59, 60:94].all()
    assert second.masks[0].sum() == 34 * 34
    assert second.boxes.tolist() == [[60, 25, 94, 59]]


def test_mask_targets_are_the_truth_cut_by_the_box() -> None:
    masks = torch.zeros(2, 64, 96)
    masks[0, 10:38, 20:48] = 1
    masks[1, 0:20, 0:10] = 1
    targets = Targets(
        boxes=torch.zeros(2, 4),
        labels=torch.zeros(2, dtype=torch.int64),
        ids=torch.arange(2),
        masks=masks,
        scale=torch.tensor([2.0, 0.5, 2.0, 0.5]),
        ignored=torch.zeros(0, 4),
    )
    boxes = torch.tensor([[20.0, 10.0, 48.0, 38.0], [34.0, 10.0, 62.0, 38.0], [-10.0, 0.0, 10.0, 20.0]])
    cut = crop_masks(targets, torch.tensor([0, 0, 1]), boxes * targets.scale, 28)
    assert cut.shape == (3, 28, 28)
    assert set(cut.unique().tolist()) == {0, 1}
    assert cut[0].all()
    assert torch.equal(cut[1], (torch.arange(28) < 14).float().expand(28, 28))
    # half of the box lies outside the frame, where nothing is; at the border itself bilinear sampling may round up
    assert cut[2, :, 14:].all()
    assert not cut[2, :, :13].any()


def test_no_region_gives_no_mask() -> None:
    nothing = crop_masks(truth([], []), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), 28)
    assert nothing.shape == (0, 28, 28)


# partners


def test_partners_of_clips(make_clip: MakeClip) -> None:
    pair = make_clip((DOG,), (DOG,), key=[False, True])
    four = make_clip((DOG,), (DOG,), (DOG,), (DOG,), key=[False, False, False, True])
    keys = make_clip((DOG,), (DOG,))
    partners = partners_of([pair, four, keys])
    assert partners.key == [1, 5, 6, 7]
    assert [partners.reference[i] for i in partners.key] == [0, 4, 7, 6]
    assert [partners.supports[i] for i in (1, 4, 5, 6)] == [[0], [2, 3], [2, 3], [7]]
    assert partners.references == [0, 4]  # frame 6 and 7 are each other's, and key frames themselves


def test_a_context_frame_that_is_the_reference_looks_at_the_next_frame(make_clip: MakeClip) -> None:
    partners = partners_of([make_clip((DOG,), (DOG,), (DOG,), key=[False, False, True])])
    assert partners.key == [2]
    assert partners.reference == {0: 1, 1: 2, 2: 1}
    assert partners.supports == {0: [0], 1: [0], 2: [0]}


# matching


def test_a_region_belongs_in_the_column_of_its_object_and_in_the_first_where_it_is_new() -> None:
    now, known = truth([5, 3, 9], [[0.0] * 4] * 3), truth([3, 5], [[0.0] * 4] * 2)
    assert columns_of(now, torch.tensor([0, 1, 2, 0]), known).tolist() == [2, 1, 0, 2]
    assert columns_of(now, torch.tensor([0, 1]), truth([], [])).tolist() == [0, 0]
    assert columns_of(now, torch.zeros(0, dtype=torch.int64), known).tolist() == []


def test_known_objects_are_found_in_the_present_frame_or_nowhere() -> None:
    known = truth([3, 5, 7], [[1.0] * 4] * 3)
    now = truth([7, 4, 3], [[7.0, 7, 8, 8], [4, 4, 5, 5], [3, 3, 4, 4]])
    assert where_now(known, now).tolist() == [[3, 3, 4, 4], [0, 0, 0, 0], [7, 7, 8, 8]]
    assert where_now(known, truth([], [])).tolist() == [[0, 0, 0, 0]] * 3
