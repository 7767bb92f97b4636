from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.core import masks
from tubelet.core.types import VideoSet
from tubelet.data.caching import keep_decoded, shrink
from tubelet.data.clips import ClipDataset
from tubelet.data.sampling import RandomPair
from tubelet.formats.lazy import MappedVideos
from tubelet.video.frames import LazyFrames


class Counted(LazyFrames):
    """Frames that count how often each was decoded."""

    def __init__(self, frames, counts: Counter):
        self.frames, self.counts = frames, counts

    def __len__(self):
        return len(self.frames)

    def read(self, t):
        self.counts[t] += 1
        return self.frames[t]


@pytest.fixture
def counted(generated: VideoSet) -> tuple[VideoSet, Counter]:
    counts: Counter = Counter()
    video = replace(generated.videos[0], frames=Counted(generated.videos[0].frames, counts))
    return replace(generated, videos=[video]), counts


def test_a_remembered_frame_is_decoded_once(counted):
    videos, counts = counted
    kept = keep_decoded(videos, megabytes=10)
    for _ in range(3):
        assert torch.equal(kept.videos[0].frames[2], videos.videos[0].frames.frames[2])
    assert counts == {2: 1}


def test_memory_is_bounded_and_the_longest_unused_is_forgotten(counted):
    videos, counts = counted
    frame = videos.videos[0].frames.frames[0].nbytes
    kept = keep_decoded(videos, megabytes=1)
    kept.videos.cache.most = 2 * frame
    frames = kept.videos[0].frames
    for t in (0, 1, 0, 2, 0, 1):
        _ = frames[t]
    assert counts == {0: 1, 1: 2, 2: 1}
    assert kept.videos.cache.size == 2 * frame


def test_only_the_frames_that_are_used_are_decoded(counted):
    videos, counts = counted
    dataset = ClipDataset(videos, RandomPair(), seed=0)
    for n in range(3):
        _ = dataset[n]
    assert sum(counts.values()) <= 6


def test_a_worker_gets_an_empty_memory(counted):
    kept = keep_decoded(counted[0])
    _ = kept.videos[0].frames[1]
    copy = pickle.loads(pickle.dumps(kept))
    assert not copy.videos.cache.frames
    assert torch.equal(copy.videos[0].frames[1], kept.videos[0].frames[1])


def test_shrunk_frames_and_masks_fit_each_other(generated, tmp_path):
    small = shrink(generated, tmp_path, short=24, long=40)
    video, original = small.videos[0], generated.videos[0]
    assert video.size == (24, 40)
    frame = video.frames[1]
    assert frame.shape == (3, 24, 40)
    expected = torch.nn.functional.avg_pool2d(original.frames[1].float(), 2)
    assert (frame.float() - expected).abs().mean() < 6
    for track, full in zip(video.tracks, original.tracks, strict=True):
        for rle, whole in zip(track.rles, full.rles, strict=True):
            if rle is not None:
                assert rle.size == (24, 40)
                share = masks.areas([rle])[0] / masks.areas([whole])[0]
                assert share == pytest.approx(0.25, abs=0.1)


def test_a_shrunk_frame_is_made_once_and_then_read(generated, tmp_path):
    counts: Counter = Counter()
    watched = MappedVideos(generated.videos, lambda video: replace(video, frames=Counted(video.frames, counts)))
    videos = replace(generated, videos=watched)
    first = shrink(videos, tmp_path, short=24).videos[0].frames[3]
    again = shrink(videos, tmp_path, short=24).videos[0].frames[3]
    assert torch.equal(first, again)
    assert counts == {3: 1}
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_videos_that_are_small_already_are_left_alone(generated, tmp_path):
    assert shrink(generated, tmp_path, short=480, long=640).videos[0] is generated.videos[0]
    assert np.array_equal(list(tmp_path.iterdir()), [])
