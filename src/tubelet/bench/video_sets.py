"""The two sets of `tubelet bench vis`: generated videos in grades of difficulty, and videos pasted from real images.

A grade is the plain world with one thing made hard. The pasted set has real objects before real backgrounds, cut from
the images of any COCO folder; images that are held out appear in the test videos only, neither as a background nor as
an object of the training. Both depend on the numbers here alone (and on the images).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import InputError
from tubelet.core.types import Clip, Track, Video, VideoSet
from tubelet.data.clips import ClipDataset
from tubelet.data.geometry import Geometry, HorizontalFlip, PseudoMotion, RandomScaleCrop
from tubelet.data.pasting import PasteObjects
from tubelet.data.sampling import Repeat
from tubelet.formats.classes import translate
from tubelet.formats.lazy import JoinedVideos, LazyVideos, MappedVideos
from tubelet.recipes.small import HEIGHT, PLAIN, WIDTH
from tubelet.synthetic.generator import Synthetic, generate

SplitName = Literal["train", "test"]
SEEDS: dict[SplitName, int] = {"train": 2000, "test": 9000}  # of the first grade, and of pasting
GRADES: dict[str, Synthetic] = {
    "plain": PLAIN,
    "look-alikes": PLAIN.but(look_alikes=1, objects=(2, 3)),  # two that look the same cross
    "occlusion": PLAIN.but(occluders=(2, 4), objects=(2, 3)),  # posts, bushes and each other
    "re-entry": PLAIN.but(leaving=1, frames=24),  # every object leaves the frame and comes back
    "blur": PLAIN.but(shakes=0.5, shake_blur=2.5),  # half of the frames smeared, between clear ones
    "deformation": PLAIN.but(deformation=0.4),  # bodies bend far
    "camera": PLAIN.but(camera=1),  # it pans, zooms and rolls as far as it can
}

# the classes of the pasted set: few enough that small systems can learn them, common enough to be in any subset of COCO
GROUPS: dict[str, tuple[str, ...]] = {
    "person": ("person",),
    "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    "vehicle": ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
}
MOTION = (
    Geometry(steps=(PseudoMotion(), RandomScaleCrop(height=HEIGHT, width=WIDTH, zoom=(0.8, 1.6)), HorizontalFlip())),
    PasteObjects(count=(1, 3), size=(0.2, 0.5), travel=0.5),
)
LEAST_SHARE = 0.02  # of the image: smaller objects are ignored, as those of other classes are
MOST_OBJECTS = 4  # of one image, the ignored ones counted as well: crowded images are left out


def generated(part: SplitName, each: int) -> VideoSet:
    """`each` videos of every grade, in the order of `GRADES`; ids are `<grade>-<number>`."""
    parts = [
        MappedVideos(generate(world, SEEDS[part] + n, each).videos, partial(_named, grade))
        for n, (grade, world) in enumerate(GRADES.items())
    ]
    return VideoSet(videos=JoinedVideos(*parts), classes=PLAIN.classes)


def grade_of(video: str) -> str:
    """The grade of a video by its id; raises ValueError for an id of another set."""
    grade = video.rpartition("-")[0]
    if grade not in GRADES:
        raise ValueError(f"no grade in the id {video!r}")
    return grade


def _named(grade: str, video: Video) -> Video:
    return replace(video, id=f"{grade}-{video.id}")


def pasted(images: VideoSet, part: SplitName, videos: int) -> VideoSet:
    """`videos` videos made from COCO images (`coco.read`, of this part alone); ids are `pasted-<number>`.

    Each is one image moved as by a camera, with objects of other images passing before or behind its own. Raises
    InputError where no image holds an object of a class of `GROUPS`.
    """
    known = set(images.classes)
    names = {name: group for group, members in GROUPS.items() for name in members if name in known}
    grouped = translate(images, tuple(GROUPS), names)
    grouped = replace(grouped, videos=MappedVideos(grouped.videos, _large_only))
    useful = [n for n, video in enumerate(grouped.videos) if _useful(video.tracks or ())]
    if not useful:
        raise InputError(f"expected images with an object of {', '.join(names) or 'COCO classes'}, found none")
    sources = replace(grouped, videos=[grouped.videos[n] for n in useful])
    return VideoSet(videos=PastedVideos(sources, SEEDS[part], range(videos)), classes=sources.classes)


def _useful(tracks: Sequence[Track]) -> bool:
    return len(tracks) <= MOST_OBJECTS and any(not track.ignore for track in tracks)


def _large_only(video: Video) -> Video:
    least = LEAST_SHARE * video.size[0] * video.size[1]

    def judged(track: Track) -> Track:
        rle = track.rles[0]
        small = rle is None or masks.areas([rle])[0] < least
        return replace(track, ignore=True) if small else track

    return replace(video, tracks=tuple(judged(track) for track in video.tracks or ()))


class PastedVideos(LazyVideos[int]):
    """Videos by number, made when asked for."""

    kept = 256  # writing a set walks through it several times

    def __init__(self, sources: VideoSet, seed: int, numbers: range) -> None:
        super().__init__(numbers)
        self.clips = ClipDataset(sources, Repeat(frames=PLAIN.frames), MOTION, seed, keep_ignored=True)

    def make(self, entry: int) -> Video:
        return _video(f"pasted-{entry:05d}", self.clips[entry])


def _video(name: str, clip: Clip) -> Video:
    assert clip.tracks is not None, "clips of annotated images have truth"
    held: list[Track] = []
    for scores, own in zip(clip.tracks.scores, clip.tracks.binary.numpy(), strict=True):
        ignore, rles = not bool(scores.any()), _encoded(own)
        # what is ignored forgives an answer of any class, and in the files a region belongs to one class
        for label in range(len(scores)) if ignore else [int(scores.argmax())]:
            held.append(Track(id=len(held) + 1, label=label, score=1.0, rles=rles, ignore=ignore))
    return Video(id=name, size=clip.size, frames=list(clip.frames), fps=12.0, tracks=tuple(held))


def _encoded(frames: np.ndarray) -> Sequence[masks.RLE | None]:
    return tuple(code if seen.any() else None for code, seen in zip(masks.encode(frames), frames, strict=True))
