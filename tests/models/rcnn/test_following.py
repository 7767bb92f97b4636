"""How MaskTrack R-CNN follows objects through a video: identities, memory, and masks in the frame."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tubelet.core.types import Clip, Tracks
from tubelet.models.rcnn.memory import PER_OBJECT, Memory
from tubelet.models.rcnn.model import MaskTrackRCNN

Build = Callable[..., MaskTrackRCNN]
MakeClip = Callable[..., Clip]

SSDLITE = (
    'detector={"kind": "ssdlite", "score_threshold": 0.0, "channels": 16}',
    "detector.input.resize.height=96",  # a tenth of the work of its own 300 x 300
    "detector.input.resize.width=96",
    "match.cosine=0.1",
)
DOG, CAT, FAR = (7, 0, 6, 6, 30), (8, 1, 50, 20, 34), (9, 2, 60, 2, 28)

# real detections of a random model


def part(clip: Clip, frames: slice) -> Clip:
    return Clip(frames=clip.frames[frames], index=clip.index[frames], key=clip.key[frames])


def single(clip: Clip, t: int) -> Clip:
    return part(clip, slice(t, t + 1))


def run(model: MaskTrackRCNN, clip: Clip) -> list[Tracks]:
    """The clip's frames one by one, from a fresh start."""
    state, out = model.start(), []
    with torch.inference_mode():
        for t in range(len(clip)):
            state, tracks = model.step(state, single(clip, t))
            out.append(tracks)
    return out


def same(first: Tracks, second: Tracks) -> bool:
    return all(torch.equal(getattr(first, f), getattr(second, f)) for f in ("ids", "scores", "masks", "index"))


def still(make_clip: MakeClip, length: int) -> Clip:
    frame = make_clip((DOG, CAT))
    return Clip(
        frames=frame.frames.expand(length, -1, -1, -1).contiguous(),
        index=torch.arange(length),
        key=torch.ones(length, dtype=torch.bool),
    )


@pytest.fixture(scope="module")
def moving(make_clip: MakeClip) -> Clip:
    return make_clip((DOG, CAT), (DOG, FAR), (CAT,), (DOG, CAT, FAR))


@pytest.mark.parametrize("overrides", [(), SSDLITE], ids=["two_stage", "ssdlite"])
def test_objects_repeated_identically_keep_their_ids(
    build: Build, make_clip: MakeClip, overrides: tuple[str, ...]
) -> None:
    first, *others = run(build(*overrides), still(make_clip, 4))
    assert len(first) == 10
    assert first.ids.tolist() == list(range(int(first.ids[0]), int(first.ids[0]) + 10))
    for tracks in others:
        assert torch.equal(tracks.ids, first.ids)
        assert torch.equal(tracks.masks, first.masks)


def test_masks_are_probabilities_over_the_whole_frame_and_scores_over_the_classes(build: Build, moving: Clip) -> None:
    for t, tracks in enumerate(run(build(), moving)):
        assert tracks.masks.shape[1:] == (1, 64, 96)
        assert tracks.scores.shape[1] == 3
        assert tracks.index.tolist() == [t]
        for values in (tracks.masks, tracks.scores):
            assert values.aminmax().min >= 0
            assert values.aminmax().max <= 1
        assert len(set(tracks.ids.tolist())) == len(tracks)


def test_frames_of_another_size_get_masks_of_their_size(build: Build) -> None:
    frames = torch.randint(0, 256, (1, 3, 90, 77), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    (tracks,) = run(build(), Clip(frames=frames, index=torch.arange(1), key=torch.ones(1, dtype=torch.bool)))
    assert tracks.masks.shape == (len(tracks), 1, 90, 77)
    assert len(tracks) > 0


def test_two_videos_never_share_memory(build: Build, make_clip: MakeClip, moving: Clip) -> None:
    model, other = build(), still(make_clip, 3)
    alone = run(model, moving)
    run(model, other)
    again = run(model, moving)
    assert all(same(a, b) for a, b in zip(alone, again, strict=True))
    # and read in turns
    states, mixed = [model.start(), model.start()], []
    with torch.inference_mode():
        for t in range(3):
            states[0], tracks = model.step(states[0], single(moving, t))
            states[1], _ = model.step(states[1], single(other, t))
            mixed.append(tracks)
    assert all(same(a, b) for a, b in zip(alone, mixed, strict=False))


def test_a_step_leaves_the_state_it_was_given_as_it_was(build: Build, moving: Clip) -> None:
    model = build()
    with torch.inference_mode():
        before, _ = model.step(model.start(), single(moving, 0))
        kept = deepcopy({f.name: getattr(before, f.name) for f in fields(Memory)})
        first = model.step(before, single(moving, 1))[1]
        second = model.step(before, single(moving, 1))[1]
    for name, value in kept.items():
        now = getattr(before, name)
        assert torch.equal(now, value) if isinstance(value, Tensor) else now == value
    assert same(first, second)


def by_id(tracks: Tracks, t: int) -> dict[int, Tensor]:
    rows = zip(tracks.ids.tolist(), tracks.binary[:, t], tracks.present[:, t], strict=True)
    return {identity: mask for identity, mask, there in rows if there}


@pytest.mark.parametrize("overrides", [(), ("association.unique_ids=false",)], ids=["unique", "as published"])
def test_a_clip_gives_the_same_objects_as_its_frames_one_by_one(
    build: Build, moving: Clip, overrides: tuple[str, ...]
) -> None:
    model = build(*overrides)
    singles = run(model, moving)
    with torch.inference_mode():
        state, whole = model.step(model.start(), moving)
    assert state.time == 3
    assert set(whole.ids.tolist()) == {i for tracks in singles for i in tracks.ids.tolist()}
    for t, tracks in enumerate(singles):
        found, wanted = by_id(whole, t), by_id(tracks, 0)
        assert found.keys() == wanted.keys()
        for identity, mask in wanted.items():
            assert (found[identity] != mask).float().mean() < 1e-3  # a pixel on the threshold may fall either way
    for identity, scores in zip(whole.ids.tolist(), whole.scores, strict=True):
        rows = [t.scores[t.ids == identity] for t in singles if identity in t.ids.tolist()]
        torch.testing.assert_close(scores, torch.cat(rows).mean(0), rtol=1e-3, atol=1e-4)


def test_frames_read_before_are_skipped(build: Build, moving: Clip) -> None:
    model = build()
    with torch.inference_mode():
        state, _ = model.step(model.start(), part(moving, slice(0, 3)))
        again, nothing = model.step(state, single(moving, 1))
        after, last = model.step(state, moving)  # three of its four frames are known
    assert again is state
    assert (len(nothing), nothing.masks.shape) == (0, (0, 0, 64, 96))
    assert nothing.scores.shape == (0, 3)
    assert last.index.tolist() == [3]
    assert after.time == 3


def test_frames_without_key_are_not_predicted(build: Build, moving: Clip) -> None:
    model = build()
    partly = Clip(frames=moving.frames, index=moving.index, key=torch.tensor([False, True, False, True]))
    with torch.inference_mode():
        _, tracks = model.step(model.start(), partly)
    assert tracks.index.tolist() == [1, 3]


def test_permuting_the_memory_leaves_every_pairing(build: Build, moving: Clip) -> None:
    model = build()
    with torch.inference_mode():
        model.match.layers[-1].weight *= 100
        state, _ = model.step(model.start(), single(moving, 0))
        order = torch.randperm(len(state.ids), generator=torch.Generator().manual_seed(0))
        turned = replace(state, **{f: getattr(state, f)[order] for f in PER_OBJECT})
        _, plain = model.step(state, single(moving, 1))
        _, other = model.step(turned, single(moving, 1))
    assert torch.equal(plain.ids, other.ids)
    assert torch.equal(plain.masks, other.masks)


def test_without_detections_nothing_is_found_and_nothing_forgotten(build: Build, moving: Clip) -> None:
    model, blind = build(), build("detector.score_threshold=1.0")
    with torch.inference_mode():
        state, tracks = blind.step(blind.start(), single(moving, 0))
        assert (len(tracks), tracks.masks.shape) == (0, (0, 1, 64, 96))
        assert (len(state.ids), state.time) == (0, 0)
        full, _ = model.step(model.start(), single(moving, 0))
        later, none = blind.step(full, single(moving, 1))
    assert len(none) == 0
    assert torch.equal(later.ids, full.ids)
    assert torch.equal(later.descriptors, full.descriptors)
    assert later.time == 1


# a detector that says what it is told (conftest.py), and a match head that tells nobody apart

LEFT, MIDDLE, RIGHT = (2.0, 2.0, 22.0, 42.0), (35.0, 10.0, 60.0, 50.0), (70.0, 5.0, 94.0, 60.0)


def ids(model: MaskTrackRCNN, clip: Clip) -> list[list[int]]:
    return [tracks.ids.tolist() for tracks in run(model, clip)]


def test_an_object_that_leaves_and_returns_keeps_its_id(follow: Any) -> None:
    here, there = (LEFT, 0, 0.9), (RIGHT, 0, 0.8)
    assert ids(*follow([here, there], [there], [], [there, here])) == [[1, 2], [2], [], [2, 1]]


def test_ids_count_on_and_are_never_given_twice(follow: Any) -> None:
    found = ids(*follow([(LEFT, 0, 0.9)], [(RIGHT, 1, 0.9)], [(MIDDLE, 2, 0.9)], [(LEFT, 0, 0.9)]))
    assert found == [[1], [2], [3], [1]]


def test_another_class_at_the_same_place_is_another_object(follow: Any) -> None:
    assert ids(*follow([(LEFT, 0, 0.9)], [(LEFT, 1, 0.9)], [(LEFT, 0, 0.9), (LEFT, 1, 0.8)])) == [[1], [2], [1, 2]]


def test_an_object_keeps_the_label_of_its_first_sight(follow: Any) -> None:
    script = [[(LEFT, 0, 0.9)], [(LEFT, 1, 0.9)], [(LEFT, 0, 0.9)]]
    model, clip = follow(*script, overrides=("association.label_weight=0",))
    state = model.start()
    for t in range(3):
        state, tracks = model.step(state, single(clip, t))
        assert tracks.ids.tolist() == [1]
        assert state.labels.tolist() == [0]


def test_memory_follows_the_box(follow: Any) -> None:
    # a walk in small steps; the last box has left the first one far behind
    walk = [((2.0 + 12 * k, 2.0, 32.0 + 12 * k, 42.0), 0, 0.9) for k in range(5)]
    other = (RIGHT, 0, 0.8)
    assert ids(*follow(*[[step] for step in walk])) == [[1]] * 5
    model, clip = follow([walk[0], other], [walk[1], other], [walk[2], other])
    state, _ = model.step(model.start(), clip)
    torch.testing.assert_close(state.boxes, torch.tensor([walk[2][0], RIGHT]))
    assert state.seen.tolist() == [2, 2]


def test_an_unseen_object_is_kept_for_as_many_frames_as_told(follow: Any) -> None:
    here = (LEFT, 0, 0.9)
    for keep, wanted in ((1, 2), (2, 2), (3, 1), (4, 1)):
        found = ids(*follow([here], [], [], [here], overrides=(f"association.keep={keep}",)))
        assert found == [[1], [], [], [wanted]]
    assert ids(*follow([here], *[[]] * 50, [here]))[-1] == [1]


def test_an_object_of_which_only_a_part_was_seen_is_the_whole_again(follow: Any) -> None:
    whole = ((2.0, 2.0, 92.0, 42.0), 0, 0.9)
    part = ((2.0, 2.0, 32.0, 42.0), 0, 0.8)
    script = [[whole], [part], [part], [part, whole], [whole]]
    nearest = ("association.assignment=optimal", "association.iou_weight=50", "association.shadow=0.5")
    assert ids(*follow(*script, overrides=nearest)) == [[1], [1], [1], [1, 2], [2]]
    assert ids(*follow(*script, overrides=(*nearest, "association.shrunk=0.6"))) == [[1]] * 5


def test_a_new_object_needs_the_score_of_birth_from_the_first_frame_on(follow: Any) -> None:
    script = [[(LEFT, 0, 0.4), (RIGHT, 0, 0.6)], [(LEFT, 0, 0.4), (RIGHT, 0, 0.1)], [(LEFT, 0, 0.5)]]
    assert ids(*follow(*script, overrides=("association.birth=0.5",))) == [[1], [1], [2]]


def test_of_two_claimants_one_survives_and_without_unique_ids_the_later_stands(follow: Any) -> None:
    low, high = (LEFT, 0, 0.5), ((2.0, 2.0, 21.0, 42.0), 0, 0.9)
    for frame in ([high, low], [low, high]):
        for switch in ("true", "false"):
            (_, second) = run(*follow([(LEFT, 0, 0.9)], frame, overrides=(f"association.unique_ids={switch}",)))
            assert second.ids.tolist() == [1]
            assert second.confidence.item() == pytest.approx(0.9)


def test_scores_of_a_clip_are_means_over_the_frames_of_presence(follow: Any) -> None:
    model, clip = follow([(LEFT, 0, 0.2)], [], [(LEFT, 0, 0.8), (RIGHT, 2, 0.6)])
    _, tracks = model.step(model.start(), clip)
    assert tracks.ids.tolist() == [1, 2]
    torch.testing.assert_close(tracks.scores, torch.tensor([[0.5, 0, 0], [0, 0, 0.6]]))
    assert tracks.present.tolist() == [[True, False, True], [False, False, True]]


def test_masks_lie_in_their_boxes_at_the_scale_of_the_frame(follow: Any) -> None:
    model, _ = follow([(LEFT, 0, 0.9)])
    frames = torch.zeros(1, 3, 128, 192, dtype=torch.uint8)  # twice the input's size
    clip = Clip(frames=frames, index=torch.arange(1), key=torch.ones(1, dtype=torch.bool))
    _, tracks = model.step(model.start(), clip)
    assert tracks.masks.shape == (1, 1, 128, 192)
    assert (tracks.boxes[0, 0] - 2 * torch.tensor(LEFT)).abs().max() <= 2


@pytest.mark.parametrize("label", [0, 1, 2])
def test_the_mask_of_a_detection_is_its_classes_channel(follow: Any, label: int) -> None:
    model, clip = follow([(LEFT, label, 0.9)])
    with torch.no_grad():
        model.mask.logits.bias.copy_(torch.tensor([-9.0, 1.0, 2.0, 3.0]))
    _, tracks = model.step(model.start(), clip)
    torch.testing.assert_close(tracks.masks.max(), torch.tensor(label + 1.0).sigmoid(), rtol=1e-3, atol=1e-3)


def test_masks_grow_with_the_margin(follow: Any) -> None:
    areas = []
    for margin in (0.0, 0.2):
        model, clip = follow([(MIDDLE, 0, 0.9)], overrides=(f"mask.margin={margin}",))
        _, tracks = model.step(model.start(), clip)
        areas.append(int(tracks.binary.sum()))
    assert areas[1] == pytest.approx(areas[0] * 1.4**2, rel=0.1)


def test_cues_are_read_from_the_config(follow: Any) -> None:
    # no overlap and no class cue: the zero column ties with every other and stands first, so all is new
    script = [[(LEFT, 0, 0.9)], [(LEFT, 0, 0.9)]]
    assert ids(*follow(*script, overrides=("association.cues=false",))) == [[1], [2]]
