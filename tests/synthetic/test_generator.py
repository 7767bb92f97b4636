from __future__ import annotations

import hashlib
import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core import masks
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.types import VideoSet
from tubelet.formats import ytvis
from tubelet.synthetic.cast import CAST
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate, write
from tubelet.synthetic.planner import plan
from tubelet.synthetic.shapes import Look, covers, paint_creature, sine

SMALL = Synthetic(height=48, width=80, frames=5, objects=(2, 3), size=(0.4, 0.7))


def digest(videos: VideoSet) -> str:
    """One hash over every pixel and every mask."""
    found = hashlib.sha256()
    for video in videos.videos:
        for frame in video.frames:
            found.update(frame.permute(1, 2, 0).contiguous().numpy().tobytes())
        for track in video.tracks:
            found.update(f"{track.id} {track.label}".encode())
            for rle in track.rles:
                found.update(b"-" if rle is None else rle.counts)
    return found.hexdigest()


def dense(videos: VideoSet, n: int) -> np.ndarray:
    """uint8 [N, T, H, W]."""
    video = videos.videos[n]
    if not video.tracks:
        return np.zeros((0, len(video), *video.size), np.uint8)
    empty = masks.encode(np.zeros((1, *video.size), bool))[0]
    return np.stack([masks.decode([rle or empty for rle in track.rles]) for track in video.tracks])


def test_a_seed_gives_the_same_bytes_on_every_machine():
    videos = generate(SMALL.override("noise=4", "blur=1.0", "camera=1.0", "occluders=[1, 2]", "leaving=0.5"), 7, 3)
    assert digest(videos) == "45835124a3ba8eef5262e36abfa3e620ed3ebeb0ffc21413c9eb2494232d011c"


def test_the_files_are_the_same_bytes_too(tmp_path):
    for name in ("first", "second"):
        write(tmp_path / name, SMALL, seed=3, videos=2)
    first, second = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("first", "second")
    )
    assert first == second
    assert len(first) == 2 * 5 + 1


def test_the_table_of_sines_cannot_round_differently_elsewhere():
    # libm may be off in the last bit; every entry must be far from where that would change it
    exact = [math.sin(2 * math.pi * k / 4096) * 16384 for k in range(4096)]
    assert min(abs((value % 1) - 0.5) for value in exact) > 1e-6
    assert np.abs(sine(np.linspace(-3, 3, 1000)) - np.sin(2 * np.pi * np.linspace(-3, 3, 1000))).max() < 2e-3


def test_videos_depend_on_their_number_and_not_on_how_many_there_are():
    few, many = generate(SMALL, 1, 2), generate(SMALL, 1, 5)
    assert torch.equal(few.videos[1].frames[2], many.videos[1].frames[2])
    assert few.videos[1].tracks == many.videos[1].tracks
    assert not torch.equal(few.videos[0].frames[0], few.videos[1].frames[0])
    assert not torch.equal(generate(SMALL, 2, 1).videos[0].frames[0], few.videos[0].frames[0])


@given(seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_no_pixel_has_two_owners_and_absent_means_none(seed):
    videos = generate(SMALL.override("frames=3"), seed, 1)
    assert dense(videos, 0).sum(0).max(initial=0) <= 1
    for track in videos.videos[0].tracks:
        assert any(track.rles)
        assert all(rle is None or masks.areas([rle])[0] >= SMALL.least_pixels for rle in track.rles)


def test_masks_are_where_the_pixels_of_an_object_are():
    # two worlds that differ in their objects alone: pixels may differ only in masks and on their edges
    plain = SMALL.override("noise=0", "blur=0", "light=0", "occluders=[0, 0]", "objects=[1, 1]", "look_alikes=0")
    for seed in range(4):
        video = generate(plain, seed, 1).videos[0]
        world = video.frames.world
        empty = type(world)(
            **{name: getattr(world, name) for name in ("size", "camera", "light", "blur", "noise", "seed")}, actors=()
        )
        for t in range(plain.frames):
            changed = (world.frame(t) != empty.frame(t)).any(-1)
            rle = video.tracks[0].rles[t]
            mask = masks.decode([rle])[0] if rle else np.zeros(video.size, np.uint8)
            assert not (mask & ~cv2.dilate(changed.astype(np.uint8), np.ones((3, 3)))).any()
            assert not (changed & (cv2.dilate(mask, np.ones((3, 3), np.uint8)) == 0)).any()
            assert (changed & (mask > 0)).sum() >= 0.97 * mask.sum()


def test_a_creature_fits_the_window_it_is_drawn_in():
    grain = np.zeros((8, 8))
    v, u = np.mgrid[-2:2:80j, -2:2:80j]
    for name, creature in CAST.items():
        for phase in np.linspace(0, 1, 9):
            for bend in (-0.5, 0.0, 0.5):
                covered = covers(creature, u, v + bend * (u * u - 0.3), phase)
                reach = np.maximum(abs(u[covered]), abs(v[covered])).max()
                assert reach <= 1.3 + abs(bend), name
                # a bent creature is turned too, so its corners must stay inside as well
                assert np.hypot(u[covered], v[covered]).max() <= 1.3 + abs(bend), name
        mask, colours = paint_creature(creature, Look((200, 90, 60), (240, 220, 90), 3.0), u, v, 0.3, grain)
        assert np.array_equal(mask, covers(creature, u, v, 0.3))
        assert len(np.unique(colours[mask], axis=0)) > 20


def test_knobs_do_what_they_say():
    calm = SMALL.override(
        "speed=0",
        "deformation=0",
        "look_alikes=0",
        "leaving=0",
        "camera=0",
        "noise=0",
        "blur=0",
        "light=0",
        "occluders=[0,0]",
    )
    still = generate(calm, 3, 1).videos[0]
    assert torch.equal(still.frames[0], still.frames[4])
    for number in (0, 1, 5):
        assert len(plan(calm.override(f"objects=[{number}, {number}]"), (0, 0)).actors) == number
    for change in ("deformation=0.3", "camera=1", "noise=5", "light=0.5"):
        moving = generate(calm.override(change), 3, 1).videos[0]
        assert not torch.equal(moving.frames[0], moving.frames[4]), change
    assert set(generate(SMALL.override('classes=["cat", "car"]'), 0, 9).classes) == {"cat", "car"}


def test_speed_is_the_mean_way_per_frame():
    for speed in (0.01, 0.03):
        config = SMALL.override(f"speed={speed}", "frames=60", "look_alikes=0", "leaving=0")
        worlds = [plan(config, (0, number)) for number in range(6)]
        creatures = [actor for world in worlds for actor in world.actors if actor.label is not None]
        ways = [np.linalg.norm(np.diff(actor.positions, axis=0), axis=1).mean() for actor in creatures]
        assert np.mean(ways) == pytest.approx(speed, rel=0.35)


def test_look_alikes_share_class_and_look_and_cross():
    config = SMALL.override("look_alikes=1", "objects=[2, 2]", "frames=24", "occluders=[0, 0]", "speed=0.04")
    for video in generate(config, 2, 4).videos:
        first, second = video.frames.world.actors
        assert first.label == second.label
        assert first.look == second.look
        side = first.positions[:, 0] - second.positions[:, 0]
        assert side[0] * side[-1] < 0


def test_objects_leave_and_come_back():
    config = SMALL.override("leaving=1", "look_alikes=0", "objects=[2, 2]", "frames=40", "camera=0", "occluders=[0, 0]")
    gaps = 0
    for video in generate(config, 1, 3).videos:
        for track in video.tracks:
            present = [rle is not None for rle in track.rles]
            gaps += "".join("x" if p else "-" for p in present).strip("-").count("-") > 0
    assert gaps >= 4


def test_occluders_hide_objects_and_are_no_objects():
    config = SMALL.override("occluders=[2, 2]", "objects=[1, 1]", "look_alikes=0", "camera=0")
    free = config.override("occluders=[0, 0]")
    hidden = shown = 0
    for seed in range(6):
        with_posts, without = generate(config, seed, 1).videos[0], generate(free, seed, 1).videos[0]
        assert len(with_posts.frames.world.actors) == 3
        assert len(with_posts.tracks) <= 1
        hidden += sum(masks.areas([r])[0] for track in with_posts.tracks for r in track.rles if r)
        shown += sum(masks.areas([r])[0] for track in without.tracks for r in track.rles if r)
    assert hidden < 0.95 * shown


def test_what_is_written_reads_back(tmp_path):
    done = []
    written = write(tmp_path / "set", SMALL, seed=0, videos=2, progress=done.append)
    assert done == [1, 2]
    read = ytvis.read(tmp_path / "set" / "instances.json")
    assert read.classes == SMALL.classes
    for first, second in zip(written.videos, read.videos, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first.frames, second.frames, strict=True))
        assert [t.label for t in first.tracks] == [t.label for t in second.tracks]
        assert [tuple(t.rles) for t in first.tracks] == [tuple(t.rles) for t in second.tracks]


def test_writing_never_touches_a_folder_that_holds_something(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="there is something already"):
        write(tmp_path / "set", SMALL, seed=0, videos=1)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine.txt"]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", SMALL, seed=0, videos=2, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": ("fsh",)}, "did you mean 'fish'"),
        ({"classes": ("fish", "fish")}, "named twice"),
        ({"objects": (4, 1)}, "rising"),
        ({"size": (0.0, 0.0)}, "size 0"),
        ({"height": 2}, "greater than or equal to 8"),
    ],
)
def test_knobs_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Synthetic(**wrong)


def test_a_shake_smears_single_frames_between_clear_ones_and_moves_nothing() -> None:
    config = SMALL.override("frames=12", "noise=0", "blur=0")
    clear, shaken = (generate(c, 3, 1).videos[0] for c in (config, config.override("shakes=0.5", "shake_blur=3")))
    assert clear.tracks == shaken.tracks
    changed = [not torch.equal(a, b) for a, b in zip(clear.frames, shaken.frames, strict=True)]
    assert not changed[0]
    assert any(changed)
    assert not any(a and b for a, b in pairwise(changed))
    smeared = changed.index(True)
    assert _contrast(shaken.frames[smeared]) < 0.7 * _contrast(clear.frames[smeared])


def _contrast(frame: torch.Tensor) -> float:
    return float(frame.float().diff(dim=-1).abs().mean())
