"""The benchmark's videos: the same everywhere, in grades, and held-out images stay out of the training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tubelet.bench import video_sets
from tubelet.core.errors import InputError
from tubelet.core.types import Video, VideoSet
from tubelet.formats import coco, ytvis
from tubelet.formats.ytvis.numbering import video_names


def same(one: Video, other: Video) -> bool:
    frames = all(torch.equal(a, b) for a, b in zip(one.frames, other.frames, strict=True))
    return frames and one.tracks == other.tracks and one.id == other.id


def test_every_grade_has_as_many_videos_and_says_so_in_its_ids() -> None:
    videos = video_sets.generated("test", 2)
    grades = [video_sets.grade_of(video) for video in (v.id for v in videos.videos)]
    assert grades == [grade for grade in video_sets.GRADES for _ in range(2)]
    assert len({video.id for video in videos.videos}) == len(videos.videos)


def test_an_id_of_another_set_has_no_grade() -> None:
    with pytest.raises(ValueError, match="no grade"):
        video_sets.grade_of("pasted-00001")


def test_the_parts_of_the_generated_set_differ_and_each_is_the_same_again() -> None:
    train, test = (video_sets.generated(part, 1).videos[0] for part in ("train", "test"))
    assert not torch.equal(train.frames[0], test.frames[0])
    assert same(test, video_sets.generated("test", 3).videos[0])


@pytest.mark.parametrize("grade", video_sets.GRADES)
def test_a_grade_is_the_plain_world_with_one_thing_made_hard(grade: str) -> None:
    plain, own = video_sets.PLAIN.model_dump(), video_sets.GRADES[grade].model_dump()
    changed = {name for name in plain if plain[name] != own[name]}
    assert len(changed - {"objects", "frames", "shake_blur"}) == (grade != "plain")


def test_in_the_grade_of_re_entry_objects_are_gone_for_a_while_and_back() -> None:
    videos = [video for video in video_sets.generated("test", 3).videos if video_sets.grade_of(video.id) == "re-entry"]
    seen = [[rle is not None for rle in track.rles] for video in videos for track in video.tracks or ()]
    back = ["".join("x" if s else "." for s in own).strip(".") for own in seen]
    assert sum("...." in own for own in back) >= len(back) / 2


def test_the_generated_set_written_and_read_keeps_its_grades(tmp_path: Path) -> None:
    videos = video_sets.generated("test", 1)
    few = VideoSet(videos=videos.videos[:2], classes=videos.classes)
    ytvis.write_folder(tmp_path / "set", few)
    again = ytvis.read(tmp_path / "set" / "instances.json")
    assert [video_sets.grade_of(name) for name in video_names(again)] == ["plain", "look-alikes"]
    assert torch.equal(again.videos[1].frames[3], few.videos[1].frames[3])


def test_pasted_videos_are_made_of_these_images_alone_and_are_the_same_again(coco_folder: Path) -> None:
    images = coco.read(coco_folder / "instances.json")
    one, other = (video_sets.pasted(images, "train", 3) for _ in range(2))
    assert one.classes == tuple(video_sets.GROUPS)
    assert all(same(a, b) for a, b in zip(one.videos, other.videos, strict=True))
    video = one.videos[0]
    assert video.size == (video_sets.HEIGHT, video_sets.WIDTH)
    assert len(video) == video_sets.PLAIN.frames
    assert any(not track.ignore for track in video.tracks or ())
    assert not torch.equal(video.frames[0], video_sets.pasted(images, "test", 1).videos[0].frames[0])


def test_what_is_ignored_is_ignored_for_every_class(coco_folder: Path) -> None:
    images = coco.read(coco_folder / "instances.json")  # one object is a crowd
    for video in video_sets.pasted(images, "train", 4).videos:
        ignored = [(track.label, track.rles) for track in video.tracks or () if track.ignore]
        for _, rles in ignored:
            assert {label for label, own in ignored if own == rles} == set(range(len(video_sets.GROUPS)))
    assert any(track.ignore for video in video_sets.pasted(images, "train", 4).videos for track in video.tracks or ())


def test_images_without_a_known_class_are_refused(coco_folder: Path) -> None:
    images = coco.read(coco_folder / "instances.json")
    unknown = VideoSet(videos=images.videos, classes=tuple(f"thing {n}" for n in range(len(images.classes))))
    with pytest.raises(InputError, match="expected images with an object of"):
        video_sets.pasted(unknown, "train", 1)
