"""The worker's side of a training: results become labelled data, and the recipe `teach` learns from these.

It is what `tubelet data label`, `data split` and `train teach` do one after the other, in the training's folder; where
there are classes that the model does not know, the recipe is `finetune`, which changes more and forgets more. At the
end both models, before and after, are measured and drawn on what was held out.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tubelet.apps.web.jobs import work
from tubelet.apps.web.jobs.lessons import in_classes, notes_of, write_lessons
from tubelet.apps.web.jobs.own_models import FILE
from tubelet.apps.web.jobs.trainings import LABELS, RUN
from tubelet.core.atomic import move, replacing
from tubelet.core.types import VideoSet
from tubelet.data.tools.splitting import subset
from tubelet.evaluation.measures import measure
from tubelet.formats.registry import open_set
from tubelet.formats.ytvis.numbering import video_names
from tubelet.inference.modes import device_of
from tubelet.inference.predict import Model, predict
from tubelet.inference.results import render
from tubelet.models import weights
from tubelet.recipes import find
from tubelet.recipes.experiment import Experiment
from tubelet.video.windows import evenly

MOST_HELD_OUT = 12  # videos, or parts of some, that are measured
# Decides which weights are best, and whether they are better than those before. The truth's outlines are mostly those
# of the model before, which J&F and AP at high overlaps would therefore always prefer.
METRIC = "overall"
FIGURES = {"AP50": "AP50", "IDF1": "IDF1", "mean": METRIC}  # as the page calls them
PICTURES = 4
PICTURE_WIDTH = 640  # pixels
SHOWN = 0.5  # score of an object that is drawn
SETTINGS = ("train.workers=0", "train.keep=1")  # the worker may have no processes of its own


def teach(model: Model, order: dict[str, Any], check: Callable[[], None], send: work.Send) -> dict[str, Any]:
    """Train from `model`, or go on where that was stopped; the new one is model.safetensors in the training's folder.

    Returns the summary for the page; without a gain on what was held out there is no new model. Raises Stopped once
    `check` does, after a checkpoint.
    """
    folder = Path(order["folder"])
    labels = folder / LABELS
    if labels.is_dir() and "new" not in notes_of(folder):  # begun by an older version, whose recipe was another
        shutil.rmtree(folder / RUN, ignore_errors=True)
        shutil.rmtree(labels)
    if not labels.is_dir():
        write_lessons(folder, order["threshold"], model.classes, work.Pace("labelling", check, send))
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
    return {"summary": {**summary, "gain": gain, **notes_of(folder)}}


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

    name = "finetune" if notes_of(folder)["new"] else "teach"
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
        figures = measure(videos, [in_classes(p, held_out.classes) for p in predictions], [METRIC])
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


def _write_picture(path: Path, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    if width > PICTURE_WIDTH:
        size = (PICTURE_WIDTH, round(height * PICTURE_WIDTH / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]))
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())
