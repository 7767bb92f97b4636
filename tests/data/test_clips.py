from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tubelet.core import masks
from tubelet.core.errors import InputError
from tubelet.core.types import Clip, VideoSet
from tubelet.data.clips import ClipDataset, load_clip
from tubelet.data.sampling import RandomPair, Repeat, Sample, valid_frames
from tubelet.data.transforms import ColourJitter, Geometry, HorizontalFlip, PasteObjects, PseudoMotion, ResizeTo


@pytest.fixture
def dataset(generated: VideoSet) -> ClipDataset:
    transforms = (
        Geometry(steps=(PseudoMotion(), ResizeTo(height=32, width=48), HorizontalFlip())),
        PasteObjects(count=(1, 2), least_pixels=50),
        ColourJitter(noise=1),
    )
    return ClipDataset(generated, RandomPair(), transforms, seed=3)


def same(first: Clip, second: Clip) -> bool:
    fields = ("frames", "index", "key")
    parts = ("ids", "scores", "masks", "index")
    return all(torch.equal(getattr(first, f), getattr(second, f)) for f in fields) and all(
        torch.equal(getattr(first.tracks, p), getattr(second.tracks, p)) for p in parts
    )


def test_a_number_is_the_same_clip_whenever_it_is_asked_for(dataset, generated):
    again = ClipDataset(generated, dataset.sampler, (*dataset.transforms,), seed=3)
    order = [9, 2, 2, 0, 9]
    assert all(same(dataset[n], again[n]) for n in order)
    assert not same(dataset[0], ClipDataset(generated, dataset.sampler, dataset.transforms, seed=4)[0])


def test_clips_of_one_video_differ_between_epochs(dataset):
    assert not same(dataset[0], dataset[len(dataset)])


def test_each_epoch_visits_every_video_once_in_an_order_of_its_own(generated):
    dataset = ClipDataset(generated, Repeat(frames=1), seed=0)
    orders = [[dataset.locate(epoch * 4 + n).video for n in range(4)] for epoch in range(12)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len({tuple(order) for order in orders}) > 4


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_order_does_not_depend_on_the_number_of_workers(dataset, workers):
    loader = DataLoader(dataset, batch_size=2, sampler=range(3, 9), collate_fn=list, num_workers=workers)
    clips = [clip for batch in loader for clip in batch]
    assert all(same(clip, dataset[n]) for n, clip in zip(range(3, 9), clips, strict=True))


def test_a_run_resumed_in_the_middle_of_an_epoch_sees_what_it_would_have_seen(dataset, generated):
    whole = [dataset[n] for n in range(10)]
    later = ClipDataset(generated, dataset.sampler, dataset.transforms, seed=3)
    loader = DataLoader(later, batch_size=1, sampler=range(6, 10), collate_fn=list, num_workers=1)
    assert all(same(batch[0], clip) for batch, clip in zip(loader, whole[6:], strict=True))


def test_an_epoch_of_frames_visits_every_frame_with_an_object_once(generated):
    dataset = ClipDataset(generated, RandomPair(), seed=0, per="frame")
    places = [dataset.locate(n)[:2] for n in range(len(dataset))]
    expected = [(n, t) for n, video in enumerate(generated.videos) for t in valid_frames(video).tolist()]
    assert sorted(places) == expected
    assert places != expected
    clip = dataset[3]
    assert clip.index[1] == places[3][1]
    assert dataset.locate(len(dataset) + 1).epoch == 1


def test_a_set_without_objects_has_no_frames_to_visit(coco_set):
    with pytest.raises(InputError, match="at least one frame with an object"):
        ClipDataset(VideoSet(videos=coco_set.videos[2:], classes=coco_set.classes), Repeat(), per="frame")


def test_a_mask_without_a_pixel_is_an_absent_object(one_video):
    empty = masks.encode(np.zeros((1, *one_video.size), bool))[0]
    hollow = replace(one_video, tracks=(replace(one_video.tracks[0], rles=(empty,) * len(one_video)),))
    assert len(load_clip(hollow, Sample((0, 1), (True, True)), 8).tracks) == 0


def test_ranks_share_the_numbers_without_gap_or_overlap(dataset):
    world = 3
    shares = [list(range(rank, 12, world)) for rank in range(world)]
    seen = Counter(number for share in shares for number in share)
    assert seen == Counter(range(12))
    videos = Counter(dataset.locate(number).video for share in shares for number in share)
    assert set(videos.values()) == {3}


def test_a_data_set_survives_pickling_for_spawned_workers(dataset):
    assert same(pickle.loads(pickle.dumps(dataset))[5], dataset[5])


def test_frames_masks_and_boxes_of_a_clip_are_those_of_the_video(one_video):
    clip = load_clip(one_video, Sample((4, 1, 4), (True, False, True)), 8)
    assert clip.index.tolist() == [4, 1, 4]
    for t, frame in enumerate(clip.index.tolist()):
        assert torch.equal(clip.frames[t], one_video.frames[frame])
        for n, number in enumerate(clip.tracks.ids.tolist()):
            rle = next(track for track in one_video.tracks if track.id == number).rles[frame]
            expected = np.zeros(one_video.size) if rle is None else masks.decode([rle])[0]
            assert np.array_equal(clip.tracks.masks[n, t].numpy(), expected)


def test_an_object_absent_from_all_frames_of_a_clip_is_not_in_it(coco_set):
    clip = load_clip(coco_set.videos[0], Sample((0,), (True,)), 2)
    assert clip.tracks.ids.tolist() == [1, 2]
    empty = load_clip(coco_set.videos[2], Sample((0, 0), (True, True)), 2)
    assert empty.tracks.masks.shape == (0, 2, 20, 20)
    assert empty.tracks.scores.shape == (0, 2)


def test_crowds_are_left_out_or_kept_with_scores_of_zero(coco_set):
    kept = load_clip(coco_set.videos[0], Sample((0,), (True,)), 2, keep_ignored=True)
    assert kept.tracks.ids.tolist() == [1, 2, 3]
    assert kept.tracks.scores.tolist() == [[0, 1], [1, 0], [0, 0]]


def test_repeated_frames_are_decoded_once(coco_set):
    clip = load_clip(coco_set.videos[0], Sample((0, 0, 0), (True,) * 3, (0, 1, 2)), 2)
    assert clip.frames.stride(0) == 0
    assert clip.index.tolist() == [0, 1, 2]


def test_no_videos_and_negative_numbers_are_refused(generated):
    with pytest.raises(InputError, match="at least one video"):
        ClipDataset(VideoSet(videos=[], classes=("a",)), Repeat())
    with pytest.raises(IndexError):
        ClipDataset(generated, Repeat())[-1]
