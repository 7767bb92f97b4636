"""Results as labelled data to train on: what a person has seen and found right, or mended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tubelet.core.arguments import whole_between
from tubelet.core.errors import ConfigError
from tubelet.core.records import Track, Video, VideoSet
from tubelet.formats.registry import write_set
from tubelet.formats.storing import Omissions
from tubelet.inference.results import VideoPrediction
from tubelet.video.trimming import picked


def labelled(prediction: VideoPrediction, frames: Collection[int] | None = None) -> Video:
    """The video of a result, with the result's tracks as its truth; of `frames` alone, if given.

    Raises ConfigError if there is no frame, or one that the video has not.

    Example:
        >>> from tubelet.inference.labelling import labelled
        >>> prediction = tubelet.predict(tubelet.load("default", device="cpu"), np.zeros((3, 48, 64, 3), np.uint8))
        >>> labelled(prediction, [0, 2])
        Video(id='video', size=(48, 64), frames=2, fps=25, tracks=0)
    """
    tracks = tuple(replace(track, score=1.0, name="", video_times=None) for track in prediction.tracks)
    video = replace(prediction.source, id=prediction.video, tracks=tracks)
    if frames is None:
        return video

    numbers = sorted({whole_between("a frame", t, 0, prediction.length - 1) for t in frames})
    if not numbers:
        raise ConfigError(f"{prediction.video}: no frame of it has been looked at; label all frames, or see some first")
    some = picked(video, numbers)
    return replace(some, tracks=tuple(track for track in some.tracks or () if len(track.frames)))


def write_labels(
    out: str | Path,
    results: Iterable[tuple[VideoPrediction, Collection[int] | None]],
    *,
    to: str = "ytvis",
) -> Omissions:
    """Write results as one data set into a new folder.

    Args:
        out: The folder.
        results: Each with the frames to export, None for all.
        to: A form of data that `tubelet data convert` writes.

    Returns:
        What the form cannot store.

    Raises:
        ConfigError: for an unknown form, for two results of one name, or if a result has no such frames.
        InputError: if the folder exists and is not empty.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.registry import open_set
        >>> from tubelet.inference.labelling import write_labels
        >>> prediction = tubelet.predict(tubelet.load("default", device="cpu"), np.zeros((3, 48, 64, 3), np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_labels(Path(folder, "set"), [(prediction, [0, 2])])
        ...     open_set(Path(folder, "set")).videos[0]
        Video(id='1', size=(48, 64), frames=2, fps=25, tracks=0)
    """
    chosen = list(results)
    names = [prediction.video for prediction, _ in chosen]
    if len(set(names)) < len(names):
        raise ConfigError(f"two results are of videos called {max(names, key=names.count)!r}")

    classes = tuple(dict.fromkeys(name for prediction, _ in chosen for name in prediction.classes))
    videos = [_relabelled(labelled(prediction, frames), prediction.classes, classes) for prediction, frames in chosen]
    return write_set(out, VideoSet(videos=videos, classes=classes), to=to)


def _relabelled(video: Video, own: Sequence[str], all_classes: Sequence[str]) -> Video:
    tracks: tuple[Track, ...] = video.tracks or ()
    return replace(video, tracks=tuple(replace(t, label=all_classes.index(own[t.label])) for t in tracks))
