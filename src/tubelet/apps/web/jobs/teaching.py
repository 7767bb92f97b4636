"""The worker's side of a training: results become labelled data, and the recipe `teach` learns from these.

It is what `tubelet data label`, `data split` and `train teach` do one after the other, in the training's folder; where
there are classes that the model does not know, the recipe is `finetune`, which changes more and forgets more. A
part is held out: whole videos if their classes occur in others too, else some frames of each. At the end both
models, before and after, are measured and drawn on what was held out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tubelet.apps.web import results
from tubelet.apps.web.jobs import work
from tubelet.apps.web.jobs.own_models import FILE
from tubelet.apps.web.jobs.trainings import FEWEST_FRAMES, LABELS, LESSONS, RUN, check_enough
from tubelet.core.atomic import move, replacing
from tubelet.core.errors import ConfigError
from tubelet.core.types import VideoSet
from tubelet.data.sampling import valid_frames
from tubelet.data.tools.splitting import classes_of, stratify, subset
from tubelet.evaluation.measures import measure
from tubelet.formats import ytvis
from tubelet.formats.registry import open_set
from tubelet.formats.ytvis.numbering import video_names
from tubelet.inference.labelling import write_labels
from tubelet.inference.modes import device_of
from tubelet.inference.predict import Model, predict
from tubelet.inference.results import VideoPrediction, render
from tubelet.models import weights
from tubelet.recipes import find
from tubelet.recipes.experiment import Experiment
from tubelet.video.windows import evenly

HELD_OUT = 0.2  # share of the videos, or of the frames of the one
PARTS = 3  # of the frames of one that are held out: what is wrong in its middle alone is measured too
LEAST_PART = 6  # frames: a shorter part says nothing of identities
MOST_FRAMES = 300  # of one video, spread over it: neighbours look alike
MOST_HELD_OUT = 12  # videos, or parts of some, that are measured
# Decides which weights are best, and whether they are better than those before. The truth's outlines are mostly those
# of the model before, which J&F and AP at high overlaps would therefore always prefer.
METRIC = "overall"
FIGURES = {"AP50": "AP50", "IDF1": "IDF1", "mean": METRIC}  # as the page calls them
NOTES = "notes.json"
PICTURES = 4
PICTURE_WIDTH = 640  # pixels
SHOWN = 0.5  # score of an object that is drawn
Chosen = tuple[VideoPrediction, list[int]]  # a result, and the frames of it that are learned from
SETTINGS = ("train.workers=0", "train.keep=1")  # the worker may have no processes of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One video to learn from."""

    result: str  # file in the training's folder
    source: str  # the video's file
    name: str
    frames: list[int] | None  # None: all


def teach(model: Model, order: dict[str, Any], check: Callable[[], None], send: work.Send) -> dict[str, Any]:
    """Train from `model`, or go on where that was stopped; the new one is model.safetensors in the training's folder.

    Returns the summary for the page; without a gain on what was held out there is no new model. Raises Stopped once
    `check` does, after a checkpoint.
    """
    folder = Path(order["folder"])
    labels = folder / LABELS
    if labels.is_dir() and "new" not in _notes(folder):  # begun by an older version, whose recipe was another
        shutil.rmtree(folder / RUN, ignore_errors=True)
        shutil.rmtree(labels)
    if not labels.is_dir():
        _write_labels(folder, order["threshold"], model.classes, work.Pace("labelling", check, send))
    # both by torch: engines round differently, and the truth is mostly what the server's has found
    device = device_of(model)
    before = weights.load(order["init"], device=device, engine="torch")  # now: it may be removed meanwhile
    train(folder, order, device.type, check, send)

    held_out = open_set(labels / "val.json")
    candidates = (folder / FILE, folder / RUN / "best.safetensors", folder / RUN / FILE)  # the first if it ended here
    path = next(path for path in candidates if path.is_file())
    after = weights.load(path, device=device, engine="torch")
    summary = compared(before, after, held_out, folder, work.Pace("comparing", check, send))
    gain = has_gained(summary)
    if gain and path != folder / FILE:
        move(path, folder / FILE)
    return {"summary": {**summary, "gain": gain, **_notes(folder)}}


def has_gained(summary: dict[str, Any]) -> bool:
    """Whether the new model is better on what was held out, by the figure that also chose its weights."""
    return bool(summary["after"]["mean"] > summary["before"]["mean"])


def train(folder: Path, order: dict[str, Any], device: str, check: Callable[[], None], send: work.Send) -> None:
    """Run the recipe, from its latest checkpoint if there is one."""
    pace = work.Pace("training", lambda: None, send)

    def watch(done: int, total: int) -> bool:
        pace(done, total)
        try:
            check()
        except work.Stopped:
            return False
        return True

    name = "finetune" if _notes(folder)["new"] else "teach"
    recipe = _recipe(name, folder / LABELS, order["init"], order["steps"])
    outcome = recipe.run(folder / RUN, resume=True, device=device, quiet=True, name=name, watch=watch)
    if not outcome.finished:
        raise work.Stopped


def compared(
    before: Model, after: Model, held_out: VideoSet, folder: Path, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Figures of both models on what was held out, and pictures of a few of its frames by both."""
    held_out = subset(held_out, evenly(len(held_out.videos), MOST_HELD_OUT))
    videos = held_out.videos
    frames = [(n, t) for n, video in enumerate(videos) for t in evenly(len(video), -(-PICTURES // len(videos)))]
    frames = [frames[n] for n in evenly(len(frames), PICTURES)]
    names = video_names(held_out)
    summary: dict[str, Any] = {"pictures": [f"{names[n]}, frame {t}" for n, t in frames]}

    for side, (name, model) in enumerate({"before": before, "after": after}.items()):
        predictions = []
        for done, video in enumerate(videos):
            progress(side * len(videos) + done, 2 * len(videos))
            predictions.append(predict(model, video, threshold=0.05))
        figures = measure(videos, [_in_classes(p, held_out.classes) for p in predictions], [METRIC])
        summary[name] = {shown: round(figures[figure], 4) for shown, figure in FIGURES.items()}
        for number, (n, t) in enumerate(frames):
            picture = render(predictions[n].above(SHOWN).at(t))
            _write_picture(folder / f"{name}-{number}.jpg", picture)
    return summary


def _recipe(name: str, labels: Path, init: str, steps: int) -> Experiment:
    return find(name).override(
        f"data.annotations={labels / 'train.json'}",
        f"data.validation={labels / 'val.json'}",
        f"init={init}",
        f"train.iterations={steps}",
        *SETTINGS,
        f"train.log_every={max(steps // 100, 1)}",
        f"train.checkpoint_every={max(steps // 10, 1)}",
        f"optim.warmup={min(max(steps // 10, 1), 50)}",
        f"validation.every={max(steps // 4, 1)}",
        f"validation.videos={MOST_HELD_OUT}",
        f'validation.metrics=["{METRIC}"]',
    )


def _write_labels(folder: Path, threshold: float, classes: Sequence[str], progress: Callable[[int, int], None]) -> None:
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
        chosen.append((_in_classes(_seen(result, frames), classes), frames))

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


def _notes(folder: Path) -> dict[str, Any]:
    """What is to be said of the labels: what is held out, classes only there, and classes that the model lacks."""
    notes: dict[str, Any] = json.loads((folder / LABELS / NOTES).read_text())
    return notes


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


def _in_classes(prediction: VideoPrediction, classes: Sequence[str]) -> VideoPrediction:
    """A prediction with its labels counted in another list of classes; those that it lacks are added at the end."""
    names = tuple(dict.fromkeys((*classes, *prediction.classes)))
    tracks = tuple(replace(t, label=names.index(prediction.classes[t.label])) for t in prediction.tracks)
    return replace(prediction, tracks=tracks, classes=names)


def _write_picture(path: Path, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    if width > PICTURE_WIDTH:
        size = (PICTURE_WIDTH, round(height * PICTURE_WIDTH / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]))
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())
