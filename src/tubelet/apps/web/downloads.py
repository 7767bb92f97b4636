"""Make the files that the page offers for download: the overlay, predictions, masks, a table, labelled data."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from tubelet.core import masks
from tubelet.core.types import VideoSet
from tubelet.formats import davis
from tubelet.formats.ytvis import write_predictions
from tubelet.inference.labelling import write_labels
from tubelet.inference.results import VideoPrediction, render
from tubelet.video.writer import VideoWriter

SEQUENCE = "video"  # the folder in a DAVIS archive


def make(name: str, prediction: VideoPrediction, folder: Path, check: Callable[[], None]) -> Path:
    """Write the file `name` into `folder` and return its path.

    `check` is called between frames or tracks; it may raise to stop the work. Raises KeyError if no download has this
    name.
    """
    path = folder / name
    MAKERS[name](prediction, path, check)
    return path


def make_labels(
    prediction: VideoPrediction, form: str, frames: Collection[int] | None, path: Path, check: Callable[[], None]
) -> None:
    """Write a zip of the result as labelled data: of `frames` alone, if given.

    Raises ConfigError if there is no frame.
    """
    folder = path.with_name("labels")
    write_labels(folder, [(prediction, frames)], to=form)
    _zip(folder, path, check)


def _overlay(prediction: VideoPrediction, path: Path, check: Callable[[], None]) -> None:
    source = prediction.source
    with VideoWriter(path, prediction.size, source.fps, pixel_aspect=source.pixel_aspect) as writer:
        for frame in prediction.frames():
            check()
            writer.write(render(frame), frame.time)


def _predictions(prediction: VideoPrediction, path: Path, check: Callable[[], None]) -> None:
    write_predictions(path, [prediction])


def _davis(prediction: VideoPrediction, path: Path, check: Callable[[], None]) -> None:
    """Write a zip of the label maps Annotations/video/00000.png ... and objects.csv, the track of each pixel value."""
    tracks = tuple(replace(track, id=value) for value, track in enumerate(prediction.tracks, start=1))
    video = replace(prediction.source, id=SEQUENCE, tracks=tracks)

    folder = path.with_name("davis")
    davis.write(folder, VideoSet(videos=(video,), classes=prediction.classes), frames=False)
    check()

    with (folder / "objects.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["value", "track", "class", "score"])
        for value, track in enumerate(prediction.tracks, start=1):
            name = prediction.classes[track.label]
            writer.writerow([value, track.id, name, f"{track.score:.4f}"])

    _zip(folder, path, check)


def _zip(folder: Path, path: Path, check: Callable[[], None]) -> None:
    files = sorted(entry for entry in folder.rglob("*") if entry.is_file())
    with zipfile.ZipFile(path, "w") as archive:
        for file_path in files:
            check()
            is_image = file_path.suffix in (".jpg", ".png")  # compressed already
            method = zipfile.ZIP_STORED if is_image else zipfile.ZIP_DEFLATED
            archive.write(file_path, file_path.relative_to(folder).as_posix(), method)


def _table(prediction: VideoPrediction, path: Path, check: Callable[[], None]) -> None:
    """Write one row per object and frame; pixels, seconds."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["track", "class", "score", "frame", "time", "x", "y", "width", "height", "area"])
        for track in prediction.tracks:
            check()
            name = prediction.classes[track.label]
            score = f"{track.score:.4f}"
            rles = {t: rle for t, rle in enumerate(track.rles) if rle is not None}
            boxes = masks.boxes(list(rles.values()))
            areas = masks.areas(list(rles.values()))

            for t, box, area in zip(rles, boxes, areas, strict=True):
                time = f"{prediction.source.time(t):.4f}"
                x, y, right, bottom = np.rint(box).astype(int).tolist()
                writer.writerow([track.id, name, score, t, time, x, y, right - x, bottom - y, int(area)])


MAKERS: dict[str, Callable[[VideoPrediction, Path, Callable[[], None]], None]] = {
    "overlay.mp4": _overlay,
    "predictions.json": _predictions,
    "davis.zip": _davis,
    "tracks.csv": _table,
}
