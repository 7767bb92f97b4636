"""What plugs into the host: attention before and within the heads, correlation, propagation, and what they remember."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tubelet.core.errors import ConfigError
from tubelet.core.types import Clip, Tracks
from tubelet.models.rcnn.context import Context, FrameFeatures, inside, positions
from tubelet.models.rcnn.memory import Memory
from tubelet.models.rcnn.model import MaskTrackRCNN
from tubelet.models.rcnn.neck import STANeck
from tubelet.models.rcnn.targets import partners_of

Build = Callable[..., MaskTrackRCNN]
MakeClip = Callable[..., Clip]

DOG, CAT, FAR = (7, 0, 6, 6, 30), (8, 1, 50, 20, 34), (9, 2, 60, 2, 28)
STA = 'neck={"kind": "sta"}'
DUAL = 'neck={"kind": "dual"}'
OBJECTS = "regions={}"
CORRELATION = 'match={"kind": "correlation"}'
PROPAGATION = 'propagation={"channels": 16, "convs": 1}'
SYSTEMS = {
    "sta": (STA,),
    "sta with its value from the previous frame": ('neck={"kind": "sta", "value_from": "previous"}',),
    "attention neck": ('neck={"kind": "sta", "consumers": "proposals", "gamma_init": 0.5}', PROPAGATION),
    "objprop": (PROPAGATION, "match.normalise_at_test=true", "match_average=all"),
    "weighted affinity": ('propagation={"channels": 16, "convs": 1, "affinity": {"weight": "shared"}}',),
    "dual at frame level": (DUAL,),
    "dual at object level": (OBJECTS,),
    "correlation": (CORRELATION,),
    "correlation without the frame": ('match={"kind": "correlation", "frame_branch": false}',),
    "compfeat": (DUAL, OBJECTS, CORRELATION),
}
every_system = pytest.mark.parametrize("overrides", SYSTEMS.values(), ids=SYSTEMS.keys())
AROUND = (DUAL, OBJECTS)
around = pytest.mark.parametrize("overrides", [(one,) for one in AROUND], ids=["frame level", "object level"])


def awake(model: MaskTrackRCNN) -> MaskTrackRCNN:
    """Attention that starts as the identity, made to do something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.7)
            elif "attention" in name and not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def run(model: MaskTrackRCNN, clips: list[Clip]) -> tuple[Memory, list[Tracks]]:
    state, out = model.start(), []
    with torch.inference_mode():
        for clip in clips:
            state, tracks = model.step(state, clip)
            out.append(tracks)
    return state, out


def frame(clip: Clip, t: int, context: tuple[int, ...] = ()) -> Clip:
    """Frame t to predict, after context frames."""
    rows = torch.tensor([*context, t])
    key = torch.tensor([False] * len(context) + [True])
    return Clip(frames=clip.frames[rows], index=clip.index[rows], key=key)


def frames(clip: Clip) -> list[Clip]:
    return [frame(clip, t) for t in range(len(clip))]


def same(first: list[Tracks], second: list[Tracks], tolerance: float = 0.0) -> bool:
    names = ("ids", "scores", "masks", "index")
    return all(
        getattr(a, n).shape == getattr(b, n).shape
        and torch.allclose(getattr(a, n).float(), getattr(b, n).float(), atol=tolerance, rtol=0)
        for a, b in zip(first, second, strict=True)
        for n in names
    )


def like(model: MaskTrackRCNN, other: MaskTrackRCNN) -> MaskTrackRCNN:
    """A model with the weights of another wherever both have them."""
    own = model.state_dict()
    shared = {k: t for k, t in other.state_dict().items() if k in own and own[k].shape == t.shape}
    model.load_state_dict(shared, strict=False)
    return model


@pytest.fixture(scope="module")
def moving(make_clip: MakeClip) -> Clip:
    return make_clip((DOG, CAT), (DOG, FAR), (CAT,), (DOG, CAT, FAR))


# training


CLIPS: dict[str, tuple[tuple[tuple[Any, ...], ...], list[bool] | None]] = {
    "reference and current": (((DOG, CAT), (DOG, FAR)), [False, True]),
    "supports, reference, current": (((DOG,), (CAT,), (DOG, CAT), (DOG, CAT)), [False, False, False, True]),
    "all to predict": (((DOG, CAT), (DOG, CAT)), None),
    "no objects": (((), ()), [False, True]),
    "objects only in the reference": (((DOG,), ()), [False, True]),
    "objects only in the current frame": (((), (DOG,)), [False, True]),
    "a single frame": (((DOG, CAT),), None),
}


@every_system
@pytest.mark.parametrize(("seen", "key"), CLIPS.values(), ids=CLIPS.keys())
def test_losses_are_finite_and_reach_every_trainable_parameter(
    build: Build,
    make_clip: MakeClip,
    overrides: tuple[str, ...],
    seen: tuple[tuple[Any, ...], ...],
    key: list[bool] | None,
) -> None:
    model = awake(build(*overrides)).train()
    losses = model([make_clip(*seen, key=key), make_clip(*seen, key=key, seed=1)])
    assert all(v.ndim == 0 and v.isfinite() for v in losses.values())
    sum(losses.values(), torch.zeros(())).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("overrides", [(STA,), (DUAL,), (OBJECTS,), (DUAL, OBJECTS)])
def test_attention_starts_as_the_detector_that_it_is_plugged_into(
    build: Build, moving: Clip, overrides: tuple[str, ...]
) -> None:
    plain = build()
    assert same(run(plain, frames(moving))[1], run(like(build(*overrides), plain), frames(moving))[1], 1e-6)


@pytest.mark.parametrize("overrides", [(STA,), (DUAL, OBJECTS)], ids=["sta", "dual"])
def test_features_of_an_image_do_not_depend_on_the_others_in_the_batch(
    build: Build, make_clip: MakeClip, overrides: tuple[str, ...]
) -> None:
    model = awake(build(*overrides))
    clips = [make_clip((DOG, CAT), (DOG,), (CAT,), key=[False, False, True], seed=n) for n in range(4)]
    together = _refined(model, clips)
    for n, clip in enumerate(clips):
        for whole, one in zip(together, _refined(model, [clip]), strict=True):
            torch.testing.assert_close(whole[3 * n : 3 * n + 3], one, atol=1e-5, rtol=1e-5)


def _refined(model: MaskTrackRCNN, clips: list[Clip]) -> list[Tensor]:
    with torch.no_grad():
        images = model._prepare(clips)
        return model._refine_batch(model.detector.extract(images), images, partners_of(clips)).maps


def test_gradients_reach_supports_unless_they_are_stopped(build: Build, make_clip: MakeClip) -> None:
    clip = make_clip((DOG,), (CAT,), (DOG, CAT), key=[False, False, True])
    for field, wanted in (("true", True), ("false", False)):
        model = awake(build(f'neck={{"kind": "dual", "spatial": false, "context_gradient": {field}}}'))
        images = model._prepare([clip])
        raw = model.detector.extract(images)
        maps = [level.detach().requires_grad_() for level in raw.maps]
        refined = model._refine_batch(replace(raw, maps=maps, taps=maps), images, partners_of([clip])).maps
        refined[1][2].sum().backward()
        assert maps[1].grad is not None
        assert bool(maps[1].grad[0].any()) == wanted  # the support's
        assert bool(maps[1].grad[2].any())


def test_proposals_alone_may_read_the_refined_maps(build: Build, make_clip: MakeClip) -> None:
    model = awake(build('neck={"kind": "sta", "consumers": "proposals"}'))
    clip = make_clip((DOG,), (CAT,), key=[False, True])
    images = model._prepare([clip])
    raw = model.detector.extract(images)
    refined = model._refine_batch(raw, images, partners_of([clip]))
    assert all(torch.equal(a, b) for a, b in zip(raw.maps, refined.maps, strict=True))
    assert torch.equal(raw.taps[0], refined.taps[0])  # P2 is not among the levels
    assert not torch.equal(raw.taps[1][1], refined.taps[1][1])
    assert torch.equal(raw.taps[1][0], refined.taps[1][0])  # the reference stays as it is


@pytest.mark.parametrize(("reference", "changed"), [("raw", False), ("self", True)])
def test_the_reference_is_raw_or_looks_at_itself(
    build: Build, make_clip: MakeClip, reference: str, changed: bool
) -> None:
    model = awake(build(f'neck={{"kind": "sta", "reference": "{reference}"}}'))
    clip = make_clip((DOG,), (CAT,), key=[False, True])
    raw, refined = model.detector.extract(model._prepare([clip])).maps, _refined(model, [clip])
    assert torch.equal(raw[1][0], refined[1][0]) != changed


def test_the_match_loss_may_count_all_regions_that_were_drawn(build: Build, make_clip: MakeClip) -> None:
    clip = make_clip((DOG, CAT), (DOG, CAT), key=[False, True])
    few, all_regions = (build(f"match_average={which}").train() for which in ("positives", "all"))
    values = []
    for model in (few, all_regions):
        torch.manual_seed(0)
        values.append(float(model([clip])["match"]))
    assert 0 < values[1] < values[0]


# a stream


@every_system
def test_a_video_leaves_nothing_for_the_next_one(build: Build, moving: Clip, overrides: tuple[str, ...]) -> None:
    model = awake(build(*overrides))
    first, again = run(model, frames(moving)[:3])[1], run(model, frames(moving)[:3])[1]
    assert same(first, again)


@every_system
def test_a_clip_gives_what_its_frames_give_one_by_one(build: Build, moving: Clip, overrides: tuple[str, ...]) -> None:
    model = awake(build(*overrides))
    state, single = run(model, frames(moving))
    with torch.inference_mode():
        _, whole = model.step(model.start(), moving)
    for t, tracks in enumerate(single):
        there = whole.present[:, t]
        assert set(whole.ids[there].tolist()) == set(tracks.ids[tracks.present[:, 0]].tolist())
    assert state.time == 3


@every_system
def test_nothing_in_the_first_frame_and_a_video_of_one_frame(
    build: Build, make_clip: MakeClip, overrides: tuple[str, ...]
) -> None:
    model = awake(build(*overrides))
    one = make_clip((DOG, CAT))
    blind = build(*overrides, "detector.score_threshold=1.0")
    state, (nothing,) = run(blind, frames(one))
    assert len(nothing) == 0
    with torch.inference_mode():
        _, later = model.step(state, replace(frame(one, 0), index=torch.tensor([1])))
    _, (alone,) = run(model, frames(one))
    assert len(alone) > 0
    assert len(later) > 0


@every_system
def test_another_frame_size_in_mid_stream_goes_on(
    build: Build, moving: Clip, make_clip: MakeClip, overrides: tuple[str, ...]
) -> None:
    model = awake(build(*overrides))
    state, _ = run(model, frames(moving)[:2])
    small = Clip(frames=moving.frames[2:3, :, :40, :80], index=torch.tensor([2]), key=torch.tensor([True]))
    with torch.inference_mode():
        state, tracks = model.step(state, small)
        state, back = model.step(state, frame(moving, 3))
    assert tracks.masks.shape[-2:] == (40, 80)
    assert back.masks.shape[-2:] == moving.size
    assert all(kept.size == (64, 96) for kept in state.frames)


def test_sta_remembers_the_raw_maps_of_just_the_last_frame(build: Build, moving: Clip) -> None:
    model = awake(build(STA))
    state, _ = run(model, frames(moving)[:3])
    (kept,) = state.frames
    assert kept.index == 2
    with torch.no_grad():
        raw = model.detector.extract(model._prepare([frame(moving, 2)])).maps
    assert all(torch.equal(a, b) for a, b in zip(kept.maps, raw, strict=True))


@pytest.mark.parametrize(("first_frame", "alike"), [("identity", True), ("self", False)])
def test_the_first_frame_looks_at_itself_or_is_left_alone(
    build: Build, moving: Clip, first_frame: str, alike: bool
) -> None:
    plain = build()
    model = like(awake(build(f'neck={{"kind": "sta", "first_frame": "{first_frame}"}}')), plain)
    first, second = (run(one, frames(moving)[:1])[1] for one in (plain, model))
    assert same(first, second, 1e-6) == alike


@pytest.mark.parametrize("neck", ["sta", "dual"])
def test_attention_that_is_off_at_test_changes_nothing_there(build: Build, moving: Clip, neck: str) -> None:
    plain = build()
    model = like(awake(build(f'neck={{"kind": "{neck}", "at_test": false}}')), plain)
    assert same(run(plain, frames(moving))[1], run(model, frames(moving))[1], 1e-6)


@around
def test_the_order_of_supports_and_their_repetition_do_not_matter(
    build: Build, moving: Clip, overrides: tuple[str, ...]
) -> None:
    model = awake(build(*overrides))
    once = run(model, [frame(moving, 1, (0, 3))])[1]
    assert same(once, run(model, [frame(moving, 1, (3, 0))])[1], 1e-5)
    assert same(once, run(model, [frame(moving, 1, (0, 0, 3, 3))])[1], 1e-5)
    assert not same(once, run(model, [frame(moving, 1, (2,))])[1], 1e-5)


@around
def test_maps_of_support_frames_are_computed_once(build: Build, moving: Clip, overrides: tuple[str, ...]) -> None:
    model = build(*overrides)
    counted: list[int] = []
    extract = model.detector.extract
    model.detector.extract = lambda images: (counted.append(len(images.sizes)), extract(images))[1]  # type: ignore[method-assign]
    state, _ = run(model, [frame(moving, t, (0, 3)) for t in range(4)])
    assert sum(counted) == 2 + 4
    assert [kept.index for kept in state.frames] == [0, 3]


@around
def test_without_support_frames_the_last_ones_serve(build: Build, moving: Clip, overrides: tuple[str, ...]) -> None:
    model = awake(build(*overrides, "supports_kept=2"))
    state, alone = run(model, frames(moving))
    assert [kept.index for kept in state.frames] == [2, 3]
    _, given = run(model, [frame(moving, 0, (0,)), frame(moving, 1, (0,)), frame(moving, 2, (0, 1))])
    assert same(alone[:3], given, 1e-5)


def test_context_frames_are_no_business_of_systems_that_look_nowhere_else(build: Build, moving: Clip) -> None:
    for overrides in ((), (STA,)):
        model = awake(build(*overrides))
        plain = run(model, frames(moving))[1]
        assert same(plain, run(model, [frame(moving, t, (0, 3)) for t in range(4)])[1])


def test_propagation_off_at_test_is_the_detector_alone(build: Build, moving: Clip) -> None:
    plain = build("detector.score_threshold=0.6")
    model = like(
        build("detector.score_threshold=0.6", 'propagation={"channels": 16, "convs": 1, "at_test": false}'), plain
    )
    assert same(run(plain, frames(moving))[1], run(model, frames(moving))[1])


def test_propagation_adds_only_objects_that_were_not_detected(build: Build, moving: Clip) -> None:
    plain = build()
    model = like(build('propagation={"channels": 16, "convs": 1, "threshold": 0.0}'), plain)
    added = 0
    for with_it, without in zip(run(model, frames(moving))[1], run(plain, frames(moving))[1], strict=True):
        assert torch.equal(with_it.ids[: len(without)], without.ids)
        assert torch.equal(with_it.masks[: len(without)], without.masks)
        assert set(with_it.ids[len(without) :].tolist()).isdisjoint(without.ids.tolist())
        added += len(with_it) - len(without)
    assert added > 0


# correlation


def test_correlation_tells_references_apart_by_their_place_in_the_frame(build: Build, make_clip: MakeClip) -> None:
    model = build(CORRELATION)
    features = model.detector.extract(model._prepare([make_clip((DOG, CAT))]))
    boxes = torch.tensor([[6.0, 6, 36, 36], [50.0, 20, 84, 54]])
    cells = model.detector.cells(features, [boxes], 7)
    with torch.no_grad():
        logits = model.match.compare(features, boxes, cells, cells)
        swapped = model.match.compare(features, boxes.flip(0), cells.flip(0), cells.flip(0))
    assert logits.shape == (2, 3)
    assert logits[:, 0].tolist() == [0, 0]
    torch.testing.assert_close(logits[:, 1:], swapped[:, 1:].flip(0, 1))


# where attention may be plugged


def test_levels_that_the_pyramid_lacks_are_refused(build: Build) -> None:
    lite = 'detector={"kind": "ssdlite", "channels": 16}'
    with pytest.raises(ConfigError, match="this detector's pyramid has P3, P4, not P5"):
        build(lite, "match.cosine=0.1", STA)
    assert build(lite, "match.cosine=0.1", 'neck={"kind": "sta", "levels": ["P3", "P4"]}').neck is not None


def test_a_detector_with_taps_of_its_own_has_no_proposals_to_refine(build: Build) -> None:
    with pytest.raises(ConfigError, match="proposals"):
        build(
            'detector={"kind": "ssdlite", "channels": 16}',
            'neck={"kind": "sta", "levels": ["P3"], "consumers": "proposals"}',
        )


def test_propagation_needs_the_four_maps_that_it_fuses(build: Build) -> None:
    with pytest.raises(ConfigError, match=r"strides 4, 8, 16, 32, not \[8, 16\]"):
        build('detector={"kind": "ssdlite", "channels": 16}', "match.cosine=0.1", PROPAGATION)


def test_sta_and_object_level_attention_cannot_be_plugged_together(build: Build) -> None:
    with pytest.raises(ConfigError, match="choose one"):
        build(STA, OBJECTS)


def test_levels_are_found_by_their_stride() -> None:
    assert positions(("P3", "P6"), [4, 8, 16, 32, 64]) == {1: 8, 4: 64}


def test_cells_in_padding_are_told() -> None:
    assert inside([[(64, 96)]], (8, 12), 8, torch.device("cpu")) is None
    valid = inside([[(60, 96), (64, 50)]], (8, 12), 8, torch.device("cpu"))
    assert valid is not None
    assert valid.shape == (1, 2, 8, 12)
    assert valid[0, 0].all()  # 60 pixels touch the eighth row of cells
    assert valid[0, 1].any(0).tolist() == [True] * 7 + [False] * 5


def test_padding_is_not_looked_at(build: Build) -> None:
    """Whatever lies in a context frame's padding, the answer is that of maps cut to the image."""
    model = awake(build('neck={"kind": "sta", "value_from": "previous", "kernel": 1}'))
    assert isinstance(model.neck, STANeck)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 16, 64 // s, 96 // s, generator=generator) for s in (4, 8, 16, 32, 64)]
    padded = [nn.functional.pad(m, (0, 2, 0, 1), value=9.0) for m in maps]
    level, stride = 2, 16
    answers = []
    for some in (maps, padded):
        others, valid = Context.of_frames([FrameFeatures(index=0, maps=some, size=(64, 96))]).at(level, stride)
        assert (valid is None) == (some is maps)
        with torch.no_grad():
            answers.append(model.neck.attention(maps[level], others, valid))
    torch.testing.assert_close(*answers)
