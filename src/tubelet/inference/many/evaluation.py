"""Predict the videos of a data set for its evaluation: one file of results a video, written as it is finished.

A folder of an evaluation contains

    settings.json       the model, the truth and all options that decide the predictions
    videos/             <number>-<id>.json: the results of each finished video
    predictions.json    the results of all videos, once all are finished
    metrics.json        the numbers

A file of results appears whole or not at all, so a killed evaluation loses the video it was at. The numbers are
measured on what the files contain: those of an evaluation that was killed and resumed are the same to the last bit.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tubelet.core.arguments import class_labels
from tubelet.core.atomic import check_folder, replacing, sweep
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.text import to_json
from tubelet.core.types import Prediction, Video, VideoSet
from tubelet.core.untrusted.documents import read_json
from tubelet.evaluation.measures import measure
from tubelet.formats import ytvis
from tubelet.formats.contents import digest
from tubelet.formats.correspondence import correspondence
from tubelet.inference.evaluate import in_classes, of_classes, save
from tubelet.inference.many.batch import (
    OpenModel,
    Settings,
    VideoJob,
    VideoOutcome,
    attempt,
    opened_set,
    predict_as,
    settle,
)
from tubelet.inference.predict import Model

SETTINGS, VIDEOS = "settings.json", "videos"
OutcomesOf = Callable[[Sequence[VideoJob]], Iterator[VideoOutcome]]
LONGEST_ID = 60  # characters of a video's id in its file's name


def jobs_of_set(path: Path, form: str | None = None, frames: Path | None = None) -> list[VideoJob]:
    """One job for each video of a data set, in its order, named by number and id."""
    opened_set.cache_clear()  # the file may have changed since this process read it
    videos = opened_set(str(path.absolute()), form, None if frames is None else str(frames.absolute())).videos
    return [
        VideoJob(
            source=str(path.absolute()),
            name=f"{number + 1:05d}-{_safe(video.id)}",
            number=number,
            form=form,
            frames=None if frames is None else str(frames.absolute()),
        )
        for number, video in enumerate(videos)
    ]


def evaluate_jobs(
    jobs: Sequence[VideoJob],
    folder: Path,
    settings: Settings,
    outcomes_of: OutcomesOf,
    *,
    metrics: Sequence[str] = ("ap",),
    resume: bool = False,
    tell: Callable[[VideoOutcome], None] | None = None,
) -> dict[str, float]:
    """Predict the videos that are not predicted yet, measure all, write predictions.json and metrics.json.

    Args:
        jobs: All videos of one data set, from `jobs_of_set`.
        folder: Of the evaluation.
        settings: How videos are predicted.
        outcomes_of: Predicts the videos it is given by `predict_for_evaluation`, in any order.
        metrics: Names out of `evaluation.measures.METRICS`.
        resume: Go on with what the folder contains; else it must contain no evaluation.
        tell: Called with each outcome.

    Raises InputError if a video cannot be predicted, because the numbers without it would be wrong.
    """
    described = settings.model_dump(mode="json", exclude={"video", "overlay", "counting"})
    begin(folder, described | {"truth": digest(Path(jobs[0].source))}, resume=resume)

    for job in jobs:
        _fresh(job, folder)
    left = [job for job in jobs if not path_of(job, folder).is_file()]
    failed = 0
    for outcome in outcomes_of(left):
        failed += outcome.status == "failed"
        if tell is not None:
            tell(outcome)
    if failed:
        videos = f"{failed} of {len(jobs)} videos cannot be predicted"
        raise InputError(f"{videos}, so nothing is measured; what is finished is kept, --resume tries the others again")

    truth, predictions = read_finished(jobs, folder)
    annotated = [of_classes(video, settings.classes, truth.classes) for video in truth.videos]
    numbers = measure(annotated, predictions, metrics)
    save(folder, truth, predictions, numbers)
    return numbers


def in_this_process(
    jobs: Sequence[VideoJob], open_model: OpenModel, folder: Path, settings: Settings, device: str
) -> Generator[VideoOutcome, None, None]:
    """Predict videos one after another here; the model is opened once, and only if there is a video to predict."""
    if not jobs:
        return
    settle(settings)
    model = open_model(device)
    for job in jobs:
        yield predict_for_evaluation(model, job, folder, settings)


def begin(folder: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Make a folder ready for an evaluation, or check that it can be resumed there.

    Raises:
        InputError: if there is an evaluation already and `resume` is false.
        ConfigError: if it was made with other settings; names the first that differs.
    """
    check_folder(folder)
    check_folder(folder / VIDEOS)
    path = folder / SETTINGS
    if not path.exists():
        if any(folder.glob(f"{VIDEOS}/*.json")):
            raise InputError(f"{folder / VIDEOS}: holds results of unknown settings; choose another folder")
        with replacing(path) as temporary:
            temporary.write_text(to_json(settings, indent=1) + "\n", encoding="utf-8")
        return

    if not resume:
        raise InputError(f"{folder}: there is an evaluation already; --resume goes on with it")
    before = read_json(path)
    for name, value in settings.items():
        was = before.get(name) if isinstance(before, dict) else None
        if was != value:
            raise ConfigError(f"{_difference(name, was, value)} ({path}): resume as before, or choose another folder")


def _difference(name: str, before: Any, now: Any) -> str:
    if name in ("model", "truth"):
        return f"this evaluation began with another {name}"
    return f"{name} was {to_json(before)} when this evaluation began, now it is {to_json(now)}"


def count_finished(jobs: Sequence[VideoJob], folder: Path) -> int:
    """How many of the videos have results."""
    return sum(path_of(job, folder).is_file() for job in jobs)


def path_of(job: VideoJob, folder: Path) -> Path:
    """Where the results of a video are written."""
    return folder / VIDEOS / f"{job.name}.json"


def predict_for_evaluation(model: Model, job: VideoJob, folder: Path, settings: Settings) -> VideoOutcome:
    """Predict one video of a data set and write its results, in the classes of the set.

    Errors become a failed outcome; ConfigError is raised: it is the same for every video.
    """
    path = path_of(job, folder)

    def make() -> VideoOutcome:
        sweep(path.parent)  # scratch of a worker that was killed
        truth = _set_of(job)
        names = _names(tuple(model.classes), truth.classes)
        if settings.classes is not None:  # names of the truth
            class_labels(settings.classes, truth.classes)
            names = {ours: theirs for ours, theirs in names.items() if theirs in settings.classes}
        ours = None if settings.classes is None else tuple(names)
        prediction = predict_as(settings.but(classes=ours), model, job.video())
        known = in_classes(prediction, truth.classes, names)
        ytvis.write_results(path, [known], truth)
        return VideoOutcome(
            video=job.title, folder=job.name, status="done", objects=len(known.tracks), frames=known.length
        )

    return attempt(job, _tries(job, folder), make)


def _tries(job: VideoJob, folder: Path) -> Path:
    return path_of(job, folder).with_suffix(".tries")


def _fresh(job: VideoJob, folder: Path) -> None:
    """Forget how often earlier runs have tried a video."""
    with suppress(OSError):  # what cannot be removed counts
        _tries(job, folder).unlink(missing_ok=True)


def read_finished(jobs: Sequence[VideoJob], folder: Path) -> tuple[VideoSet, list[Prediction]]:
    """The truth and the written predictions of all jobs, in their order.

    Raises FormatError if a file is damaged.
    """
    predictions: list[Prediction] = []
    videos: list[Video] = []
    truth = opened_set(jobs[0].source, jobs[0].form, jobs[0].frames)
    for job in jobs:
        only = _set_of(job)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a video without predictions is no surprise here
            predictions += ytvis.read_predictions(path_of(job, folder), only)
        videos += only.videos
    return replace(truth, videos=tuple(videos)), predictions


def _set_of(job: VideoJob) -> VideoSet:
    """The data set, with the one video of this job."""
    truth = opened_set(job.source, job.form, job.frames)
    return replace(truth, videos=(job.video(),))


@lru_cache(maxsize=4)
def _names(source: tuple[str, ...], target: tuple[str, ...]) -> dict[str, str]:
    return correspondence(source, target)


def _safe(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name)[-LONGEST_ID:] or "_"
