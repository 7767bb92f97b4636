"""The worker's side of a training: results become labelled data, and the recipe `finetune` learns from these.

It is what `tubelet data label`, `data split` and `train finetune` do one after the other, in the training's folder. A
part is held out: whole videos if their classes occur in others too, else the last frames of each. At the end both
models, before and after, are measured and drawn on what was held out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
MOST_FRAMES = 300  # of one video, spread over it: neighbours look alike
MOST_HELD_OUT = 8  # videos that are measured
METRICS = ("ap", "jf", "identity")
FIGURES = ("AP", "J&F", "IDF1")
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
    return {"summary": {**summary, "gain": gain, **json.loads((labels / "notes.json").read_text())}}


def has_gained(summary: dict[str, Any]) -> bool:
    """Whether the new model is better on what was held out, by the figure that also chose its weights."""
    return bool(summary["after"]["AP"] > summary["before"]["AP"])


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

    recipe = _recipe(folder / LABELS, order["init"], order["steps"])
    outcome = recipe.run(folder / RUN, resume=True, device=device, quiet=True, name="finetune", watch=watch)
    if not outcome.finished:
        raise work.Stopped


def compared(
    before: Model, after: Model, held_out: VideoSet, folder: Path, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Figures of both models on what was held out, and pictures of a few of its frames by both."""
    videos = held_out.videos[:MOST_HELD_OUT]
    frames = [(n, t) for n, video in enumerate(videos) for t in evenly(len(video), -(-PICTURES // len(videos)))]
    frames = frames[:PICTURES]
    names = video_names(held_out)
    summary: dict[str, Any] = {"pictures": [f"{names[n]}, frame {t}" for n, t in frames]}

    for side, (name, model) in enumerate({"before": before, "after": after}.items()):
        predictions = []
        for done, video in enumerate(videos):
            progress(side * len(videos) + done, 2 * len(videos))
            predictions.append(predict(model, video, threshold=0.05))
        figures = measure(videos, [_in_classes(p, held_out.classes) for p in predictions], METRICS)
        summary[name] = {figure: round(figures[figure], 4) for figure in FIGURES}
        for number, (n, t) in enumerate(frames):
            picture = render(predictions[n].above(SHOWN).at(t))
            _write_picture(folder / f"{name}-{number}.jpg", picture)
    return summary


def _recipe(labels: Path, init: str, steps: int) -> Experiment:
    return find("finetune").override(
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
    )


def _write_labels(folder: Path, threshold: float, classes: Sequence[str], progress: Callable[[int, int], None]) -> None:
    """Write the results as one data set, and two lists of its videos: train.json and val.json.

    Its classes are those of the model, `classes`, and further ones of the results: what is known stays known.
    """
    lessons = [Lesson(**lesson) for lesson in json.loads((folder / LESSONS).read_text())]
    chosen: list[Chosen] = []
    for done, lesson in enumerate(lessons):
        progress(done, len(lessons))
        if not Path(lesson.source).is_file():
            raise ConfigError(f"{lesson.name} was removed before it could be learned from")
        result = results.read(folder / lesson.result, Path(lesson.source), lesson.name, threshold)
        prediction = _in_classes(result, classes)
        frames = lesson.frames if lesson.frames is not None else list(range(prediction.length))
        chosen.append((prediction, [frames[n] for n in evenly(len(frames), min(len(frames), MOST_FRAMES))]))

    whole = _can_hold_out(chosen)
    if not whole:
        chosen = _cut_all(chosen)
    written = folder / f"{LABELS}.new"
    shutil.rmtree(written, ignore_errors=True)
    write_labels(written, chosen)
    progress(len(lessons), len(lessons))
    videos = open_set(written)
    held_out, notes = _held_out(videos) if whole else _last_frames(videos, len(lessons))
    rest = sorted(set(range(len(videos.videos))) - set(held_out))
    shown = sum(len(valid_frames(videos.videos[n])) for n in rest)
    if shown < FEWEST_FRAMES:
        raise ConfigError(f"{shown} frames with an object are too few to learn from: look at {FEWEST_FRAMES} or more")
    for name, numbers in (("train.json", rest), ("val.json", held_out)):
        ytvis.write_set(written / name, subset(videos, numbers), beside=written)
    (written / "notes.json").write_text(json.dumps(notes))
    move(written, folder / LABELS)


def _can_hold_out(chosen: Sequence[Chosen]) -> bool:
    """Whether there is a video all of whose classes occur in another one too."""
    names = [_names(prediction, frames) for prediction, frames in chosen]
    return any(group and group <= set().union(*names[:n], *names[n + 1 :]) for n, group in enumerate(names))


def _names(prediction: VideoPrediction, frames: Sequence[int]) -> set[str]:
    """The classes of the objects in some frames."""
    seen = [track for track in prediction.tracks if any(track.rles[t] is not None for t in frames)]
    return {prediction.classes[track.label] for track in seen}


def _cut_all(chosen: Sequence[Chosen]) -> list[Chosen]:
    """Each video as two: first those parts that are learned from, then the last frames of each, which are held out."""
    check_enough(sum(len(frames) for _, frames in chosen))
    learned: list[Chosen] = []
    held_out: list[Chosen] = []
    for prediction, frames in chosen:
        first = len(frames) - round(HELD_OUT * len(frames))
        if first == len(frames) > 1:
            first -= 1
        learned.append((prediction, frames[:first]))
        if first < len(frames):
            held_out.append((replace(prediction, video=f"{prediction.video}, held out"), frames[first:]))
    return learned + held_out


def _last_frames(videos: VideoSet, count: int) -> tuple[list[int], dict[str, Any]]:
    """The parts of `count` videos that are held out, and what is to be said of that.

    Raises ConfigError where one of both parts would have no object.
    """
    labels = classes_of(videos)
    learned = frozenset().union(*labels[:count])
    last = frozenset().union(*labels[count:])
    if not learned or not last:
        raise ConfigError(
            "no object is seen in the first or in the last of these frames, and the last ones are held out: "
            "look at more frames, or take another video too"
        )
    missing = sorted(videos.classes[label] for label in last - learned)
    which = "the one video" if count == 1 else "each video"
    return list(range(count, len(videos.videos))), {"held_out": f"the last frames of {which}", "missing": missing}


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
