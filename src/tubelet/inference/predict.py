"""Run a model on a source: `predict` returns a whole video's tracks, `stream` yields frames as soon as they are final.

Both use one loop: windows of frames go through `model.step`, and the stitcher joins their masks. The model's state is
the only thing that is carried from window to window.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tubelet.core.arguments import fraction, short, whole_between
from tubelet.core.errors import ConfigError, WeightsError
from tubelet.core.polygons import Points
from tubelet.core.protocol import VideoSegmenter, Window, check_model, check_window
from tubelet.core.types import Clip, Frame, Tracks, Video
from tubelet.formats.frame_lines import FrameRecord, frame_lines_path
from tubelet.inference.duplicates import without_duplicates
from tubelet.inference.modes import evaluating
from tubelet.inference.progress import progress_bar
from tubelet.inference.reading import ShownFrame, WindowStep, listen, read
from tubelet.inference.results import ProgressCallback, VideoPrediction
from tubelet.inference.selection import Selection, selection_of
from tubelet.inference.staging import ReadyStep, steps_ahead, steps_of
from tubelet.inference.stitch import Finished, Stitcher
from tubelet.inference.tallies import Ledger, Tallies
from tubelet.inference.test_time_augmentation import several
from tubelet.inference.unknown import UNKNOWN, with_unknown
from tubelet.tracking.shots import ShotConfig
from tubelet.video.ahead import decoded_ahead
from tubelet.video.in_memory import Picture, tensors
from tubelet.video.lasting import open_lasting
from tubelet.video.live import Stamped
from tubelet.video.reader import DEFAULT_FPS, LiveVideo, is_live, open_video
from tubelet.video.trimming import checked_part, part_of

Model = VideoSegmenter[Any]
# what can be read from beginning to end: see `open_video`
Stored = str | Path | Picture | Iterable[Picture] | list[str] | list[Path] | Video
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
    classes: Collection[str] | None = None,
    roi: Points | None = None,
    start: float | None = None,
    end: float | None = None,
    every: int = 1,
    results: str | Path | None = None,
    progress: ProgressCallback | bool | None = None,
) -> VideoPrediction:
    """Find, outline, name and follow every object of a video. Runs on the device of the model's parameters.

    Args:
        model: From `tubelet.load`.
        source: A path, address, pattern, image, or frames in memory: whatever `tubelet.open_video` takes.
        window: Replaces the model's own way of reading.
        threshold: Leave out tracks whose score (the mean over the frames where they appear) is lower.
        top: What benchmarks expect in place of a threshold: the `top` best (object, class) pairs, best first; one
            object may appear several times with the same masks, each time under another class
            and with an id of its own.
        distinct: Show each object once: leave out a track whose overlap with a better one (IoU over the video) is
            larger. None keeps all.
        unknown: Give objects whose score is lower a further class, "unknown", in place of a doubtful name.
        views: Number of sizes to average over (test-time augmentation).
        cuts: Detect scene cuts: an object continues after a cut only if its appearance matches, and
            `prediction.shots` has the first frame of each shot. Without, the video is one shot.
        classes: Names of the classes to keep, such as ["person", "dog"]. None keeps all.
        roi: Corners (x, y) in pixels of the region to keep: an object is kept in the frames in which the centre of its
            box lies inside.
        start, end, every: The part of the video to read, as in `tubelet.open_video`.
        results: A file, such as "film.jsonl", that every finished frame is added to at once, with what was
            found in it. Masks are not kept in memory then, however long the video is, but read from
            this file when they are used. A run that is killed leaves the frames up to then, which all
            commands read.
        progress: Called as `progress(done, total)` as frames are finished; True shows a bar, in notebooks too.

    Raises:
        InputError: if the source cannot be read, or `results` cannot be written.
        ConfigError: for an unknown class, if the model does not support test-time augmentation, for `top` with
            `distinct` or `unknown`, or for `results` that do not end in .jsonl.

    Example:
        >>> model = tubelet.load("default", device="cpu")
        >>> prediction = tubelet.predict(model, np.zeros((2, 48, 64, 3), np.uint8), classes=["person", "dog"])
        >>> len(prediction)
        0
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
    if isinstance(progress, bool):
        progress = progress_bar() if progress else None
    if progress is not None and not callable(progress):
        raise ConfigError(f"progress: expected a function of (done, total), got {short(progress)}")
    selection = selection_of(classes, roi, tuple(model.classes))
    lines = None if results is None else frame_lines_path(results)
    names = tuple(model.classes) if unknown is None else (*model.classes, UNKNOWN)

    model = several(model, views)
    video = open_video(source, start=start, end=end, every=every)
    window = window or model.window
    windows = read(decoded_ahead(video), window, ShotConfig() if cuts else None)
    steps = steps_ahead(model, windows) if window.length == 1 else steps_of(model, windows)

    record = None if lines is None else FrameRecord(lines, video.id, video.size, len(video), names)
    ledger = Ledger(record, model.traits.vote)
    needs_windows = top is not None or model.traits.vote == "mean"
    shots: list[int] = []
    for result in _run(model, steps):
        if result.step is not None and result.step.clip.shot == len(shots):
            shots.append(min(result.step.pictures()))
        if result.tracks is not None and needs_windows:
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
        tracks = ledger.pairs(len(video), top, min_frames=traits.min_frames, labels=selection.labels)

    prediction = VideoPrediction(
        video=video.id,
        size=video.size,
        length=len(video),
        tracks=selection.tracks(tracks),
        classes=model.classes,
        shots=tuple(shots) if cuts and not window.spread else (),
        source=video,
    )
    if unknown is not None:
        prediction = with_unknown(prediction, unknown)
    if top is None:
        prediction = prediction.above(threshold)
    if record is not None:
        record.finish(prediction.tracks, ledger.objects, prediction.shots)
    return prediction


def stream(
    model: Model,
    source: Source,
    *,
    window: Window | None = None,
    threshold: float = 0.5,
    unknown: float | None = None,
    views: int = 1,
    cuts: bool = True,
    classes: Collection[str] | None = None,
    roi: Points | None = None,
    start: float | None = None,
    end: float | None = None,
    every: int = 1,
) -> Iterator[Frame]:
    """Yield frames with their objects, each as soon as no later frame can change it, in constant memory.

    Masks and ids are those that `predict` gives; scores and classes are a track's mean and vote up to this frame, and
    only tracks whose mean so far reaches `threshold` are shown.

    Args:
        source: What `predict` takes, a camera's index or a stream's address. A generator of images is read one by one
            and may be endless. A live source that breaks off is opened again until the loop is left.
        model, window, threshold, unknown, views, cuts, classes, roi, start, end, every: As in `predict`;
            each frame has its `shot`.

    Raises:
        InputError: if the source cannot be read.
        ConfigError: if the window needs the whole video.

    Example:
        >>> model = tubelet.load("default", device="cpu")
        >>> images = (np.zeros((48, 64, 3), np.uint8) for _ in range(3))
        >>> [frame.index for frame in tubelet.stream(model, images)]
        [0, 1, 2]
    """
    threshold = fraction("threshold", threshold)
    unknown = 0.0 if unknown is None else fraction("unknown", unknown)
    check_model(model)
    check_window(window)
    checked_part(start, end, every)
    selection = selection_of(classes, roi, tuple(model.classes))

    model = several(model, views)
    window = window or model.window
    if window.length is None or window.spread:
        raise ConfigError("this window reads the whole video before its first result: use predict, or a bounded length")

    part = _Part(start, end, every)
    windows = _windows(source, window, ShotConfig() if cuts else None, part)
    return _frames(model, steps_of(model, windows), _Shown(threshold, unknown, selection))


class _Shown(NamedTuple):
    """Which objects `stream` shows, and under which score they are called unknown."""

    threshold: float
    unknown: float
    selection: Selection


class _Part(NamedTuple):
    """The part of a source to read, as in `open_video`."""

    start: float | None
    end: float | None
    every: int


def _windows(source: Source, window: Window, cuts: ShotConfig | None, part: _Part) -> Iterator[WindowStep]:
    """The windows of any source; a camera, a stream or a generator has no length and no frames elsewhere."""
    if isinstance(source, int | str) and is_live(source):
        source = open_lasting(source)

    if isinstance(source, LiveVideo):
        frames = _until_closed(source)
    elif isinstance(source, Iterator):
        frames = ((t / DEFAULT_FPS, image) for t, image in enumerate(tensors(source)))
    else:
        video = open_video(source, start=part.start, end=part.end, every=part.every)
        return read(video, window, cuts)

    if window.context:
        expected = f"expected context=0, got {window.context}"
        raise ConfigError(f"a live source or a generator has no frames elsewhere to read: {expected}")
    frames = part_of(frames, start=part.start, end=part.end, every=part.every)
    return listen(frames, window, cuts)


def _until_closed(live: LiveVideo) -> Iterator[Stamped]:
    with live:
        yield from live


class _WindowResult(NamedTuple):
    """One window's tracks and finished frames; the last item only flushes, without step and tracks."""

    step: WindowStep | None
    tracks: Tracks | None
    finished: Iterator[Finished]


def _run(model: Model, steps: Iterator[ReadyStep]) -> Iterator[_WindowResult]:
    """The loop: window after window through the model."""
    state = model.start()
    stitcher: Stitcher | None = None
    for window, finish in steps:
        stitcher = stitcher or Stitcher(window.clip.size, model.traits.average)
        with evaluating(model):
            state, tracks = finish(state)
        stitcher.add(_checked(tracks, window.clip))
        yield _WindowResult(window, tracks, stitcher.release(window.settled))
    if stitcher is not None:
        yield _WindowResult(None, None, stitcher.rest())


def _frames(model: Model, steps: Iterator[ReadyStep], shown: _Shown) -> Iterator[Frame]:
    """Yield finished frames with the chosen tracks whose mean score so far reaches the threshold."""
    tallies = Tallies()
    pictures: dict[int, ShownFrame] = {}  # of frames that are not finished yet
    for step, tracks, finished in _run(model, steps):
        if step is not None:
            pictures |= step.pictures()
        if tracks is not None and model.traits.vote == "mean":
            tallies.add_window(tracks)
        for frame in finished:
            tallies.add(frame)
            yield _frame(model, frame, pictures.pop(frame.index), tallies, shown)


def _frame(model: Model, frame: Finished, picture: ShownFrame, tallies: Tallies, shown: _Shown) -> Frame:
    classes = (*model.classes, UNKNOWN)
    rows: list[int] = []
    labels: list[int] = []
    scores: list[float] = []
    in_region = shown.selection.in_region(frame.boxes)
    for row, identity in enumerate(frame.ids.tolist()):
        tally = tallies[identity]
        label, score = tally.verdict(model.traits.vote)
        is_sure = score >= shown.threshold and tally.frames >= model.traits.min_frames
        if is_sure and shown.selection.has_class(label) and in_region[row]:
            rows.append(row)
            labels.append(label if score >= shown.unknown else len(model.classes))
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
    """The tracks. Raises ValueError if they are of frames that were not to be predicted, or repeat an id.

    Raises WeightsError if their scores are not finite: they would vanish without a word, or could not be saved.
    """
    key_frames = clip.index[clip.key].tolist()
    if not set(tracks.index.tolist()) <= set(key_frames):  # fewer is fine: the window before may have predicted some
        raise ValueError(f"the model was to predict frames {key_frames} and gave {tracks.index.tolist()}")
    if len(set(tracks.ids.tolist())) != len(tracks):
        raise ValueError(f"the model gave one id to several objects of a window: {tracks.ids.tolist()}")
    if not bool(tracks.scores.isfinite().all()):
        reason = "are its weights damaged, or is this precision too low for it?"
        raise WeightsError(f"the model's scores in frame {key_frames[0]} are not finite; {reason}")
    return tracks
