"""The family as a VideoSegmenter: sizes, losses of difficult clips, inference, padding, memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.attention.ifr import RecurrentConfig
from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.protocol import Attentive, VideoSegmenter, Window
from tubelet.core.types import Clip
from tubelet.inference.predict import predict
from tubelet.models.mask2former.decoder import JointConfig
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.models.mask2former.model import Mask2Former, Mask2FormerConfig

Build = Callable[..., Mask2Former]
MakeClip = Callable[..., Clip]
SYSTEMS = ("joint", "inter_frame")
LEFT, RIGHT = (4, 10, 40, 50), (50, 20, 90, 60)


def total(model: Mask2Former, clips: list[Clip], seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.stack(list(model(clips).values())).sum()


@pytest.mark.parametrize(("decoder", "millions"), [(JointConfig(), 44.0), (InterFrameConfig(), 58.2)])
def test_published_sizes_with_resnet_50_and_40_classes(decoder: Config, millions: float) -> None:
    with torch.device("meta"):
        model = Mask2FormerConfig.from_tree({"decoder": decoder.model_dump()}).build(("thing",) * 40)
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 1) == millions
    if isinstance(decoder, JointConfig):
        assert count == 23_508_032 + 6_035_904 + 14_469_161


@pytest.mark.parametrize("system", SYSTEMS)
def test_it_is_a_video_segmenter_that_reads_the_whole_video(build: Build, system: str) -> None:
    model = build(system)
    assert isinstance(model, VideoSegmenter)
    assert model.window == Window(length=None)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_parameter_gets_a_gradient_and_losses_are_named_by_prediction(
    build: Build, make_clip: MakeClip, system: str
) -> None:
    model = build(system).train()
    clip = make_clip((0, (LEFT, LEFT)), (1, (RIGHT, None)))
    found = model([clip, clip])
    kinds = {"class", "mask", "dice"} | ({"cross"} if system == "inter_frame" else set())
    assert set(found) == {f"{kind}_{n}" for kind in kinds for n in range(4)}
    torch.stack(list(found.values())).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    "objects",
    [
        [],
        [(0, (None, None))],
        [(-1, (LEFT, LEFT))],
        [(n % 3, (LEFT, RIGHT)) for n in range(6)],
        [(n % 3, (LEFT, RIGHT)) for n in range(9)],
    ],
    ids=["none", "absent everywhere", "a crowd", "as many as queries", "more than queries"],
)
def test_difficult_clips_give_finite_losses_and_gradients(
    build: Build, make_clip: MakeClip, system: str, objects: list[tuple[int, tuple[object, ...]]]
) -> None:
    model = build(system).train()
    loss = total(model, [make_clip(*objects)])
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_object_absent_everywhere_and_a_crowd_count_as_nothing(
    build: Build, make_clip: MakeClip, system: str
) -> None:
    model = build(system)
    plain = total(model, [make_clip((1, (LEFT, RIGHT)))])
    more = total(model, [make_clip((1, (LEFT, RIGHT)), (0, (None, None)), (-1, (RIGHT, RIGHT)))])
    torch.testing.assert_close(more, plain)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_in_half_precision_is_finite(
    build: Build, make_clip: MakeClip, system: str, dtype: torch.dtype
) -> None:
    model = build(system).train()
    with torch.autocast("cpu", dtype):
        loss = total(model, [make_clip((0, (LEFT, None)), (2, (RIGHT, RIGHT)))])
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_training_step_is_equal_when_layers_are_computed_again(
    build: Build, make_clip: MakeClip, system: str
) -> None:
    clip = make_clip((0, (LEFT, LEFT)), (1, (RIGHT, None)))
    found = []
    for setting in ("false", "true"):
        model = build(system, f"save_memory={setting}").train()
        loss = total(model, [clip])
        loss.backward()
        found.append((loss.item(), {n: p.grad for n, p in model.named_parameters()}))
    (kept, gradients), (again, same) = found
    assert kept == again
    for name, gradient in gradients.items():
        torch.testing.assert_close(same[name], gradient, msg=name)


def test_a_label_counts_in_whichever_frame_it_is_seen_unless_legacy(build: Build, make_clip: MakeClip) -> None:
    """Here the object is in the first frame alone; the original took labels from the last."""
    clip = make_clip((1, (LEFT, None)))
    for setting, label in (("false", 1), ("true", 3)):
        model = build("joint", f"legacy_labels={setting}")
        images = model._prepare([clip])
        assert model._target(clip, images, 0).labels.tolist() == [label]


def test_clips_of_two_sizes_share_a_batch_and_keep_their_masks(build: Build, make_clip: MakeClip) -> None:
    model = build("joint")
    small = make_clip((0, (LEFT, LEFT)), size=(60, 92))
    large = make_clip((1, (RIGHT, RIGHT)), size=(96, 100))
    images = model._prepare([small, large])
    assert images.pixels.shape == (4, 3, 96, 128)
    padding = model._target(small, images, 0).padding
    assert padding.tolist() == pytest.approx([128 / 92, 96 / 60])
    assert total(model.train(), [small, large]).isfinite()


def test_clips_of_two_lengths_and_clips_without_truth_are_refused(build: Build, make_clip: MakeClip) -> None:
    model = build("joint")
    with pytest.raises(InputError, match=r"one length, got \[2, 3\]"):
        model([make_clip(), make_clip(frames=3)])
    bare = make_clip()
    with pytest.raises(InputError, match="without annotated objects"):
        model([Clip(frames=bare.frames, index=bare.index, key=bare.key)])


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("frames", [1, 5])
def test_step_gives_the_best_queries_through_all_frames(
    build: Build, make_clip: MakeClip, system: str, frames: int
) -> None:
    model, clip = build(system, "top=4"), make_clip(frames=frames)
    with torch.inference_mode():
        state, tracks = model.step(model.start(), clip)
        _, later = model.step(state, clip)
    assert tracks.ids.tolist() == [0, 1, 2, 3]
    assert len(later) <= 4  # only objects, which a random model need not find
    assert tracks.masks.shape == (4, frames, 16, 24)
    assert tracks.scores.shape == (4, 3)
    assert tracks.confidence.tolist() == sorted(tracks.confidence.tolist(), reverse=True)
    assert ((tracks.masks >= 0) & (tracks.masks <= 1)).all()


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_video_is_predicted_whole(build: Build, system: str) -> None:
    video = np.random.default_rng(0).integers(0, 256, (5, 61, 97, 3), np.uint8)
    found = predict(build(system, "top=3"), video, threshold=0.0)
    assert (found.length, found.size) == (5, (61, 97))
    assert 0 < len(found.tracks) <= 3
    for track in found.tracks:
        assert all(mask is None or mask.size == (61, 97) for mask in track.rles)


def test_only_key_frames_are_answered(build: Build, make_clip: MakeClip) -> None:
    model, clip = build("inter_frame"), make_clip(frames=3)
    key = torch.tensor([True, False, True])
    _, tracks = model.step(model.start(), Clip(frames=clip.frames, index=clip.index + 7, key=key))
    assert tracks.index.tolist() == [7, 9]
    assert tracks.masks.shape[1] == 2


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_kept_queries_are_those_of_the_full_answer_in_the_order_of_their_scores(
    build: Build, make_clip: MakeClip, system: str
) -> None:
    model, frames = build(system), make_clip(frames=3).frames
    every, best = model.look(frames), model.look(frames, keep=2)
    assert every.probabilities.shape == (6, 3)
    order = every.probabilities.amax(1).argsort(descending=True)[:2]
    torch.testing.assert_close(best.probabilities, every.probabilities[order])
    torch.testing.assert_close(best.mask_logits, every.mask_logits[order])


def test_probabilities_have_no_column_for_no_object(build: Build, make_clip: MakeClip) -> None:
    frames = make_clip().frames
    softmax, sigmoid = build("joint").look(frames), build("inter_frame").look(frames)
    assert softmax.probabilities.shape == sigmoid.probabilities.shape == (6, 3)
    assert (softmax.probabilities.sum(1) < 1).all()
    assert (sigmoid.probabilities > 0).all()


@pytest.mark.parametrize("system", SYSTEMS)
def test_frames_taken_a_few_at_a_time_give_the_same_answer(build: Build, make_clip: MakeClip, system: str) -> None:
    frames = make_clip(frames=5).frames
    whole = build(system, "frames_at_a_time=5").look(frames)
    parts = build(system, "frames_at_a_time=2").look(frames)
    torch.testing.assert_close(parts.probabilities, whole.probabilities, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(parts.mask_logits, whole.mask_logits, atol=1e-4, rtol=1e-3)


def test_another_short_side_reads_another_size(build: Build, make_clip: MakeClip) -> None:
    model, frames = build("joint"), make_clip().frames
    assert model.look(frames, short=32).mask_logits.shape[-2:] == (8, 12)
    stretched = build("joint", "input.resize.kind=stretch", "input.resize.height=64", "input.resize.width=64")
    with pytest.raises(InputError, match="keep_ratio"):
        stretched.look(frames, short=32)


def test_bfloat16_and_odd_frames_are_answered_without_nan(build: Build, make_clip: MakeClip) -> None:
    model = build("inter_frame")
    model.precision = torch.bfloat16
    for size in ((1, 1), (37, 53), (5, 200)):
        answer = model.look(make_clip(frames=1, size=size).frames)
        assert answer.mask_logits.isfinite().all()
        assert answer.probabilities.isfinite().all()


@pytest.mark.parametrize(
    "override", ["decoder.layer.mask_mode=other", "queries=0", "decoder.cross_frame=-1", "decoder.kind=none"]
)
def test_values_that_make_no_sense_are_refused(override: str) -> None:
    config = Mask2FormerConfig(decoder=InterFrameConfig(layer=RecurrentConfig()))
    with pytest.raises(ConfigError):
        config.override(override)


@pytest.mark.parametrize("system", SYSTEMS)
def test_attention_is_shown_for_the_query_whose_mask_covers_the_point(
    build: Build, make_clip: MakeClip, system: str
) -> None:
    model, clip = build(system), make_clip(frames=3, size=(40, 90))  # padded to 64 x 96
    assert isinstance(model, Attentive)
    output = model.look(clip.frames)
    height, width = output.mask_logits.shape[-2:]
    scores = output.probabilities.amax(1)[:, None, None] * output.mask_logits[:, 1].sigmoid()
    expected = int(scores[:, 20 * height // 40, 60 * width // 90].argmax())

    glances = model.attend(model.start(), clip, 1, (60.0, 20.0))
    assert glances[0].name.startswith(f"query {expected},")
    assert {glance.frame for glance in glances} == {0, 1, 2}
    assert all(glance.values.shape == (6, 12) for glance in glances)  # stride 8, of the frame without padding


@pytest.mark.parametrize("system", SYSTEMS)
def test_attention_is_shown_of_one_frame_and_by_the_frames_numbers_in_the_video(
    build: Build, make_clip: MakeClip, system: str
) -> None:
    clip = make_clip(frames=1)
    clip = replace(clip, index=clip.index + 7, tracks=None)
    model = build(system)
    assert {glance.frame for glance in model.attend(model.start(), clip, 7, (95.9, 63.9))} == {7}
