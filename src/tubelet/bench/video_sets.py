"""The two data sets of `tubelet bench vis`: generated videos in grades of difficulty, and videos made of real images.

Each grade is the plain world with one difficulty added. The pasted set has real objects on real backgrounds, cut from
the images of a COCO folder; held-out images appear only in the test videos, as neither background nor object of the
training. Both sets depend on the numbers in this file alone (and on the images).
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
from tubelet.data.transforms import AnyTransform
from tubelet.formats.classes import translate
from tubelet.formats.lazy import JoinedVideos, LazyVideos, MappedVideos
from tubelet.recipes.small import HEIGHT, PLAIN, WIDTH
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate

SplitName = Literal["train", "test"]
SEEDS: dict[SplitName, int] = {"train": 2000, "test": 9000}  # of the first grade and of the pasted set; others count on
GRADES: dict[str, Synthetic] = {
    "plain": PLAIN,
    "look-alikes": PLAIN.but(look_alikes=1, objects=(2, 3)),  # two of the same look cross
    "occlusion": PLAIN.but(occluders=(2, 4), objects=(2, 3)),  # posts, bushes and each other
    "re-entry": PLAIN.but(leaving=1, frames=24),  # every object leaves the frame and comes back
    "blur": PLAIN.but(shakes=0.5, shake_blur=2.5),  # up to half of the frames are blurred
    "deformation": PLAIN.but(deformation=0.4),  # bodies bend far
    "camera": PLAIN.but(camera=1),  # the camera pans, zooms and rolls as far as it can
}

# classes of the pasted set: few enough for small systems to learn, common enough to be in any subset of COCO
GROUPS: dict[str, tuple[str, ...]] = {
    "person": ("person",),
    "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    "vehicle": ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
}
MOTION = (
    Geometry(steps=(PseudoMotion(), RandomScaleCrop(height=HEIGHT, width=WIDTH, zoom=(0.8, 1.6)), HorizontalFlip())),
    PasteObjects(count=(1, 3), size=(0.2, 0.5), travel=0.5),
)
LEAST_SHARE = 0.02  # of the image: smaller objects are ignored, like those of other classes
MOST_OBJECTS = 4  # in one image, ignored ones included: crowded images are left out


def generated(part: SplitName, each: int) -> VideoSet:
    """Generate `each` videos of every grade, in the order of `GRADES`; ids are `<grade>-<number>`.

    >>> from tubelet.bench.video_sets import generated
    >>> videos = generated("test", each=2)
    >>> len(videos.videos), videos.videos[2].id
    (14, 'look-alikes-00000')
    """
    grades = []
    for n, (grade, config) in enumerate(GRADES.items()):
        videos = generate(config, SEEDS[part] + n, each).videos
        grades.append(MappedVideos(videos, partial(_prefix_id, grade)))
    return VideoSet(videos=JoinedVideos(*grades), classes=PLAIN.classes)


def grade_of(video: str) -> str:
    """The grade of a video, from its id; raises ValueError for an id of another set.

    >>> from tubelet.bench.video_sets import grade_of
    >>> grade_of("look-alikes-00003")
    'look-alikes'
    """
    grade = video.rpartition("-")[0]
    if grade not in GRADES:
        raise ValueError(f"no grade in the id {video!r}")
    return grade


def _prefix_id(grade: str, video: Video) -> Video:
    return replace(video, id=f"{grade}-{video.id}")


def pasted(images: VideoSet, part: SplitName, videos: int) -> VideoSet:
    """Make `videos` videos from COCO images (`coco.read`) of this part; ids are `pasted-<number>`.

    Each shows one image as by a moving camera, with objects of other images passing in front of or behind its own.
    Raises InputError if no image has an object of a class in `GROUPS`.

    >>> from tubelet.core import masks
    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.bench.video_sets import pasted
    >>> mask = np.zeros((1, 60, 80), bool)
    >>> mask[0, 20:40, 20:60] = True
    >>> cat = tubelet.Track(id=1, label=0, score=1.0, rles=tuple(masks.encode(mask)))
    >>> frame = torch.zeros(3, 60, 80, dtype=torch.uint8)
    >>> image = tubelet.Video(id="image", size=(60, 80), frames=[frame], tracks=(cat,))
    >>> videos = pasted(VideoSet(videos=[image], classes=("cat",)), "test", videos=3)
    >>> len(videos.videos), videos.classes
    (3, ('person', 'animal', 'vehicle'))
    """
    known = set(images.classes)
    names = {name: group for group, members in GROUPS.items() for name in members if name in known}
    grouped = translate(images, tuple(GROUPS), names)
    grouped = replace(grouped, videos=MappedVideos(grouped.videos, _ignore_small))

    useful = [n for n, video in enumerate(grouped.videos) if _useful(video.tracks or ())]
    if not useful:
        raise InputError(f"expected images with an object of {', '.join(names) or 'COCO classes'}, found none")

    sources = replace(grouped, videos=[grouped.videos[n] for n in useful])
    return VideoSet(videos=PastedVideos(sources, SEEDS[part], range(videos)), classes=sources.classes)


def _useful(tracks: Sequence[Track]) -> bool:
    return len(tracks) <= MOST_OBJECTS and any(not track.ignore for track in tracks)


def _ignore_small(video: Video) -> Video:
    """Mark the objects of an image that cover less than `LEAST_SHARE` of it as ignored."""
    least_area = LEAST_SHARE * video.size[0] * video.size[1]
    tracks = []
    for track in video.tracks or ():
        rle = track.rles[0]
        is_small = rle is None or masks.areas([rle])[0] < least_area
        tracks.append(replace(track, ignore=True) if is_small else track)
    return replace(video, tracks=tuple(tracks))


class PastedVideos(LazyVideos[int]):
    """The videos of `pasted` by number; each is made when it is first read.

    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.bench.video_sets import PastedVideos
    >>> image = tubelet.Video(id="image", size=(60, 80), frames=[None], tracks=())
    >>> len(PastedVideos(VideoSet(videos=[image], classes=("person",)), seed=0, numbers=range(5)))
    5
    """

    cache_size = 256  # writing a set reads it several times

    def __init__(self, sources: VideoSet, seed: int, numbers: range, motion: Sequence[AnyTransform] = MOTION) -> None:
        super().__init__(numbers)
        self.clips = ClipDataset(sources, Repeat(frames=PLAIN.frames), motion, seed, keep_ignored=True)

    def make(self, entry: int) -> Video:
        return _video(f"pasted-{entry:05d}", self.clips[entry])


def _video(name: str, clip: Clip) -> Video:
    assert clip.tracks is not None, "clips of annotated images have truth"
    tracks: list[Track] = []
    for scores, planes in zip(clip.tracks.scores, clip.tracks.binary.numpy(), strict=True):
        rles = _encode(planes)
        ignore = not bool(scores.any())
        # an ignored region counts for every class, but in a file it has one: write it once for each
        labels = range(len(scores)) if ignore else [int(scores.argmax())]
        for label in labels:
            tracks.append(Track(id=len(tracks) + 1, label=label, score=1.0, rles=rles, ignore=ignore))
    return Video(id=name, size=clip.size, frames=list(clip.frames), fps=12.0, tracks=tuple(tracks))


def _encode(planes: np.ndarray) -> Sequence[masks.RLE | None]:
    """Masks of one object, bool [T, H, W]; None where empty."""
    rles = masks.encode(planes)
    return tuple(rle if mask.any() else None for rle, mask in zip(rles, planes, strict=True))
