from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.data import warp
from tubelet.data.warp import Placement

SEEDS = st.integers(0, 2**32 - 1)


def random_placement(seed: int, length: int, size: tuple[int, int], out: tuple[int, int]) -> Placement:
    rng = np.random.default_rng(seed)
    linear = warp.affine(
        angles=rng.uniform(-0.4, 0.4, length),
        shears=rng.uniform(-0.2, 0.2, length),
        scales=rng.uniform(0.8, 1.3, length),
    )
    target = rng.uniform(0.35, 0.65, (length, 2)) * out[::-1]
    return Placement(warp.about(linear, np.array(size[::-1]) / 2, target), out)


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_warp_then_measure_is_measure_then_warp(make_clip, seed):
    clip = make_clip(seed=seed)
    placement = random_placement(seed, len(clip), clip.size, (70, 90))
    moved = warp.warp_masks(clip.tracks.masks.numpy(), placement)
    for n, track in enumerate(clip.tracks.masks.numpy()[:2]):  # the discs: a thin bar rounds too coarsely
        for t, mask in enumerate(track):
            if _touches_edge(mask) or _touches_edge(moved[n, t]) or not moved[n, t].any():
                continue
            expected = placement.matrices[t] @ [*_centre(mask), 1]
            assert np.abs(_centre(moved[n, t]) - expected[:2]).max() < 0.4
            gain = np.linalg.det(placement.matrices[t])
            assert moved[n, t].sum() == pytest.approx(mask.sum() * gain, rel=0.1)


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_frames_and_masks_move_together(make_clip, seed):
    clip = make_clip(seed=seed)
    mask = clip.tracks.masks[0]
    painted = (mask[:, None] * torch.full((1, 3, 1, 1), 255)).to(torch.uint8)
    placement = random_placement(seed, len(clip), clip.size, (60, 60))
    frames = warp.warp_frames(painted, placement)
    moved = warp.warp_masks(mask[None].numpy(), placement)[0]
    inside = warp.warp_masks(np.ones((1, len(clip), *clip.size), bool), placement)[0]
    differ = ((frames[:, 0].numpy() > 127) != moved) & inside  # the border's mean colour is no object
    edges = sum(_perimeter(m) for m in moved)
    assert differ.sum() <= 0.35 * edges + 2


def test_integer_shifts_and_mirrors_are_exact(make_clip):
    clip = make_clip()
    height, width = clip.size
    mirror = warp.translation(width, 0) @ warp.scaling(-1, 1)
    flipped = warp.warp(clip, Placement(warp.repeat(mirror, 3), clip.size))
    assert torch.equal(flipped.frames, clip.frames.flip(-1))
    assert torch.equal(flipped.tracks.masks, clip.tracks.masks.flip(-1))
    shifted = warp.warp(clip, Placement(warp.repeat(warp.translation(-5, -3), 3), (height - 3, width - 5)), min_left=0)
    assert torch.equal(shifted.frames, clip.frames[..., 3:, 5:])
    assert torch.equal(shifted.tracks.masks, clip.tracks.masks[..., 3:, 5:])


def test_forty_objects_move_as_each_would_alone():
    rng = np.random.default_rng(3)
    masks = rng.random((40, 2, 30, 34)) < 0.5
    placement = random_placement(1, 2, (30, 34), (25, 41))
    together = warp.warp_masks(masks, placement)
    alone = np.concatenate([warp.warp_masks(mask[None], placement) for mask in masks])
    assert np.array_equal(together, alone)


def test_a_repeated_frame_moves_like_its_copies(make_clip):
    masks = make_clip(length=1).tracks.masks
    placement = random_placement(7, 4, (40, 56), (40, 56))
    view = masks.expand(3, 4, 40, 56).numpy()
    assert view.strides[1] == 0
    assert np.array_equal(warp.warp_masks(view, placement), warp.warp_masks(view.copy(), placement))


def test_column_major_masks_move_like_row_major_ones(make_clip):
    masks = make_clip().tracks.masks.numpy()
    turned = np.ascontiguousarray(masks.swapaxes(-1, -2)).swapaxes(-1, -2)
    placement = random_placement(8, 3, (40, 56), (33, 44))
    assert np.array_equal(warp.warp_masks(masks, placement), warp.warp_masks(turned, placement))


def test_an_object_that_mostly_leaves_a_frame_is_absent_there(make_clip):
    clip = make_clip(length=2)
    box = torch.zeros(1, 2, 40, 56, dtype=torch.bool)
    box[:, :, 10:20, 10:30] = True
    tracks = replace(clip.tracks[:1], masks=box)
    shifts = np.stack([warp.translation(-27, 0), warp.translation(-25, 0)])  # 3 of 20 columns stay, then 5
    moved = warp.warp_tracks(tracks, Placement(shifts, (40, 56)), min_left=0.2)
    assert moved.present.tolist() == [[False, True]]
    assert moved.boxes[0, 0].tolist() == [0, 0, 0, 0]
    assert moved.boxes[0, 1].tolist() == [0, 10, 5, 20]


def test_an_object_that_is_gone_everywhere_is_dropped(make_clip):
    clip = make_clip()
    away = warp.warp_tracks(clip.tracks, Placement(warp.repeat(warp.translation(500, 0), 3), (40, 56)))
    assert len(away) == 0
    assert away.masks.shape == (0, 3, 40, 56)


def test_strong_shrinking_averages_instead_of_picking_pixels():
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 200
    small = warp.warp_frames(stripes, Placement(warp.repeat(warp.scaling(0.125, 0.125), 1), (8, 8)))
    assert (small.float() - 100).abs().max() <= 1


def test_the_mean_colour_fills_what_lies_outside_and_reflection_mirrors_it(make_clip):
    frames = make_clip(length=1).frames
    placement = Placement(warp.repeat(warp.translation(4, 0), 1), (40, 56))
    filled = warp.warp_frames(frames, placement, "mean")
    assert filled[0, :, :, :4].flatten(1).unique(dim=1).squeeze(1).tolist() == list(warp.MEAN_COLOUR)
    mirrored = warp.warp_frames(frames, placement, "reflect")
    assert torch.equal(mirrored[0, :, :, :4], frames[0, :, :, :4].flip(-1))


@given(seed=SEEDS, length=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_a_smooth_path_stays_in_range_and_moves_little_per_frame(seed, length):
    path = warp.smooth_path(np.random.default_rng(seed), 3, length, frames_per_turn=8)
    assert path.shape == (length, 3)
    assert np.abs(path).max() <= 1
    if length > 2:
        assert np.abs(np.diff(path, axis=0)).max() <= 2 / 8 + 1e-9


def test_affine_is_rotation_times_shear_times_scale():
    angle, shear, scale = 0.3, 0.2, 1.4
    got = warp.affine(angles=np.array([angle]), shears=np.array([shear]), scales=np.array([scale]))[0]
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.allclose(got, rotation @ np.array([[1, np.tan(shear)], [0, 1]]) * scale)


def _centre(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def _touches_edge(mask: np.ndarray) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _perimeter(mask: np.ndarray) -> int:
    return int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())
