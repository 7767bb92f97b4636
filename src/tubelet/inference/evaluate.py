"""Evaluate a model: predict every video of a data set and measure the predictions against its truth."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from tubelet.core.arguments import class_labels, fraction
from tubelet.core.atomic import check_folder, together
from tubelet.core.errors import InputError
from tubelet.core.protocol import Window, check_model, check_window
from tubelet.core.text import to_json
from tubelet.core.types import Prediction, Track, Video, VideoSet
from tubelet.core.untrusted.files import as_path
from tubelet.evaluation import measures
from tubelet.formats import registry, ytvis
from tubelet.formats.correspondence import correspondence
from tubelet.inference.predict import Model, predict
from tubelet.inference.results import PREDICTIONS, ProgressCallback

METRICS = "metrics.json"


def evaluate(
    model: Model,
    truth: str | Path | VideoSet,
    *,
    metrics: Sequence[str] = ("ap",),
    window: Window | None = None,
    views: int | None = None,
    top: int | None = None,
    threshold: float = 0.0,
    cuts: bool = True,
    classes: Collection[str] | None = None,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, float]:
    """Predict all videos of a data set and return the numbers of `metrics`, as fractions.

    Args:
        model: From `tubelet.load`. Its classes may be another data set's if the map is certain; classes that
            the truth does not have are dropped.
        truth: An annotated data set: a path in any form that `tubelet data convert` reads, or a VideoSet.
        metrics: Names out of `evaluation.measures.METRICS`: "ap", "jf", "identity", "overall", "mot".
        window, views, top, cuts: As in `tubelet.predict`; `top` is what benchmarks take.
        threshold: Leave out tracks with a lower score. AP wants all of them.
        classes: Measure these classes of the truth alone.
        out: A folder for predictions.json (YouTube-VIS results) and metrics.json.
        progress: Called as `progress(videos done, videos)`.

    Raises:
        InputError: if the truth cannot be read, is empty or has no annotated object.
        ConfigError: for an unknown metric or class, or classes that cannot be mapped.

    Example:
        >>> from tubelet.synthetic.config import Synthetic
        >>> from tubelet.synthetic.generator import generate
        >>> model = tubelet.load("default", device="cpu")
        >>> world = Synthetic(height=48, width=64, frames=2, classes=("cat", "car"))
        >>> numbers = tubelet.evaluate(model, generate(world, seed=0, videos=1))
        >>> list(numbers)
        ['AP', 'AP50', 'AP75', 'AR1', 'AR10']
    """
    check_model(model)
    check_window(window)
    measures.check(metrics)
    fraction("threshold", threshold)
    folder = None if out is None else as_path(out, "the folder of results")
    if folder is not None:
        check_folder(folder)

    videos = truth if isinstance(truth, VideoSet) else registry.open_set(truth)
    require_truth(videos, "the truth" if isinstance(truth, VideoSet) else str(truth))
    names = correspondence(model.classes, videos.classes)
    if classes is not None:
        class_labels(classes, videos.classes)
        names = {ours: theirs for ours, theirs in names.items() if theirs in classes}

    predictions: list[Prediction] = []
    annotated: list[Video] = []
    for video in videos.videos:
        prediction = predict(
            model,
            video,
            window=window,
            views=views or 1,
            top=top,
            threshold=threshold,
            cuts=cuts,
            classes=None if classes is None else tuple(names),
        )
        predictions.append(in_classes(prediction, videos.classes, names))
        annotated.append(of_classes(video, classes, videos.classes))
        if progress is not None:
            progress(len(predictions), len(videos.videos))

    numbers = measures.measure(annotated, predictions, metrics)
    if folder is not None:
        save(folder, replace(videos, videos=annotated), predictions, numbers)
    return numbers


def require_truth(videos: VideoSet, name: str) -> None:
    """Raise InputError, which begins with `name`, unless the set has an annotated object.

    Stops at the first one, so a large set is not read through.

    Example:
        >>> from tubelet.inference.evaluate import require_truth
        >>> require_truth(tubelet.core.types.VideoSet(videos=[], classes=("dog",)), "val.json")
        Traceback (most recent call last):
        tubelet.core.errors.InputError: val.json: expected annotated videos, found none
    """
    if not len(videos.videos):
        raise InputError(f"{name}: expected annotated videos, found none")
    if videos.videos[0].tracks is None:
        raise InputError(
            f"{name}: its annotations are kept back, so nothing can be measured here; "
            "`tubelet predict` predicts it, `tubelet submission` packs the predictions for a server"
        )
    if not any(not track.ignore for video in videos.videos for track in video.tracks or ()):
        raise InputError(f"{name}: none of its {len(videos.videos)} videos has an annotated object")


def of_classes(video: Video, names: Collection[str] | None, classes: tuple[str, ...]) -> Video:
    """The video with the true tracks of these classes alone; None: all. `classes` names the labels.

    Example:
        >>> from tubelet.inference.evaluate import of_classes
        >>> track = tubelet.Track(id=0, label=1, score=1.0, rles=(None,))
        >>> video = tubelet.Video(id="1", size=(4, 4), frames=[None], tracks=(track,))
        >>> of_classes(video, ["cat"], ("cat", "dog")).tracks
        ()
    """
    if names is None or video.tracks is None:
        return video
    labels = class_labels(names, classes)
    return replace(video, tracks=tuple(track for track in video.tracks if track.label in labels))


def in_classes(prediction: Prediction, classes: tuple[str, ...], names: dict[str, str]) -> Prediction:
    """Rename a prediction's classes by `names` into those of the truth; tracks of other classes are dropped.

    Example:
        >>> from tubelet.inference.evaluate import in_classes
        >>> track = tubelet.Track(id=0, label=1, score=0.9, rles=(None,))
        >>> prediction = tubelet.Prediction(
        ...     video="1", size=(4, 4), length=1, tracks=(track,), classes=("cat", "dog")
        ... )
        >>> in_classes(prediction, ("Dog", "Fox"), {"dog": "Dog"}).tracks[0].label
        0
    """
    labels = {n: classes.index(names[name]) for n, name in enumerate(prediction.classes) if name in names}
    tracks: list[Track] = [
        replace(track, label=labels[track.label]) for track in prediction.tracks if track.label in labels
    ]
    return Prediction(
        video=prediction.video,
        size=prediction.size,
        length=prediction.length,
        tracks=tuple(tracks),
        classes=classes,
        shots=prediction.shots,
    )


def save(folder: Path, truth: VideoSet, predictions: Sequence[Prediction], numbers: dict[str, float]) -> None:
    """Write predictions.json, a YouTube-VIS result list with the ids of `truth`, and metrics.json: both or neither."""
    with together(folder) as scratch:
        ytvis.write_results(scratch / PREDICTIONS, predictions, truth)
        (scratch / METRICS).write_text(to_json(numbers, indent=1) + "\n", encoding="utf-8")
