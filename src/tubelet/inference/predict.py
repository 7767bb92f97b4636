"""Run a model on a source: `predict` returns a whole video's tracks, `stream` yields frames as soon as they are final.

Both use one loop: windows of frames go through `model.step`, and the stitcher joins their masks. The model's state is
the only thing that is carried from window to window.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tubelet.core.arguments import fraction, short, whole_between
from tubelet.core.errors import ConfigError
from tubelet.core.protocol import VideoSegmenter, Window, check_model, check_window
from tubelet.core.types import Clip, Frame, Tracks, Video
from tubelet.inference.duplicates import without_duplicates
from tubelet.inference.modes import device_of, evaluating
from tubelet.inference.reading import ShownFrame, WindowStep, listen, read
from tubelet.inference.results import ProgressCallback, VideoPrediction
from tubelet.inference.stitch import Finished, Stitcher
from tubelet.inference.tallies import Ledger, Tallies
from tubelet.inference.test_time_augmentation import several
from tubelet.inference.unknown import UNKNOWN, with_unknown
from tubelet.tracking.shots import ShotConfig
from tubelet.video.reader import LiveVideo, is_live, open_stream, open_video

Model = VideoSegmenter[Any]
Stored = str | Path | np.ndarray | Tensor | Video  # what can be read from beginning to end
Source = Stored | int | LiveVideo  # an int is a camera, a string with :// a stream


def predict(
    model: Model,
    source: Stored,
    *,
    window: Window | None = None,
    threshold: float = 0.5,
    top: int | None = None,
    distinct: float | None = None,
    unknown: float | None = None,
    views: int = 1,
    cuts: bool = True,
    progress: ProgressCallback | None = None,
) -> VideoPrediction:
    """Find, outline, name and follow every object of a video.

    `source` is a path to a video, an image or a folder of images, a uint8 array [T, H, W, 3] or tensor [T, 3, H, W] in
    RGB, or a Video. `window` replaces the model's own way of reading. Tracks whose score (the mean over the frames
    where they appear) is under `threshold` are left out; each object has its best class. `top` asks for what
    benchmarks expect instead: the `top` best (object, class) pairs, best first, whatever their scores; one object may
    appear several times with the same masks and id. `distinct` shows each object once: a track whose overlap with a
    better one (IoU over the video) is larger is left out; None keeps all. Objects whose score is under `unknown` are
    given a further class, "unknown", in place of a doubtful name. `views` is the number of sizes to average
    over (test-time augmentation). With `cuts`, scene cuts are detected: an object continues after a cut only if its
    appearance matches, and `prediction.shots` has the first frame of each shot. Without, the video is one shot.
    `progress(done, total)` is called as frames are finished. Runs on the device of the model's parameters. Raises
    InputError if the source cannot be read, ConfigError if the model does not support test-time augmentation, or for
    `top` with `distinct` or `unknown`.
    """
    threshold = fraction("threshold", threshold)
    top = None if top is None else whole_between("top", top, 1)
    distinct = None if distinct is None else fraction("distinct", distinct)
    unknown = None if unknown is None else fraction("unknown", unknown)
    if top is not None and distinct is not None:
        raise ConfigError("expected top or distinct, got both: benchmarks rank every pair, duplicates too")
    if top is not None and unknown is not None:
        raise ConfigError("expected top or unknown, got both: benchmarks rank every pair, however doubtful")
    check_model(model)
    check_window(window)
    if progress is not None and not callable(progress):
        raise ConfigError(f"progress: expected a function of (done, total), got {short(progress)}")

    model = several(model, views)
    video = open_video(source)
    window = window or model.window
    steps = read(video, window, ShotConfig() if cuts else None)

    ledger = Ledger()
    shots: list[int] = []
    for result in _run(model, steps):
        if result.step is not None and result.step.clip.shot == len(shots):
            shots.append(min(result.step.pictures()))
        if result.tracks is not None:
            ledger.add_window(result.tracks)
        for frame in result.finished:
            ledger.add(frame)
            if progress is not None:
                progress(frame.index + 1, len(video))

    traits = model.traits
    if top is None:
        tracks = ledger.tracks(len(video), vote=traits.vote, min_frames=traits.min_frames)
        if distinct is not None:
            tracks = without_duplicates(tracks, distinct)
    else:
        tracks = ledger.pairs(len(video), top, min_frames=traits.min_frames)

    prediction = VideoPrediction(
        video=video.id,
        size=video.size,
        length=len(video),
        tracks=tracks,
        classes=model.classes,
        shots=tuple(shots) if cuts and not window.spread else (),
        source=video,
    )
    if unknown is not None:
        prediction = with_unknown(prediction, unknown)
    return prediction.above(threshold) if top is None else prediction


def stream(
    model: Model,
    source: Source,
    *,
    window: Window | None = None,
    threshold: float = 0.5,
    unknown: float | None = None,
    views: int = 1,
    cuts: bool = True,
) -> Iterator[Frame]:
    """Yield frames with their objects, each as soon as no later frame can change it, in constant memory.

    `source` is what `predict` takes, a camera's index or a stream's address. Masks and ids are those that `predict`
    gives; scores and classes are a track's mean and vote up to this frame, and only tracks whose mean so far reaches
    `threshold` are shown. `unknown` and `cuts` are as in `predict`; each frame has its `shot`. Raises InputError if
    the source cannot be read, ConfigError if the window needs the whole video.
    """
    threshold = fraction("threshold", threshold)
    unknown = 0.0 if unknown is None else fraction("unknown", unknown)
    check_model(model)
    check_window(window)

    model = several(model, views)
    window = window or model.window
    if window.length is None or window.spread:
        raise ConfigError("this window reads the whole video before its first result: use predict, or a bounded length")

    steps = _steps(source, window, ShotConfig() if cuts else None)
    return _frames(model, steps, threshold, unknown)


def _steps(source: Source, window: Window, cuts: ShotConfig | None) -> Iterator[WindowStep]:
    if isinstance(source, int | str) and is_live(source):
        source = open_stream(source)
    if not isinstance(source, LiveVideo):
        return read(open_video(source), window, cuts)
    if window.context:
        raise ConfigError(f"a live source has no frames elsewhere to read: expected context=0, got {window.context}")
    return listen(source, window, cuts)


class _WindowResult(NamedTuple):
    """One window's tracks and finished frames; the last item only flushes, without step and tracks."""

    step: WindowStep | None
    tracks: Tracks | None
    finished: Iterator[Finished]


def _run(model: Model, steps: Iterator[WindowStep]) -> Iterator[_WindowResult]:
    """The loop: window after window through the model."""
    state = model.start()
    device = device_of(model)
    stitcher: Stitcher | None = None
    for step in steps:
        stitcher = stitcher or Stitcher(step.clip.size, model.traits.average)
        with evaluating(model):
            state, tracks = model.step(state, step.clip.to(device))
        stitcher.add(_checked(tracks, step.clip))
        yield _WindowResult(step, tracks, stitcher.release(step.settled))
    if stitcher is not None:
        yield _WindowResult(None, None, stitcher.rest())


def _frames(model: Model, steps: Iterator[WindowStep], threshold: float, unknown: float) -> Iterator[Frame]:
    """Yield finished frames with the tracks whose mean score so far reaches the threshold."""
    tallies = Tallies()
    pictures: dict[int, ShownFrame] = {}  # of frames that are not finished yet
    for step, tracks, finished in _run(model, steps):
        if step is not None:
            pictures |= step.pictures()
        if tracks is not None and model.traits.vote == "mean":
            tallies.add_window(tracks)
        for frame in finished:
            tallies.add(frame)
            yield _frame(model, frame, pictures.pop(frame.index), tallies, threshold, unknown)


def _frame(
    model: Model, frame: Finished, picture: ShownFrame, tallies: Tallies, threshold: float, unknown: float
) -> Frame:
    classes = (*model.classes, UNKNOWN)
    rows: list[int] = []
    labels: list[int] = []
    scores: list[float] = []
    for row, identity in enumerate(frame.ids.tolist()):
        tally = tallies[identity]
        label, score = tally.verdict(model.traits.vote)
        if score >= threshold and tally.frames >= model.traits.min_frames:
            rows.append(row)
            labels.append(label if score >= unknown else len(model.classes))
            scores.append(score)

    return Frame(
        index=frame.index,
        time=picture.time,
        image=picture.image,
        ids=torch.from_numpy(frame.ids[rows]),
        labels=torch.tensor(labels, dtype=torch.int64),
        scores=torch.tensor(scores, dtype=torch.float32),
        masks=torch.from_numpy(np.ascontiguousarray(frame.masks[rows])),
        boxes=torch.from_numpy(frame.boxes[rows]),
        names=tuple(classes[label] for label in labels),
        shot=picture.shot,
    )


def _checked(tracks: Tracks, clip: Clip) -> Tracks:
    """The tracks. Raises ValueError if they are of frames that were not to be predicted, or repeat an id."""
    key_frames = clip.index[clip.key].tolist()
    if not set(tracks.index.tolist()) <= set(key_frames):  # fewer is fine: the window before may have predicted some
        raise ValueError(f"the model was to predict frames {key_frames} and gave {tracks.index.tolist()}")
    if len(set(tracks.ids.tolist())) != len(tracks):
        raise ValueError(f"the model gave one id to several objects of a window: {tracks.ids.tolist()}")
    return tracks
