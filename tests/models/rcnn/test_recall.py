"""Objects that the detector misses: when they are taken to be still there, with which box, and for how long."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from tubelet.core.types import Clip, Tracks
from tubelet.models.rcnn.detectors.detector import Detections
from tubelet.models.rcnn.memory import Memory
from tubelet.models.rcnn.model import MaskTrackRCNN
from tubelet.models.rcnn.recall import (
    PresenceConfig,
    RecallConfig,
    detected_near,
    faded,
    missing,
    presence,
    same_probability,
    signs,
)
from tubelet.models.rcnn.recall import follow as follow_masks

Follow = Callable[..., tuple[MaskTrackRCNN, Clip]]

LEFT, RIGHT = (10.0, 10.0, 40.0, 50.0), (60.0, 8.0, 90.0, 56.0)
RECALL = 'recall={"agreement": 0.4}'  # a match head that tells nobody apart gives one object in memory a half
DOG = (LEFT, 0, 0.8)


def run(model: MaskTrackRCNN, clip: Clip) -> list[Tracks]:
    state, out = model.start(), []
    for t in range(len(clip)):
        one = slice(t, t + 1)
        state, tracks = model.step(state, Clip(frames=clip.frames[one], index=clip.index[one], key=clip.key[one]))
        out.append(tracks)
    return out


def ids(model: MaskTrackRCNN, clip: Clip) -> list[list[int]]:
    return [tracks.ids.tolist() for tracks in run(model, clip)]


def test_the_paper_recalls_nothing(follow: Follow) -> None:
    assert ids(*follow([DOG], [])) == [[1], []]


def test_a_missed_object_is_found_where_it_was_with_a_fading_score(follow: Follow) -> None:
    seen, *missed = run(*follow([DOG], [], [], overrides=(RECALL, "recall.decay=0.5")))
    for k, tracks in enumerate(missed, start=1):
        assert tracks.ids.tolist() == [1]
        torch.testing.assert_close(tracks.scores, seen.scores * 0.5**k)
        assert (tracks.binary & seen.binary).sum() / (tracks.binary | seen.binary).sum() > 0.8


def test_the_box_of_an_object_that_stands_still_does_not_wander(follow: Follow) -> None:
    model, clip = follow([DOG], *[[]] * 12, overrides=(RECALL, "recall.frames=12"))
    state, tracks = model.step(model.start(), clip)
    assert tracks.present.all()
    assert (state.boxes[0] - torch.tensor(LEFT)).abs().max() <= 2


def test_it_is_looked_for_as_many_frames_as_told_after_it_was_detected(follow: Follow) -> None:
    found = ids(*follow([DOG], [], [], [], [DOG], [], [], [], overrides=(RECALL, "recall.frames=2")))
    assert found == [[1], [1], [1], [], [1], [1], [1], []]


def test_being_recalled_is_not_being_seen(follow: Follow) -> None:
    forgetful = (RECALL, "association.keep=2")
    assert ids(*follow([DOG], [], [], [], [DOG], overrides=forgetful)) == [[1], [1], [1], [], [2]]


def test_an_object_behind_a_detected_one_is_not_looked_for(follow: Follow) -> None:
    cat = (LEFT, 1, 0.8)
    assert ids(*follow([DOG], [cat], overrides=(RECALL, "recall.agreement=0.1"))) == [[1], [2]]
    tolerant = (RECALL, "recall.agreement=0.1", "recall.overlap=1.0")
    assert ids(*follow([DOG], [cat], overrides=tolerant)) == [[1], [2, 1]]


def test_a_region_that_looks_like_another_object_is_not_it(follow: Follow) -> None:
    # two objects that look alike share the probability with "new": a third each
    pair = [DOG, (RIGHT, 0, 0.8)]
    for agreement, wanted in ((0.3, [1, 2]), (0.4, [])):
        found = ids(*follow(pair, [], overrides=(RECALL, f"recall.agreement={agreement}")))
        assert sorted(found[1]) == wanted


def test_an_object_without_a_plausible_mask_is_gone_for_this_frame(follow: Follow) -> None:
    model, clip = follow([DOG], [], [], overrides=(RECALL,))
    one = Clip(frames=clip.frames[:1], index=clip.index[:1], key=clip.key[:1])
    state, _ = model.step(model.start(), one)
    nn.init.constant_(model.mask.logits.bias, -9.0)
    state, tracks = model.step(state, Clip(frames=clip.frames[1:2], index=clip.index[1:2], key=clip.key[1:2]))
    assert len(tracks) == 0
    assert state.boxes.tolist() == [list(LEFT)]  # where it is looked for in the next frame
    nn.init.constant_(model.mask.logits.bias, 9.0)
    _, tracks = model.step(state, Clip(frames=clip.frames[2:], index=clip.index[2:], key=clip.key[2:]))
    assert tracks.ids.tolist() == [1]


def test_what_is_learned_of_presence_decides_in_the_place_of_agreement(follow: Follow) -> None:
    for bias, wanted in ((3.0, [1]), (-3.0, [])):
        learned = f'recall={{"agreement": 1.0, "presence": {{"bias": {bias}}}}}'
        assert ids(*follow([DOG], [], overrides=(learned,))) == [[1], wanted]


def test_the_longer_an_object_is_missing_the_less_is_it_believed(follow: Follow) -> None:
    learned = 'recall={"presence": {"bias": 0.8, "gap": -1.0}}'  # gone after e^0.8 = 2.2 frames
    assert ids(*follow([DOG], [], [], [], overrides=(learned,))) == [[1], [1], [1], []]


def test_a_mask_that_is_not_sure_is_no_sign_of_the_object(follow: Follow) -> None:
    learned = 'recall={"presence": {"bias": -7.0, "sureness": 10.0}}'  # a mean probability of 0.7 is enough
    for logit, wanted in ((2.0, [1]), (0.1, [])):
        model, clip = follow([DOG], [], overrides=(learned,))
        one = Clip(frames=clip.frames[:1], index=clip.index[:1], key=clip.key[:1])
        state, _ = model.step(model.start(), one)
        nn.init.zeros_(model.mask.logits.weight)
        nn.init.constant_(model.mask.logits.bias, logit)
        state, tracks = model.step(state, Clip(frames=clip.frames[1:], index=clip.index[1:], key=clip.key[1:]))
        assert tracks.ids.tolist() == wanted
        if not wanted:
            assert state.boxes.tolist() == [list(LEFT)]  # where it is looked for in the next frame


def test_a_clip_recalls_what_its_frames_recall_one_by_one(follow: Follow) -> None:
    model, clip = follow([DOG], [], [(RIGHT, 1, 0.9)], [], overrides=(RECALL, "recall.agreement=0.2"))
    singles = run(model, clip)
    _, whole = model.step(model.start(), clip)
    assert whole.ids.tolist() == [1, 2]
    for t, tracks in enumerate(singles):
        assert whole.ids[whole.present[:, t]].tolist() == sorted(tracks.ids.tolist())
        for identity, mask in zip(tracks.ids, tracks.binary[:, 0], strict=True):
            assert torch.equal(whole.binary[whole.ids == identity, t][0], mask)


# its parts


def test_presence_is_a_logistic_regression() -> None:
    config = PresenceConfig(bias=-1.0, agreement=0.5, gap=-2.0, sureness=3.0, near=0.25, overlap=4.0)
    given = {"agreement": 0.8, "gap": 3.0, "sureness": 0.9, "near": 0.2, "overlap": 0.3}
    odds = -1.0 + 0.5 * math.log(4) - 2.0 * math.log(3) + 3.0 * 0.9 + 0.25 * math.log(0.21) + 4.0 * 0.3
    found = presence(config, signs(**{name: torch.tensor([value]) for name, value in given.items()}))
    assert found.item() == pytest.approx(1 / (1 + math.exp(-odds)))
    with torch.autocast("cpu", torch.bfloat16):
        same = presence(config, signs(**{name: torch.tensor([value]) for name, value in given.items()}))
    assert torch.equal(found, same)


def test_what_is_detected_near_an_object_is_weighed_by_its_class_and_place() -> None:
    boxes = torch.tensor([[20.0, 0.0, 30.0, 5.0], [25.0, 0.0, 30.0, 10.0], [70.0, 0.0, 80.0, 10.0]])
    scores = torch.tensor([[0.1, 0.9], [0.3, 0.0], [1.0, 0.0]])
    near, overlap = detected_near(memory(), torch.tensor([1, 2]), Detections(boxes=boxes, scores=scores))
    torch.testing.assert_close(near, torch.tensor([0.15, 0.0]))
    torch.testing.assert_close(overlap, torch.tensor([0.5, 0.0]))
    near, overlap = detected_near(memory(), torch.tensor([1]), Detections(boxes=boxes[:0], scores=scores[:0]))
    assert near.tolist() == overlap.tolist() == [0.0]


def memory() -> Memory:
    """Three objects at time 10: seen now, three frames ago, and nine frames ago."""
    return Memory(
        descriptors=torch.zeros(3, 2),
        boxes=torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [40.0, 0.0, 50.0, 10.0]]),
        labels=torch.zeros(3, dtype=torch.int64),
        ids=torch.tensor([1, 2, 3]),
        seen=torch.tensor([10, 7, 1]),
        scores=torch.tensor([[0.9, 0.0], [0.8, 0.1], [0.7, 0.2]]),
        next_id=4,
        time=10,
    )


def test_missing_are_those_lost_not_too_long_ago_and_not_covered() -> None:
    nothing = torch.zeros(0, 4)
    assert missing(memory(), nothing, RecallConfig(frames=8)).tolist() == [1]
    assert missing(memory(), nothing, RecallConfig(frames=9)).tolist() == [1, 2]
    near = torch.tensor([[20.0, 0.0, 30.0, 6.0]])  # overlaps the second by 0.6
    assert missing(memory(), near, RecallConfig(frames=9, overlap=0.5)).tolist() == [2]
    assert missing(memory(), near, RecallConfig(frames=9, overlap=0.7)).tolist() == [1, 2]


def test_scores_fade_with_the_frames_since_the_last_detection() -> None:
    found = faded(memory(), torch.tensor([1, 2]), 0.9)
    wanted = torch.tensor([[0.8, 0.1], [0.7, 0.2]]) * torch.tensor([[0.9**3], [0.9**9]])
    torch.testing.assert_close(found, wanted)


def before() -> Memory:
    nowhere = [0.0, 0.0, 1.0, 1.0]
    return replace(memory(), boxes=torch.tensor([nowhere, [25.0, 10.0, 35.0, 20.0], nowhere]))


def bar(width: int) -> torch.Tensor:
    """A mask of the second object, 20 high, in a frame that is twice as large as the input."""
    masks = torch.zeros(1, 60, 200)
    masks[0, 20:40, 50 : 50 + width] = 0.9
    return masks


HALF = torch.full((4,), 0.5)


@pytest.mark.parametrize(
    ("width", "plausible"), [(20, True), (40, True), (41, False), (10, True), (9, False), (0, False)]
)
def test_a_mask_may_grow_or_shrink_to_double_or_half_the_area(width: int, plausible: bool) -> None:
    known, everywhere = before(), torch.tensor([[0.0, 0.0, 100.0, 30.0]])
    after, told = follow_masks(known, torch.tensor([1]), bar(width), everywhere, HALF, change=2.0)
    assert told.tolist() == [plausible]
    moved = [25.0, 10.0, 25.0 + width / 2, 20.0] if plausible else [25.0, 10.0, 35.0, 20.0]
    assert after.boxes[1].tolist() == moved
    assert torch.equal(after.boxes[[0, 2]], known.boxes[[0, 2]])
    assert torch.equal(known.boxes, before().boxes)


def test_a_box_never_leaves_the_region_that_its_mask_was_asked_for() -> None:
    region = torch.tensor([[26.0, 11.0, 40.0, 19.0]])
    after, _ = follow_masks(before(), torch.tensor([1]), bar(20), region, HALF, change=2.0)
    assert after.boxes[1].tolist() == [26, 11, 35, 19]


def test_the_probability_is_that_of_the_objects_own_column() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0], [3.0, 0.0, 0.0, 1.0]])
    found = same_probability(logits, torch.tensor([0, 2]))
    torch.testing.assert_close(found, torch.stack([logits[0].softmax(0)[1], logits[1].softmax(0)[3]]))


def test_what_was_seen_in_another_shot_is_not_looked_for() -> None:
    assert missing(replace(memory(), shot_start=8), torch.zeros(0, 4), RecallConfig(frames=9)).tolist() == []
