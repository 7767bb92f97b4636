"""The attention shown of the tag-based system: its frames, its names, its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tubelet.core.protocol import Attentive
from tubelet.core.types import Clip
from tubelet.models.tags.model import TagModel

Build = Callable[..., TagModel]
MakeClip = Callable[..., Clip]
AT = (30.0, 20.0)


def test_each_attention_shows_the_frame_and_those_over_time_some_others(build: Build, make_clip: MakeClip) -> None:
    model, clip = build(), replace(make_clip(frames=4), tracks=None)
    clip = replace(clip, index=clip.index + 10)
    assert isinstance(model, Attentive)
    glances = model.attend(model.start(), clip, 11, AT)
    frames: dict[str, list[int]] = {}
    for glance in glances:
        frames.setdefault(glance.name, []).append(glance.frame)
        assert float(glance.values.sum()) == pytest.approx(1, abs=1e-4)
    assert frames == {
        "spatio-temporal attention": [11],
        "spatio-temporal attention, read from frame 11": [10, 12, 13],
        "tag attention": [11],
        "tag attention, read from frame 11": [10, 12, 13],
        "self-attention": [11],
    }


def test_attentions_that_are_off_show_nothing(build: Build, make_clip: MakeClip) -> None:
    model, clip = build("spatio_temporal=null", "tag_attention=null"), make_clip()
    assert {glance.name for glance in model.attend(model.start(), clip, 0, AT)} == {"self-attention"}
    assert not build("spatio_temporal=null", "tag_attention=null", "self_attention=null").traits.attention


def test_one_frame_and_the_last_pixel_are_shown(build: Build, make_clip: MakeClip) -> None:
    model, clip = build(), make_clip(frames=1)
    glances = model.attend(model.start(), clip, 0, (59.9, 39.9))
    assert len(glances) == 3


def test_the_model_is_as_before_after_it_was_asked(build: Build, make_clip: MakeClip) -> None:
    model, clip = build(), make_clip()
    before = model.step(model.start(), clip)[1]
    model.attend(model.start(), clip, 0, AT)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model.step(model.start(), clip)[1].masks.equal(before.masks)


def test_a_model_in_bfloat16_can_be_asked(build: Build, make_clip: MakeClip) -> None:
    model, clip = build(), make_clip()
    model.precision = torch.bfloat16
    assert all(glance.values.dtype == torch.float32 for glance in model.attend(model.start(), clip, 0, AT))
