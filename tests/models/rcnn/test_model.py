"""MaskTrack R-CNN as a whole: its size, what it learns from, and what its losses say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Staged, VideoSegmenter, Window
from tubelet.core.types import Clip, Losses
from tubelet.models.inputs import Images
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.rcnn.targets import targets_of
from tubelet.recipes.small import RECIPES

Build = Callable[..., MaskTrackRCNN]
MakeClip = Callable[..., Clip]

SSDLITE = (
    'detector={"kind": "ssdlite", "score_threshold": 0.0, "channels": 16}',
    "detector.input.resize.height=96",  # a tenth of the work of its own 300 x 300
    "detector.input.resize.width=96",
    "match.cosine=0.1",
)
EVERYTHING = ("detector.anchors_sampled=100000", "detector.regions_sampled=100000")
DOG, CAT, FAR = (7, 0, 6, 6, 30), (8, 1, 50, 20, 34), (9, 2, 60, 2, 28)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def finite(losses: Losses) -> bool:
    return all(v.ndim == 0 and bool(v.isfinite()) for v in losses.values())


def without_gradient(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


# size


@pytest.mark.parametrize(("backbone", "total"), [("resnet50", 58_081_093), ("resnet101", 77_073_221)])
def test_with_40_classes_it_has_the_papers_number_of_parameters(backbone: str, total: int) -> None:
    with torch.device("meta"):
        model = MaskTrackConfig().override(f"detector.backbone.name={backbone}").build(tuple(map(str, range(40))))
    assert parameters(model) == total
    assert parameters(model.match) == 13_895_680
    assert parameters(model) - parameters(model.match) == total - 13_895_680
    assert {"mask": parameters(model.mask), "rpn": parameters(model.detector.rpn)} == {
        "mask": 2_633_257,
        "rpn": 593_935,
    }


def test_it_is_a_segmenter_that_reads_frame_by_frame(build: Build) -> None:
    model = build()
    assert isinstance(model, VideoSegmenter)
    assert model.window == Window()
    assert model.classes == ("dog", "cat", "car")


def test_its_config_survives_json(small_config: MaskTrackConfig) -> None:
    for config in (small_config, small_config.override(*SSDLITE)):
        assert MaskTrackConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "assignment",
    [
        "detector.nms=7",
        "detector.score_threshold=-1",
        "detector.regions_positive=3",
        "detector.proposals=0",
        'detector={"kind": "ssdlite", "strides": []}',
        'detector={"kind": "ssdlite", "strides": [8]}',
        'detector={"kind": "ssdlite", "strides": [32, 8]}',
        'detector={"kind": "ssdlite", "strides": [8, 64]}',
        "mask.channels=-3",
        "mask.margin=-3",
        "mask.resolution=100000",
        "match.cosine=0",
        "association.keep=0",
        "min_frames=0",
    ],
)
def test_values_out_of_range_are_refused(small_config: MaskTrackConfig, assignment: str) -> None:
    with pytest.raises(ConfigError, match=assignment.split("=")[0].split(".")[0]):
        small_config.override(assignment)


# learning

clips_to_learn: dict[str, tuple[tuple[tuple[Any, ...], ...], list[bool] | None]] = {
    "two objects in two frames": (((DOG, CAT), (DOG, CAT)), None),
    "one object": (((DOG,), (DOG,)), None),
    "no objects": (((), ()), None),
    "an object that is absent from the second frame": (((DOG, CAT), (CAT,)), None),
    "a reference without objects": (((DOG,), ()), [True, False]),
    "objects only in the reference": (((), (DOG, CAT)), [True, False]),
    "a crowd beside an object": (((DOG, (5, -1, 50, 10, 40)), (DOG, (5, -1, 50, 10, 40))), None),
    "nothing but a crowd": ((((5, -1, 0, 0, 64),), ((5, -1, 0, 0, 64),)), None),
    "an object of one pixel": ((((1, 0, 40, 30, 1),), ((1, 0, 41, 30, 1),)), None),
    "an object as large as the frame": ((((1, 0, 0, 0, 96),), ((1, 0, 0, 0, 96),)), None),
    "three frames with one to predict": (((DOG, CAT), (DOG,), (FAR,)), [False, True, False]),
    "a single frame": (((DOG, CAT),), None),
}


every_clip = pytest.mark.parametrize(("frames", "key"), clips_to_learn.values(), ids=clips_to_learn.keys())


@every_clip
def test_losses_are_finite_and_reach_every_trainable_parameter(
    build: Build, make_clip: MakeClip, frames: tuple[tuple[Any, ...], ...], key: list[bool] | None
) -> None:
    model = build().train()
    losses = model([make_clip(*frames, key=key)])
    assert finite(losses)
    sum(losses.values(), torch.zeros(())).backward()
    assert without_gradient(model) == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@every_clip
def test_losses_behind_a_detector_of_one_stage_are_finite(
    build: Build, make_clip: MakeClip, frames: tuple[tuple[Any, ...], ...], key: list[bool] | None
) -> None:
    model = build(*SSDLITE).train()
    losses = model([make_clip(*frames, key=key)])
    assert finite(losses)
    sum(losses.values(), torch.zeros(())).backward()
    # a level of the pyramid learns from the regions that are cut from it, and the height of "new" from any region
    assert [n for n in without_gradient(model) if not n.startswith("detector.fpn.") and n != "match.new"] == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_losses_are_those_of_the_paper(build: Build, make_clip: MakeClip) -> None:
    losses = build().train()([make_clip((DOG, CAT), (DOG, CAT))])
    assert set(losses) == {"rpn_cls", "rpn_box", "cls", "box", "mask", "match"}
    assert all(v > 0 for v in losses.values())


def test_a_frozen_detector_leaves_the_losses_of_the_heads(build: Build, make_clip: MakeClip) -> None:
    model = build(*SSDLITE, "detector.frozen=true").train()
    for frames in (((DOG,), (DOG,)), ((), ())):
        losses = model([make_clip(*frames)])
        assert set(losses) == {"mask", "match"}
        assert finite(losses)
    learning = {".".join(n.split(".")[:2]) for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n in learning if n.startswith("detector")} == {"detector.fpn"}


def test_frozen_stages_get_no_gradient(build: Build, make_clip: MakeClip) -> None:
    model = build().train()
    sum(model([make_clip((DOG,), (DOG,))]).values()).backward()
    held = {n.split(".")[3] for n, p in model.named_parameters() if p.grad is None}
    assert held == {"conv1", "bn1", "layer1"}


def test_with_everything_sampled_four_copies_lose_what_one_clip_loses(build: Build, make_clip: MakeClip) -> None:
    # sampling is the only chance in a step: with all anchors and regions sampled each loss is a mean, and must agree
    model, clip = build(*EVERYTHING).train(), make_clip((DOG, CAT), (DOG,))
    with torch.no_grad():
        one, four = model([clip]), model([clip] * 4)
    for name, value in one.items():
        torch.testing.assert_close(four[name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_the_match_loss_of_a_batch_is_the_mean_over_its_images(build: Build, make_clip: MakeClip) -> None:
    model = build(*EVERYTHING).train()
    clips = [make_clip((DOG, CAT), (DOG, CAT), seed=s, key=[True, False]) for s in range(3)]
    with torch.no_grad():
        alone = torch.stack([model([clip])["match"] for clip in clips])
        together = model(clips)["match"]
    torch.testing.assert_close(together, alone.mean(), rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_losses(build: Build, make_clip: MakeClip) -> None:
    model, clip = build().train(), make_clip((DOG, CAT), (DOG, CAT))
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append(model([clip]))
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_clips_of_other_sizes_and_lengths_share_a_batch(build: Build, make_clip: MakeClip) -> None:
    tall = make_clip((DOG,), (DOG,), (DOG,))
    assert tall.tracks is not None
    turned = Clip(
        frames=tall.frames.mT.contiguous(),
        index=tall.index,
        key=tall.key,
        tracks=replace(tall.tracks, masks=tall.tracks.masks.mT.contiguous()),
    )
    assert finite(build().train()([make_clip((CAT,), (CAT,)), turned]))


def test_training_does_not_change_buffers_or_the_clip(build: Build, make_clip: MakeClip) -> None:
    model, clip = build().train(), make_clip((DOG, CAT), (DOG,))
    buffers, frames = {k: v.clone() for k, v in model.named_buffers()}, clip.frames.clone()
    model([clip])
    assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())
    assert torch.equal(clip.frames, frames)


def test_a_frame_that_is_only_reference_gives_no_detection_loss(build: Build, make_clip: MakeClip) -> None:
    model = build(*EVERYTHING).train()
    with torch.no_grad():
        with_objects = model([make_clip((DOG,), (CAT,), key=[True, False])])
        without = model([make_clip((DOG,), (), key=[True, False])])
    # the reference's pixels and objects differ; only who is whom may depend on them
    for name in ("rpn_cls", "rpn_box", "cls", "box", "mask"):
        torch.testing.assert_close(with_objects[name], without[name], rtol=1e-4, atol=1e-6)


def match_loss_by_loops(model: MaskTrackRCNN, clip: Clip, pairs: Sequence[tuple[int, int]]) -> float:
    """Mean over key frames of the mean cross-entropy of their regions over [new, objects of the reference]."""
    images = model.detector.config.input.prepare([clip.frames])
    features, targets = model.detector.extract(images), targets_of([clip], images)
    per_image = []
    for key, reference in pairs:
        one = Images(images.pixels[[key]], [images.sizes[key]], images.scales[[key]])
        _, (samples,) = model.detector.losses(features.at(key), one, [targets[key]])
        cells = model.detector.regions(features.at(key).maps, [samples.boxes], 7)
        known = model.detector.regions(features.at(reference).maps, [targets[reference].boxes], 7)
        current, known = model.match.describe(cells), model.match.describe(known)
        terms = []
        for k, owner in enumerate(samples.matched.tolist()):
            logits = torch.cat([torch.zeros(1), known @ current[k]])
            identity = int(targets[key].ids[owner])
            ids = targets[reference].ids.tolist()
            column = 1 + ids.index(identity) if identity in ids else 0
            terms.append(-logits.log_softmax(0)[column].item())
        per_image.append(sum(terms) / len(terms))
    return sum(per_image) / len(per_image)


@pytest.mark.parametrize(
    ("frames", "key", "pairs"),
    [
        (((DOG, CAT), (CAT, DOG, FAR)), [True, True], [(0, 1), (1, 0)]),
        (((DOG, CAT), (CAT, FAR)), [True, False], [(0, 1)]),
        (((DOG, CAT), (CAT,)), [False, True], [(1, 0)]),
        (((DOG, CAT), (CAT,), (DOG, FAR)), [True, True, True], [(0, 1), (1, 2), (2, 0)]),
        (((DOG, CAT), ()), [True, False], [(0, 1)]),
        (((DOG, CAT),), [True], [(0, 0)]),
    ],
)
def test_the_match_loss_equals_loops_over_regions_and_objects(
    build: Build,
    make_clip: MakeClip,
    frames: tuple[tuple[Any, ...], ...],
    key: list[bool],
    pairs: list[tuple[int, int]],
) -> None:
    model, clip = build(*EVERYTHING).train(), make_clip(*frames, key=key)
    with torch.no_grad():
        model.match.layers[-1].weight *= 100  # a random start tells nobody apart
        found, wanted = model([clip])["match"], match_loss_by_loops(model, clip, pairs)
    assert found.item() == pytest.approx(wanted, rel=1e-3)


def test_the_mask_loss_reads_the_channel_of_the_objects_class(build: Build, make_clip: MakeClip) -> None:
    model = build(*EVERYTHING).train()
    sum(model([make_clip((CAT,), (CAT,))]).values()).backward()
    grad = model.mask.logits.weight.grad
    assert grad is not None
    assert [bool(channel.any()) for channel in grad] == [False, False, True, False]  # background, dog, cat, car


# inference in two parts


@pytest.mark.parametrize(
    "system", ["small/masktrack", "small/sta", "small/objprop", "small/compfeat", "small/objprop-affinity"]
)
def test_a_step_is_what_finish_makes_of_what_was_prepared(system: str) -> None:
    torch.manual_seed(0)
    model = RECIPES[system].model.build(("dog", "cat")).eval()
    assert isinstance(model, Staged)
    frames = torch.randint(0, 256, (6, 3, 64, 96), dtype=torch.uint8)

    def clip(*numbers: int, context: Sequence[int] = ()) -> Clip:
        key = torch.tensor([n not in context for n in numbers])
        return Clip(frames=frames[list(numbers)], index=torch.tensor(numbers), key=key)

    clips = [clip(0, 1), clip(1, 2), clip(3), clip(0, 4, 5, context=[0])]  # overlaps, and one with a support frame
    with torch.inference_mode():
        prepared = [model.prepare(c) for c in clips]  # all of them before the first step
        whole = parts = model.start()
        for number, c in enumerate(clips):
            whole, tracks = model.step(whole, c)
            parts, again = model.finish(parts, c, prepared[number])
            assert torch.equal(tracks.index, again.index)
            assert torch.equal(tracks.ids, again.ids)
            torch.testing.assert_close(tracks.scores, again.scores)  # a frame alone, or in a batch
            torch.testing.assert_close(tracks.masks, again.masks)
        assert len(tracks) > 0


def test_a_clip_without_key_frames_needs_no_preparation(build: Build) -> None:
    model = build().eval()
    empty = Clip(
        frames=torch.zeros(1, 3, 64, 96, dtype=torch.uint8), index=torch.tensor([0]), key=torch.tensor([False])
    )
    assert model.prepare(empty) is None
    assert len(model.finish(model.start(), empty, None)[1].index) == 0
