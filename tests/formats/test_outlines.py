"""Forms of polygons: what is written and read again is the same to the pixel, but for holes, which are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tubelet.core import masks
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats import registry
from tubelet.formats.outlines import outline


def random_masks(seed: int, count: int, size: tuple[int, int]) -> np.ndarray:
    """Masks of several parts, without holes."""
    rng = np.random.default_rng(seed)
    noisy = ndimage.uniform_filter(rng.random((count, *size)), (1, 3, 3)) < 0.5
    return np.stack([ndimage.binary_fill_holes(mask) for mask in noisy])


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_polygons_of_a_mask_without_holes_give_it_back(seed: int) -> None:
    for mask in random_masks(seed, 3, (11, 14)):
        (rle,) = masks.encode(mask[None])
        outlined = outline(rle)
        again = masks.from_json([part.ravel().tolist() for part in outlined.parts], (11, 14))
        assert again == rle or not mask.any()


def test_holes_are_counted() -> None:
    ring = np.ones((1, 9, 9), bool)
    ring[0, 3:6, 3:6] = False
    assert outline(masks.encode(ring)[0]).holes == 1


@pytest.fixture
def videos() -> VideoSet:
    shapes = random_masks(3, 6, (20, 30))
    tracks = tuple(
        Track(id=10 + n, label=n, score=1.0, rles=(*masks.encode(shapes[3 * n : 3 * n + 2]), None)) for n in range(2)
    )
    frames = list(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 20, 30), np.uint8)))
    return VideoSet(videos=[Video(id="walk", size=(20, 30), frames=frames, tracks=tracks)], classes=("cat", "dog: big"))


def test_labelme_keeps_identities_and_masks(videos: VideoSet, tmp_path: Path) -> None:
    losses = registry.named("labelme").write
    assert losses is not None
    assert losses(tmp_path / "set", videos, True).lines() == []
    assert registry.detect(tmp_path / "set") == "labelme"
    read = registry.open_set(tmp_path / "set")
    assert read.classes == videos.classes
    (before,), (after,) = videos.videos, read.videos
    assert (after.id, after.tracks) == ("walk", before.tracks)
    assert all(torch.equal(a, b) for a, b in zip(before.frames, after.frames, strict=True))


def test_yolo_keeps_classes_and_masks_and_says_that_identities_are_lost(videos: VideoSet, tmp_path: Path) -> None:
    write = registry.named("yolo-seg").write
    assert write is not None
    assert write(tmp_path / "set", videos, True).lines() == ["identities of objects: 2"]
    assert registry.detect(tmp_path / "set") == "yolo-seg"
    read = registry.open_set(tmp_path / "set")
    assert read.classes == videos.classes
    assert [video.id for video in read.videos] == ["walk/00000", "walk/00001", "walk/00002"]
    for t, video in enumerate(read.videos):
        expected = [(track.label, track.rles[t]) for track in videos.videos[0].tracks or () if track.rles[t]]
        found = [(track.label, track.rles[0]) for track in video.tracks or ()]
        assert [label for label, _ in found] == [label for label, _ in expected]
        for (_, first), (_, second) in zip(found, expected, strict=True):
            assert first is not None
            assert second is not None
            pair = masks.decode([first, second])
            assert (pair[0] != pair[1]).sum() <= 3, "bridges between parts have no width"
