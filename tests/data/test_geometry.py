from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core import boxes
from tubelet.core.errors import ConfigError
from tubelet.data.geometry import (
    Geometry,
    HorizontalFlip,
    PseudoMotion,
    RandomCrop,
    RandomScaleCrop,
    ResizeShortSide,
    ResizeTo,
    ResizeWithin,
)

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 3000)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((720, 1280), (360, 640)), ((1280, 720), (640, 360)), ((480, 854), (360, 640)), ((480, 480), (360, 360))],
)
def test_resize_within_gives_the_papers_sizes(size, expected):
    got = ResizeWithin(short=360, long=640).plan(size, 1, rng()).size
    assert abs(got[0] - expected[0]) <= 1
    assert abs(got[1] - expected[1]) <= 1


@given(height=SIDES, width=SIDES)
def test_resize_within_keeps_the_ratio_and_its_limits(height, width):
    new = ResizeWithin(short=36, long=64).plan((height, width), 1, rng()).size
    assert min(new) <= 36
    assert max(new) <= 64
    scale = min(36 / min(height, width), 64 / max(height, width))
    assert new[0] == max(1, round(height * scale))
    assert new[1] == max(1, round(width * scale))


def test_the_short_side_is_one_of_those_named_and_all_of_them_come():
    step = ResizeShortSide(sides=(36, 48))
    shorts = {min(step.plan((72, 128), 1, rng(seed)).size) for seed in range(30)}
    assert shorts == {36, 48}
    assert ResizeShortSide(sides=(48,), long=64).plan((72, 128), 1, rng()).size == (36, 64)


def test_resize_to_with_ratio_fills_the_right_and_the_bottom(make_clip):
    clip = ResizeTo(height=40, width=100, keep_ratio=True)(make_clip((40, 56)), rng())
    assert clip.size == (40, 100)
    assert torch.equal(clip.frames[..., :56], make_clip((40, 56)).frames)
    assert clip.frames[0, 0, :, 60:].unique().tolist() == [124]


def test_resize_moves_boxes_by_its_scale(make_clip):
    clip = make_clip((40, 56))
    big = ResizeTo(height=80, width=168)(clip, rng())
    assert torch.equal(big.tracks.boxes, clip.tracks.boxes * torch.tensor([3.0, 2, 3, 2]))


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_crop_then_measure_is_measure_then_crop(make_clip, seed):
    clip = make_clip(seed=seed)
    plan = RandomCrop(share=(0.5, 0.9)).plan(clip.size, len(clip), rng(seed))
    x, y = -plan.matrices[0, :2, 2].astype(int)
    height, width = plan.size
    window = clip.tracks.masks[..., y : y + height, x : x + width]
    cropped = Geometry(steps=(RandomCrop(share=(0.5, 0.9)),), min_left=0, attempts=1)(clip, rng(seed))
    kept = window.flatten(1).any(1)
    assert torch.equal(cropped.frames, clip.frames[..., y : y + height, x : x + width])
    assert torch.equal(cropped.tracks.boxes, boxes.from_masks(window[kept]))
    assert torch.equal(cropped.tracks.ids, clip.tracks.ids[kept])
    assert torch.equal(cropped.tracks.present, window[kept].flatten(2).any(2))


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_flipping_twice_is_identity(make_clip, seed):
    clip = make_clip(seed=seed)
    flip = HorizontalFlip(probability=1)
    once = flip(clip, rng())
    twice = flip(once, rng())
    assert torch.equal(twice.frames, clip.frames)
    assert torch.equal(twice.tracks.masks, clip.tracks.masks)
    left, right = clip.tracks.boxes[..., 0], clip.tracks.boxes[..., 2]
    assert torch.equal(once.tracks.boxes[..., 0], clip.size[1] - right)
    assert torch.equal(once.tracks.boxes[..., 2], clip.size[1] - left)


def test_one_flip_holds_for_all_frames_and_half_of_the_clips():
    plans = [HorizontalFlip().plan((10, 20), 5, rng(seed)).matrices for seed in range(200)]
    assert all((plan == plan[0]).all() for plan in plans)
    assert 70 < sum(plan[0, 0, 0] < 0 for plan in plans) < 130


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_steps_in_one_warp_are_the_steps_one_after_another(make_clip, seed):
    clip = make_clip((60, 80), seed=seed)
    steps = (PseudoMotion(rotation=8), ResizeTo(height=90, width=110), HorizontalFlip())
    together = Geometry(steps=steps, min_left=0, attempts=1)
    one = together.plan(clip.size, 3, rng(seed))
    size, product, source = clip.size, np.eye(3), rng(seed)
    for step in steps:
        plan = step.plan(size, 3, source)
        size, product = plan.size, plan.matrices @ product
    assert one.size == size
    assert np.allclose(one.matrices, product)
    apart = clip
    source = rng(seed)
    for step in steps:
        apart = step(apart, source)
    warped = together(clip, rng(seed))
    inner = (..., slice(20, 70), slice(25, 85))  # away from borders, which blend with the fill in each warp
    assert (warped.frames[inner].float() - apart.frames[inner].float()).abs().mean() < 6


@given(seed=SEEDS, length=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_pseudo_motion_stays_in_the_ranges_of_the_config(seed, length):
    motion = PseudoMotion(rotation=15, translation=0.1, shear=10, scale=(0.9, 1.1))
    height, width = 90, 160
    matrices = motion.plan((height, width), length, rng(seed)).matrices
    centre = matrices @ [width / 2, height / 2, 1]
    assert (abs(centre[:, 0] - width / 2) <= 0.1 * width + 1e-6).all()
    assert (abs(centre[:, 1] - height / 2) <= 0.1 * height + 1e-6).all()
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert (abs(angles) <= 15 + 1e-6).all()
    scales = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
    assert (scales >= 0.9 - 1e-6).all()
    assert (scales <= 1.1 + 1e-6).all()
    upright = np.linalg.inv(warp_rotation(angles)) @ matrices[:, :2, :2] / scales[:, None, None]
    assert (abs(np.degrees(np.arctan(upright[:, 0, 1]))) <= 10 + 1e-6).all()


def test_two_frames_of_pseudo_motion_differ_and_many_follow_a_smooth_path():
    pair = PseudoMotion().plan((90, 160), 2, rng(1)).matrices
    assert not np.allclose(pair[0], pair[1])
    long = PseudoMotion(translation=0.1, rotation=0, shear=0, scale=(1, 1)).plan((90, 160), 30, rng(1)).matrices
    steps = np.abs(np.diff(long[:, :2, 2], axis=0)).max()
    assert 0 < steps <= 2 * 0.1 * 160 / 6 + 1e-9


@given(seed=SEEDS, zoom=st.floats(0.4, 3), keep_ratio=st.booleans())
@settings(max_examples=40, deadline=None)
def test_scale_crop_covers_the_output_when_zooming_in_and_holds_the_frame_when_zooming_out(seed, zoom, keep_ratio):
    step = RandomScaleCrop(height=50, width=50, zoom=(zoom, zoom), aspect=(1, 1), keep_ratio=keep_ratio)
    plan = step.plan((40, 80), 1, rng(seed))
    first, last = plan.matrices[0] @ [0, 0, 1], plan.matrices[0] @ [80, 40, 1]
    for low, high in zip(first[:2], last[:2], strict=True):
        covers, held = low <= 1e-6 and high >= 50 - 1e-6, low >= -1e-6 and high <= 50 + 1e-6
        assert covers or held
    if keep_ratio:
        assert plan.matrices[0, 0, 0] == pytest.approx(plan.matrices[0, 1, 1])


def test_a_clip_that_would_lose_all_objects_is_planned_anew(make_clip):
    crop = Geometry(steps=(RandomCrop(share=(0.2, 0.2)),), attempts=1)
    patient = Geometry(steps=(RandomCrop(share=(0.2, 0.2)),), attempts=200)
    clip = make_clip()
    lost = [seed for seed in range(60) if not len(crop(clip, rng(seed)).tracks)]
    assert lost
    assert all(len(patient(clip, rng(seed)).tracks) for seed in lost)


def test_the_same_draw_gives_the_same_clip(make_clip):
    geometry = Geometry(steps=(PseudoMotion(), RandomScaleCrop(height=30, width=30), HorizontalFlip()))
    first, second = geometry(make_clip(), rng(4)), geometry(make_clip(), rng(4))
    assert torch.equal(first.frames, second.frames)
    assert torch.equal(first.tracks.masks, second.tracks.masks)


def test_a_clip_without_truth_moves_too(make_clip):
    bare = replace(make_clip(), tracks=None)
    moved = Geometry(steps=(ResizeTo(height=20, width=20),))(bare, rng())
    assert moved.tracks is None
    assert moved.frames.shape == (3, 3, 20, 20)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomCrop(share=(0.0, 1.0)),
        lambda: RandomCrop(share=(0.9, 0.5)),
        lambda: RandomScaleCrop(height=8, width=8, zoom=(2.0, 1.0)),
        lambda: PseudoMotion(scale=(0.0, 1.0)),
        lambda: ResizeShortSide(sides=()),
    ],
)
def test_ranges_that_make_no_sense_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def warp_rotation(degrees: np.ndarray) -> np.ndarray:
    radians = np.radians(degrees)
    return np.moveaxis(np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]]), -1, 0)
