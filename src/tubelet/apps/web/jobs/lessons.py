"""What a model is taught: results become labelled data, of which a part is held out.

Held out are whole videos, if their classes occur in others too, else some frames of each.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tubelet.apps.web import results
from tubelet.apps.web.jobs.trainings import FEWEST_FRAMES, LABELS, LESSONS, check_enough
from tubelet.core.atomic import move
from tubelet.core.errors import ConfigError
from tubelet.core.types import VideoSet
from tubelet.data.sampling import valid_frames
from tubelet.data.tools.splitting import classes_of, stratify, subset
from tubelet.formats import ytvis
from tubelet.formats.registry import open_set
from tubelet.inference.labelling import write_labels
from tubelet.inference.results import VideoPrediction
from tubelet.video.windows import evenly

HELD_OUT = 0.2  # share of the videos, or of the frames of the one
PARTS = 3  # of the frames of one that are held out: what is wrong in its middle alone is measured too
LEAST_PART = 6  # frames: a shorter part says nothing of identities
MOST_FRAMES = 300  # of one video, spread over it: neighbours look alike
NOTES = "notes.json"
Chosen = tuple[VideoPrediction, list[int]]  # a result, and the frames of it that are learned from


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One video to learn from."""

    result: str  # file in the training's folder
    source: str  # the video's file
    name: str
    frames: list[int] | None  # None: all


def write_lessons(folder: Path, threshold: float, classes: Sequence[str], progress: Callable[[int, int], None]) -> None:
    """Write the results as one data set, and two lists of its videos: train.json and val.json.

    Its classes are those of the model, `classes`, and further ones that were seen: what is known stays known.
    """
    lessons = [Lesson(**lesson) for lesson in json.loads((folder / LESSONS).read_text())]
    chosen: list[Chosen] = []
    for done, lesson in enumerate(lessons):
        progress(done, len(lessons))
        if not Path(lesson.source).is_file():
            raise ConfigError(f"{lesson.name} was removed before it could be learned from")
        result = results.read(folder / lesson.result, Path(lesson.source), lesson.name, threshold)
        frames = lesson.frames if lesson.frames is not None else list(range(result.length))
        frames = [frames[n] for n in evenly(len(frames), min(len(frames), MOST_FRAMES))]
        chosen.append((in_classes(_seen(result, frames), classes), frames))

    whole = _can_hold_out(chosen)
    if not whole:
        chosen = _cut_all(chosen)
    written = folder / f"{LABELS}.new"
    shutil.rmtree(written, ignore_errors=True)
    write_labels(written, chosen)
    progress(len(lessons), len(lessons))
    videos = open_set(written)
    held_out, notes = _held_out(videos) if whole else _parts(videos, len(lessons))
    rest = sorted(set(range(len(videos.videos))) - set(held_out))
    shown = sum(len(valid_frames(videos.videos[n])) for n in rest)
    if shown < FEWEST_FRAMES:
        raise ConfigError(f"{shown} frames with an object are too few to learn from: look at {FEWEST_FRAMES} or more")
    for name, numbers in (("train.json", rest), ("val.json", held_out)):
        ytvis.write_set(written / name, subset(videos, numbers), beside=written)
    names = {videos.classes[label] for label in _classes_without(classes_of(videos), held_out)}
    (written / NOTES).write_text(json.dumps({**notes, "new": sorted(names - set(classes))}))
    move(written, folder / LABELS)


def notes_of(folder: Path) -> dict[str, Any]:
    """What is to be said of the labels: what is held out, classes only there, and classes that the model lacks."""
    notes: dict[str, Any] = json.loads((folder / LABELS / NOTES).read_text())
    return notes


def in_classes(prediction: VideoPrediction, classes: Sequence[str]) -> VideoPrediction:
    """A prediction with its labels counted in another list of classes; those that it lacks are added at the end.

    Example:
        >>> from tubelet.apps.web.jobs.lessons import in_classes
        >>> video = tubelet.open_video(np.zeros((1, 48, 64, 3), np.uint8))
        >>> prediction = tubelet.predict(tubelet.load("default", device="cpu"), video)
        >>> in_classes(prediction, ("goat", "cat")).classes[:4]
        ('goat', 'cat', 'person', 'bicycle')
    """
    names = tuple(dict.fromkeys((*classes, *prediction.classes)))
    tracks = tuple(replace(t, label=names.index(prediction.classes[t.label])) for t in prediction.tracks)
    return replace(prediction, tracks=tracks, classes=names)


def _can_hold_out(chosen: Sequence[Chosen]) -> bool:
    """Whether there is a video all of whose classes occur in another one too."""
    names = [_names(prediction, frames) for prediction, frames in chosen]
    return any(group and group <= set().union(*names[:n], *names[n + 1 :]) for n, group in enumerate(names))


def _seen(prediction: VideoPrediction, frames: Sequence[int]) -> VideoPrediction:
    """A prediction with the objects that are in some frames, and their classes alone."""
    tracks = [track for track in prediction.tracks if any(track.rles[t] is not None for t in frames)]
    names = tuple(dict.fromkeys(prediction.classes[track.label] for track in tracks))
    renamed = tuple(replace(t, label=names.index(prediction.classes[t.label])) for t in tracks)
    return replace(prediction, tracks=renamed, classes=names)


def _names(prediction: VideoPrediction, frames: Sequence[int]) -> set[str]:
    """The classes of the objects in some frames."""
    return set(_seen(prediction, frames).classes)


def _cut_all(chosen: Sequence[Chosen]) -> list[Chosen]:
    """First what is learned of each video, then the parts of each that are held out: the last frames of each third."""
    check_enough(sum(len(frames) for _, frames in chosen))
    learned: list[Chosen] = []
    held_out: list[Chosen] = []
    for prediction, frames in chosen:
        left, parts = _cut(frames)
        learned.append((prediction, left))
        for number, part in enumerate(parts, 1):
            held_out.append((replace(prediction, video=f"{prediction.video}, held out {number}"), part))
    return learned + held_out


def _cut(frames: list[int]) -> tuple[list[int], list[list[int]]]:
    """Frames to learn from, and the parts that are held out: one, or three where each has six frames or more."""
    thirds = PARTS if HELD_OUT * len(frames) >= PARTS * LEAST_PART else 1
    borders = [round(len(frames) * n / thirds) for n in range(thirds + 1)]
    learned: list[int] = []
    held_out: list[list[int]] = []
    for start, end in pairwise(borders):
        number = max(round(HELD_OUT * (end - start)), 1) if end - start > 1 else 0
        learned += frames[start : end - number]
        held_out.append(frames[end - number : end])
    return learned, [part for part in held_out if part]


def _parts(videos: VideoSet, count: int) -> tuple[list[int], dict[str, Any]]:
    """Which parts of `count` videos, after these, are held out, and what is to be said of that.

    Raises ConfigError where one of both parts would have no object.
    """
    labels = classes_of(videos)
    learned = frozenset().union(*labels[:count])
    measured = frozenset().union(*labels[count:])
    if not learned or not measured:
        raise ConfigError(
            "no object is seen in the frames that are held out, or in the others: "
            "look at more frames, or take another video too"
        )
    missing = sorted(videos.classes[label] for label in measured - learned)
    which = "the one video" if count == 1 else "each video"
    return list(range(count, len(videos.videos))), {"held_out": f"a fifth of the frames of {which}", "missing": missing}


def _held_out(videos: VideoSet) -> tuple[list[int], dict[str, Any]]:
    """Which videos are held out, of those whose classes occur in another one too; and what is to be said of that."""
    labels = classes_of(videos)
    count = len(videos.videos)
    able = [n for n in range(count) if labels[n] and labels[n] <= _classes_without(labels, [n])]
    number = min(max(round(HELD_OUT * count), 1), count - 1)
    held_out = _keeping_classes(labels, able, number)
    return held_out, {"held_out": f"{len(held_out)} of {count} videos", "missing": []}


def _keeping_classes(labels: Sequence[frozenset[int]], able: Sequence[int], number: int) -> list[int]:
    """Up to `number` of the videos that are `able`, classes in proportion, so that each class stays in another one."""
    wanted = [able[n] for n in stratify([labels[n] for n in able], min(number, len(able)), seed=0)]
    chosen: list[int] = []
    for n in wanted:
        if labels[n] <= _classes_without(labels, [*chosen, n]):
            chosen.append(n)
    return sorted(chosen)


def _classes_without(labels: Sequence[frozenset[int]], left_out: Sequence[int]) -> set[int]:
    """The classes of all videos but some."""
    return {label for n, group in enumerate(labels) if n not in left_out for label in group}
