"""The family as a VideoSegmenter: sizes, losses of difficult clips, streaming, cuts, memory, attention."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tubelet.apps.cli import call
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.protocol import Attentive, VideoSegmenter
from tubelet.core.types import Clip, Tracks
from tubelet.inference.predict import predict
from tubelet.models.videomt.model import VidEoMT, VidEoMTConfig, VidEoMTState
from tubelet.training.checkpoint import save_model
from tubelet.video.reader import open_video
from tubelet.video.writer import VideoWriter

Build = Callable[..., VidEoMT]
MakeClip = Callable[..., Clip]
LEFT, RIGHT = (4, 10, 40, 50), (50, 20, 90, 60)


def total(model: VidEoMT, clips: list[Clip], seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.stack(list(model(clips).values())).sum()


def stepped(model: VidEoMT, clips: list[Clip]) -> tuple[VidEoMTState, list[Tracks]]:
    state, found = model.start(), []
    for clip in clips:
        state, tracks = model.step(state, clip)
        found.append(tracks)
    return state, found


def single_frames(clip: Clip) -> list[Clip]:
    return [Clip(frames=clip.frames[[t]], index=clip.index[[t]], key=clip.key[[t]]) for t in range(len(clip))]


@pytest.mark.parametrize(
    ("overrides", "millions"),
    [
        ((), 24.1),
        (("encoder.channels=768", "encoder.heads=12"), 94.2),
        (("encoder.channels=1024", "encoder.layers=24", "encoder.heads=16", "encoder.query_layers=4"), 317.6),
    ],
    ids=["S", "B", "L"],
)
def test_published_sizes_with_40_classes(overrides: tuple[str, ...], millions: float) -> None:
    with torch.device("meta"):
        model = VidEoMTConfig().override(*overrides).build(("thing",) * 40)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


def test_it_is_a_video_segmenter_of_one_frame_a_step_that_shows_its_attention(build: Build) -> None:
    model = build()
    assert isinstance(model, VideoSegmenter)
    assert isinstance(model, Attentive)
    assert (model.window.length, model.traits.attention, model.traits.vote) == (1, True, "mean")


# training


def test_every_parameter_gets_a_gradient_and_losses_are_named_by_prediction(build: Build, make_clip: MakeClip) -> None:
    model = build().train()
    clip = make_clip((0, (LEFT, LEFT)), (1, (RIGHT, None)))
    found = model([clip, clip])
    assert set(found) == {f"{kind}_{n}" for kind in ("class", "mask", "dice") for n in range(3)}
    torch.stack(list(found.values())).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_propagation_learns_only_from_clips_of_two_frames_and_more(build: Build, make_clip: MakeClip) -> None:
    model = build().train()
    total(model, [make_clip((0, (LEFT,)), frames=1)]).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == [
        "network.query_updater.weight",
        "network.query_updater.bias",
    ]


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
    build: Build, make_clip: MakeClip, objects: list[tuple[int, tuple[object, ...]]]
) -> None:
    model = build().train()
    loss = total(model, [make_clip(*objects)])
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_an_object_absent_everywhere_and_a_crowd_count_as_nothing(build: Build, make_clip: MakeClip) -> None:
    model = build()
    plain = total(model, [make_clip((1, (LEFT, RIGHT)))])
    more = total(model, [make_clip((1, (LEFT, RIGHT)), (0, (None, None)), (-1, (RIGHT, RIGHT)))])
    torch.testing.assert_close(more, plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_in_half_precision_is_finite(build: Build, make_clip: MakeClip, dtype: torch.dtype) -> None:
    model = build().train()
    with torch.autocast("cpu", dtype):
        loss = total(model, [make_clip((0, (LEFT, None)), (2, (RIGHT, RIGHT)))])
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_training_step_is_equal_when_layers_are_computed_again(build: Build, make_clip: MakeClip) -> None:
    clip = make_clip((0, (LEFT, LEFT)), (1, (RIGHT, None)))
    plain, saving = build().train(), build("save_memory=true").train()
    losses = total(plain, [clip]), total(saving, [clip])
    for loss in losses:
        loss.backward()
    assert losses[0].item() == losses[1].item()
    for (name, expected), found in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=name)


def test_clips_of_two_sizes_share_a_batch_and_keep_their_masks(build: Build, make_clip: MakeClip) -> None:
    model = build()
    wide, tall = make_clip((0, (LEFT, LEFT)), size=(60, 120)), make_clip((1, (RIGHT, RIGHT)), size=(128, 100))
    images = model._prepare([wide.frames, tall.frames])
    assert images.pixels.shape == (4, 3, 64, 96)
    assert images.sizes == [(48, 96), (48, 96), (64, 50), (64, 50)]
    assert model._target(tall, images, 2).padding.tolist() == pytest.approx([96 / 50, 1])
    assert total(model.train(), [wide, tall]).isfinite()


def test_clips_of_two_lengths_and_clips_without_truth_are_refused(build: Build, make_clip: MakeClip) -> None:
    model = build()
    with pytest.raises(InputError, match=r"one length, got \[2, 3\]"):
        model([make_clip(), make_clip(frames=3)])
    with pytest.raises(InputError, match="without annotated objects"):
        model([replace(make_clip(), tracks=None)])
    with pytest.raises(ConfigError, match="expected a list of Clip"):
        model(torch.zeros(1, 3, 64, 96))


# inference


def test_frame_by_frame_and_the_whole_clip_are_the_same(build: Build, make_clip: MakeClip) -> None:
    model, clip = build("frames_at_a_time=2"), make_clip(frames=5)
    _, (whole,) = stepped(model, [clip])
    _, frames = stepped(model, single_frames(clip))
    assert whole.index.tolist() == [0, 1, 2, 3, 4]
    for t, frame in enumerate(frames):
        rows = [whole.ids.tolist().index(identity) for identity in frame.ids.tolist()]
        torch.testing.assert_close(whole.masks[rows, t], frame.masks[:, 0], atol=1e-5, rtol=1e-4)
    mean = torch.stack([frame.scores[frame.ids.argsort()] for frame in frames]).mean(0)
    torch.testing.assert_close(whole.scores, mean, atol=1e-5, rtol=1e-4)


def test_without_its_linear_layer_the_frames_are_independent(build: Build, make_clip: MakeClip) -> None:
    model, clip = build(), make_clip(frames=3)
    with torch.no_grad():
        for parameter in model.network.query_updater.parameters():
            parameter.zero_()
    _, frames = stepped(model, single_frames(clip))
    _, (alone,) = stepped(model, single_frames(clip)[2:])
    torch.testing.assert_close(frames[2].masks, alone.masks)
    torch.testing.assert_close(frames[2].scores, alone.scores)


def test_with_it_a_frame_depends_on_the_one_before(build: Build, make_clip: MakeClip) -> None:
    model, clip = build(), make_clip(frames=2)
    _, (_, second) = stepped(model, single_frames(clip))
    _, (alone,) = stepped(model, single_frames(clip)[1:])
    assert not torch.allclose(second.scores.sort(0).values, alone.scores.sort(0).values, atol=1e-4)


def test_a_video_can_be_left_and_taken_up_again_and_two_never_mix(build: Build, make_clip: MakeClip) -> None:
    model = build()
    first, second = single_frames(make_clip(frames=4)), single_frames(make_clip(frames=4, seed=1))
    _, expected = stepped(model, first)
    states = [model.start(), model.start()]
    for t in range(4):
        states[0], found = model.step(states[0], first[t])
        states[1], _ = model.step(states[1], second[t])
        torch.testing.assert_close(found.masks, expected[t].masks)


def test_the_state_does_not_grow_with_the_frames(build: Build, make_clip: MakeClip) -> None:
    model = build()

    def numbers(state: VidEoMTState) -> int:
        assert state.identities is not None
        assert state.queries is not None
        tensors = [getattr(state.identities, f.name) for f in fields(state.identities)]
        return state.queries.numel() + sum(t.numel() for t in tensors if isinstance(t, Tensor))

    frames = single_frames(make_clip(frames=12))
    assert numbers(stepped(model, frames)[0]) == numbers(stepped(model, frames[:1])[0])


def test_at_a_cut_queries_start_anew_and_so_do_ids(build: Build, make_clip: MakeClip) -> None:
    model = build()
    before, after = single_frames(make_clip(frames=2))
    _, (first, second) = stepped(model, [before, replace(after, shot=1)])
    _, (alone,) = stepped(model, [after])
    assert not set(first.ids.tolist()) & set(second.ids.tolist())
    torch.testing.assert_close(second.masks, alone.masks)


def test_frames_that_overlapping_windows_repeat_are_seen_once(build: Build, make_clip: MakeClip) -> None:
    model, clip = build(), make_clip(frames=4)
    state, _ = model.step(model.start(), clip.up_to(2))
    again, tracks = model.step(state, clip)
    assert tracks.index.tolist() == [3]
    _, nothing = model.step(again, clip)
    assert (len(nothing), nothing.index.tolist()) == (0, [])


@pytest.mark.parametrize("size", [(61, 97), (200, 20), (1, 1), (37, 400)])
def test_a_video_of_any_shape_is_predicted(build: Build, size: tuple[int, int]) -> None:
    video = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    found = predict(build(), video, threshold=0.0)
    assert (found.length, found.size) == (3, size)
    for track in found.tracks:
        assert all(mask is None or mask.size == size for mask in track.rles)


def test_at_most_the_best_queries_above_the_score_are_shown(build: Build, make_clip: MakeClip) -> None:
    clip = make_clip(frames=1)
    _, (every,) = stepped(build(), [clip])
    _, (best,) = stepped(build("identities.top=2"), [clip])
    assert every.confidence.tolist() == sorted(every.confidence.tolist(), reverse=True)
    torch.testing.assert_close(best.scores, every.scores[:2])
    level = float(every.confidence[2:4].mean())
    _, (above,) = stepped(build(f"identities.score={level}"), [clip])
    assert len(above) == 3


def test_bfloat16_is_answered_without_nan(build: Build, make_clip: MakeClip) -> None:
    model = build()
    model.precision = torch.bfloat16
    state, (tracks,) = stepped(model, [make_clip(frames=3)])
    assert tracks.masks.isfinite().all()
    assert state.queries is not None
    assert state.queries.dtype == torch.float32


# attention


def test_attention_is_shown_for_the_query_whose_mask_covers_the_point(build: Build, make_clip: MakeClip) -> None:
    model, clip = build(), make_clip(frames=3, size=(48, 96), first=7)  # padded to 64 x 96
    glances = model.attend(model.start(), clip, 8, (60.0, 20.0))
    assert [glance.frame for glance in glances] == [8, 8]  # one map for each query layer
    assert [glance.name.split(",")[1] for glance in glances] == [" layer 2", " layer 3"]
    assert all(glance.values.shape == (3, 6) for glance in glances)  # of the frame without padding
    assert all((glance.values >= 0).all() for glance in glances)


def test_the_weights_are_those_that_the_network_used(build: Build, make_clip: MakeClip) -> None:
    """Their mean of the values is what the layer's attention gives, here with one head."""
    model = build("encoder.heads=1")
    _, tokens = model._encode(make_clip(frames=1).frames)
    rows = torch.cat([model.network.fuse(None, 1), tokens], 1)
    block = model.network.backbone.body.blocks[2]
    (weights, _) = model.network.attention(tokens, None, query=4)
    normed = block.norm1(rows)
    values = block.attn.qkv(normed).chunk(3, 2)[2][0]
    torch.testing.assert_close(block.attn.proj(weights @ values), block.attn(normed)[0, 4], atol=1e-5, rtol=1e-4)
    assert float(weights.sum()) == pytest.approx(1)


def test_attention_of_a_later_frame_does_not_depend_on_how_it_was_reached(build: Build, make_clip: MakeClip) -> None:
    model, clip = build(), make_clip(frames=3)
    whole = model.attend(model.start(), clip, 2, (60.0, 20.0))
    frames = single_frames(clip)
    state, _ = stepped(model, frames[:2])
    last = model.attend(state, frames[2], 2, (60.0, 20.0))
    assert [glance.name for glance in whole] == [glance.name for glance in last]
    torch.testing.assert_close(whole[0].values, last[0].values, atol=1e-5, rtol=1e-4)


def test_attend_draws_a_picture_and_a_film_from_a_file_of_the_model(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build()
    described = {"config": model.config.model_dump_json(), "classes": json.dumps(model.classes)}
    save_model(tmp_path / "model.safetensors", model, described)
    with VideoWriter(tmp_path / "noise.mp4", (48, 96), 10) as writer:
        for frame in np.random.default_rng(0).integers(0, 256, (3, 48, 96, 3), np.uint8):
            writer.write(frame)

    told = ["attend", str(tmp_path / "noise.mp4"), "--model", str(tmp_path / "model.safetensors")]
    told += ["--at", "60,20", "--frame", "1", "--video", "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert call(told) == 0
    assert "layer 2" in capsys.readouterr().out
    assert (tmp_path / "out" / "attention.png").stat().st_size > 0
    assert len(open_video(tmp_path / "out" / "attention.mp4")) == 3


# refused


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["encoder.heads=5"], "heads that divide the 32 channels"),
        (["encoder.query_layers=5"], "at most the 4 layers"),
        (["encoder.size=[60, 96]"], "multiples of a patch of 16"),
        (["encoder.patch=14"], "patch"),
        (["input.resize.height=128", "input.resize.width=128"], "within encoder.size 64x96"),
        (["input.resize.kind=keep_ratio"], "within encoder.size"),
        (["queries=0"], "queries"),
        (["masking.power=0"], "power"),
        (["identities.similarity=2"], "similarity"),
        (["window.length=0"], "length"),
    ],
)
def test_values_that_make_no_sense_are_refused(build: Build, overrides: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build(*overrides)
