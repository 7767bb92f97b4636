from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tubelet.data.transforms import AnyTransform, ColourJitter, Geometry, HorizontalFlip, ResizeTo, TemporalFlip

STILL = ColourJitter(brightness=0, contrast=0, saturation=0, hue=0, blur_probability=0, noise=0, flicker=0)
SEEDS = st.integers(0, 2**32 - 1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def grey_of(frames: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114])
    return (frames.float() * weights[:, None, None]).sum(1)


def test_jitter_of_no_strength_changes_nothing(make_clip):
    clip = make_clip()
    assert torch.equal(STILL(clip, rng()).frames, clip.frames)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_colour_leaves_masks_boxes_and_validity_alone(make_clip, seed):
    clip = make_clip(seed=seed)
    changed = ColourJitter(blur_probability=1, noise=3)(clip, rng(seed))
    assert changed.tracks is clip.tracks
    assert changed.frames.dtype == torch.uint8
    assert changed.frames.shape == clip.frames.shape


def test_without_flicker_all_frames_change_alike(make_clip):
    frame = make_clip(length=1).frames
    clip = replace(make_clip(), frames=frame.expand(3, -1, -1, -1))
    alike = ColourJitter(flicker=0, blur_probability=1)(clip, rng(2)).frames
    assert torch.equal(alike[0], alike[1])
    assert torch.equal(alike[0], alike[2])
    apart = ColourJitter(flicker=1)(clip, rng(2)).frames
    assert not torch.equal(apart[0], apart[1])


def test_brightness_adds_the_same_to_every_pixel(make_clip):
    clip = replace(make_clip(), frames=(make_clip().frames // 4 + 96))  # far from black and white
    brighter = STILL.but(brightness=0.2)(clip, rng(3)).frames.int() - clip.frames.int()
    assert int(brighter.max() - brighter.min()) <= 1
    assert 0 < abs(float(brighter.float().mean())) <= 0.2 * 255 + 1


def test_contrast_keeps_mid_grey_and_scales_the_distance_from_it(make_clip):
    clip = replace(make_clip(), frames=(make_clip().frames // 4 + 96))
    jitter = STILL.but(contrast=0.5)
    changed = jitter(clip, rng(5)).frames.float()
    before = clip.frames.float() - 127.5
    gain = ((changed - 127.5) * before).sum() / before.square().sum()
    assert 0.5 <= gain <= 1.5
    assert abs(float(gain) - 1) > 0.02
    assert (changed - 127.5 - gain * before).abs().max() < 2


@pytest.mark.parametrize("field", ["saturation", "hue"])
def test_saturation_and_hue_keep_the_brightness(make_clip, field):
    clip = replace(make_clip(), frames=(make_clip().frames // 4 + 96))
    strength = {"saturation": 0.5, "hue": 30.0}[field]
    changed = STILL.but(**{field: strength})(clip, rng(3)).frames
    assert not torch.equal(changed, clip.frames)
    assert (grey_of(changed) - grey_of(clip.frames)).abs().max() < 1.5


def test_blur_lowers_contrast_between_neighbours(make_clip):
    noisy = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clip = replace(make_clip(length=2, size=(40, 40)), frames=noisy)
    blurred = STILL.but(blur=2.0, blur_probability=1.0)(clip, rng(1)).frames
    assert _roughness(blurred) < 0.7 * _roughness(noisy)


def test_noise_has_the_deviation_asked_for(make_clip):
    clip = make_clip(length=1, size=(80, 80))
    clip = replace(clip, frames=torch.full_like(clip.frames, 128))
    noisy = STILL.but(noise=5.0)(clip, rng()).frames.float()
    assert noisy.std() == pytest.approx(5, rel=0.05)


def test_the_input_is_never_written_to(make_clip):
    clip = make_clip()
    before = clip.frames.clone(), clip.tracks.masks.clone()
    for transform in (
        ColourJitter(noise=2, blur_probability=1),
        HorizontalFlip(probability=1),
        ResizeTo(height=9, width=9),
    ):
        transform(clip, rng())
    assert torch.equal(clip.frames, before[0])
    assert torch.equal(clip.tracks.masks, before[1])


def test_temporal_flip_turns_frames_masks_index_and_key_together(make_clip):
    clip = replace(make_clip(), key=torch.tensor([False, True, True]))
    flipped = TemporalFlip(probability=1)(clip, rng())
    assert flipped.index.tolist() == [2, 1, 0]
    assert flipped.key.tolist() == [True, True, False]
    assert torch.equal(flipped.frames, clip.frames.flip(0))
    assert torch.equal(flipped.tracks.masks, clip.tracks.masks.flip(1))
    again = TemporalFlip(probability=1)(flipped, rng())
    assert torch.equal(again.frames, clip.frames)
    assert TemporalFlip(probability=0)(clip, rng()) is clip


def test_a_list_of_transforms_reads_back_from_json():
    adapter = TypeAdapter(tuple[AnyTransform, ...])
    transforms = (Geometry(steps=(ResizeTo(height=4, width=5), HorizontalFlip())), ColourJitter(), TemporalFlip())
    assert adapter.validate_json(adapter.dump_json(transforms)) == transforms


def _roughness(frames: torch.Tensor) -> float:
    return float((frames[..., 1:].float() - frames[..., :-1].float()).abs().mean())
