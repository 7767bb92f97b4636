"""Open a stored result again, with or without its video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

from tubelet.core.errors import ConfigError, InputError
from tubelet.core.records import Prediction
from tubelet.formats import ytvis
from tubelet.formats.results_files import results_in

if TYPE_CHECKING:
    from tubelet.inference.predict import Stored
    from tubelet.inference.results import VideoPrediction


@overload
def open_prediction(path: str | Path, source: None = None, *, video: str | None = None) -> Prediction: ...


@overload
def open_prediction(path: str | Path, source: Stored, *, video: str | None = None) -> VideoPrediction: ...


def open_prediction(path: str | Path, source: Stored | None = None, *, video: str | None = None) -> Prediction:
    """Open a result that was saved: a file of predictions, or a folder with predictions.json or .jsonl.

    Args:
        path: The file or folder.
        source: The video, to look at frames and to draw: whatever `tubelet.open_video` takes.
        video: Which video of the file, by name, if it has several.

    Returns:
        A `VideoPrediction` if there is a source, else a `Prediction`: tracks, but neither frames nor times.

    Raises:
        InputError: if a file cannot be read, or if the source is another video: of another size or length.
        FormatError: if the file is no file of predictions.
        ConfigError: if it has several videos and `video` names none of them.

    Example:
        >>> import tempfile
        >>> frames = np.zeros((2, 48, 64, 3), np.uint8)
        >>> prediction = tubelet.predict(tubelet.load("default", device="cpu"), frames)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     prediction.save(folder)
        ...     tubelet.open_prediction(folder, frames)
        VideoPrediction(video='video', size=(48, 64), frames=2, tracks=[])
    """
    file = results_in(Path(path)) if Path(path).is_dir() else Path(path)
    tables = ytvis.read_tables(file)
    predictions = [
        replace(prediction, video=name)  # in these tables a video is known by its number
        for prediction, name in zip(ytvis.read_predictions(file, tables), tables.names, strict=True)
    ]
    prediction = _chosen(predictions, video, file)
    return prediction if source is None else _on(prediction, source, file)


def _chosen(predictions: list[Prediction], video: str | None, file: Path) -> Prediction:
    names = [prediction.video for prediction in predictions]
    if video is None and len(predictions) == 1:
        return predictions[0]
    if video in names:
        return predictions[names.index(video)]
    asked = "which one?" if video is None else f"got {video!r}"
    raise ConfigError(f"{file}: expected one of its videos, {', '.join(names[:5])}; {asked}")


def _on(prediction: Prediction, source: Stored, file: Path) -> VideoPrediction:
    from tubelet.inference.results import VideoPrediction
    from tubelet.video.reader import open_video

    opened = open_video(source)
    stored = (*prediction.size, prediction.length)
    if (*opened.size, len(opened)) != stored:
        shape = "{}x{} pixels (height, width) and {} frames"
        expected = f"{file}: a result of {shape.format(*stored)}"
        raise InputError(f"{expected}; {opened.id} has {shape.format(*opened.size, len(opened))}")

    return VideoPrediction(
        video=prediction.video,
        size=prediction.size,
        length=prediction.length,
        tracks=prediction.tracks,
        classes=prediction.classes,
        shots=prediction.shots,
        source=opened,
    )
