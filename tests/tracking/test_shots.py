"""Cuts on made scenes: found at their first frame, and not where a camera or the light moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edited import faded, scene
from tubelet.tracking.shots import ShotConfig, ShotState, next_shot

PLAIN = ShotConfig()


def starts(frames: np.ndarray, config: ShotConfig = PLAIN) -> list[int]:
    """The first frame of each shot."""
    shots, state = [], ShotState()
    for frame in torch.from_numpy(frames).permute(0, 3, 1, 2):
        state = next_shot(state, frame, config)
        shots.append(state.shot)
    return [shots.index(shot) for shot in range(shots[-1] + 1)]


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_begins_a_shot_at_its_first_frame(seed: int) -> None:
    assert starts(np.concatenate([scene(seed, 7), scene(seed + 100, 6)])) == [0, 7]


def test_the_way_back_is_a_cut_as_well() -> None:
    away = scene(1, 5)
    assert starts(np.concatenate([scene(0, 5), away, scene(0, 9)[5:], away])) == [0, 5, 10, 14]


def test_a_cut_in_the_second_frame_is_found() -> None:
    assert starts(np.concatenate([scene(0, 1), scene(1, 3)])) == [0, 1]


@pytest.mark.parametrize("pan", [0, 1, 5])
def test_a_moving_camera_is_no_cut(pan: int) -> None:
    assert starts(scene(3, 20, pan=pan)) == [0]


def test_a_shaken_camera_is_no_cut() -> None:
    wide, rng = scene(4, 20, size=(100, 176)), np.random.default_rng(0)
    corners = rng.integers(0, (11, 17), (20, 2))
    assert starts(np.stack([f[y : y + 90, x : x + 160] for f, (y, x) in zip(wide, corners, strict=True)])) == [0]


@pytest.mark.parametrize("lasting", [1, 2])
@pytest.mark.parametrize("light", [40, 90])
def test_a_flash_is_no_cut(light: int, lasting: int) -> None:
    frames = scene(5, 12) // 2 + 20
    frames[6 : 6 + lasting] = (frames[6 : 6 + lasting].astype(int) * 1.3 + light).clip(0, 255)
    assert starts(frames) == [0]


def test_white_frames_are_no_cut() -> None:
    frames = scene(5, 12)
    frames[6:8] = 255
    assert starts(frames) == [0]


def test_a_fade_to_black_and_back_is_no_cut() -> None:
    shares = np.concatenate([np.linspace(0, 1, 8), np.ones(4), np.linspace(1, 0, 8), np.linspace(0, 1, 8)])
    assert starts(faded(scene(6, 28), shares)) == [0]


def test_another_scene_after_black_begins_a_shot_once_it_is_seen() -> None:
    down, up = faded(scene(7, 8), np.linspace(1, 0, 8)), faded(scene(8, 8), np.linspace(0, 1, 8))
    first, second = starts(np.concatenate([scene(7, 4), down, up, scene(8, 4)]))
    assert first == 0
    assert 13 <= second <= 15  # frame 12 is black, the next ones nearly


def test_a_long_dissolve_is_not_found() -> None:
    share = np.linspace(0, 1, 24)[:, None, None, None]
    assert starts((scene(9, 24) * (1 - share) + scene(10, 24) * share).astype(np.uint8)) == [0]


def test_higher_thresholds_find_less() -> None:
    frames = np.concatenate([scene(0, 5), scene(1, 5)])
    assert starts(frames, ShotConfig(colours=1.0)) == [0]
    assert starts(frames, ShotConfig(layout=2.0)) == [0]


def test_a_state_can_be_gone_back_to() -> None:
    first, second = torch.from_numpy(np.stack([scene(0, 4), scene(1, 4)])).permute(0, 1, 4, 2, 3)
    state = ShotState()
    for frame in first:
        state = next_shot(state, frame, PLAIN)
    assert next_shot(state, second[0], PLAIN).shot == 1
    assert next_shot(state, first[3], PLAIN).shot == 0


def test_the_state_does_not_grow() -> None:
    state = ShotState()
    for frame in torch.from_numpy(scene(2, 40)).permute(0, 3, 1, 2):
        state = next_shot(state, frame, PLAIN)
    assert (len(state.recent), len(state.distances)) == (PLAIN.recent, PLAIN.memory)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (160, 90), (37, 53)])
def test_any_size_can_be_read(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    assert starts(np.repeat(rng.integers(0, 256, (1, *size, 3), np.uint8), 3, 0)) == [0]


def test_the_layout_of_the_frame_in_memory_does_not_matter() -> None:
    frames = torch.from_numpy(np.concatenate([scene(0, 3), scene(1, 3)])).permute(0, 3, 1, 2)
    one = other = ShotState()
    for frame in frames:
        one, other = next_shot(one, frame, PLAIN), next_shot(other, frame.contiguous(), PLAIN)
        assert one.distances == other.distances
    assert one.shot == other.shot == 1
