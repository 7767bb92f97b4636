"""One video of many: its folder of results, and the marker that records the settings they were made with.

The marker is written last and atomically, so a folder that has one is complete. Each try is counted on disk beside it:
a video that ended its process MOST_TRIES times fails, so that it cannot hold up the rest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import torch
from pydantic import Field

from tubelet import __version__
from tubelet.core.atomic import replacing, sweep
from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, InputError, TubeletError
from tubelet.core.remote import is_remote, shown, version_of
from tubelet.core.text import to_json
from tubelet.core.types import Video, VideoSet
from tubelet.core.untrusted.documents import decode_json
from tubelet.core.untrusted.files import read
from tubelet.drawing.style import OverlayStyle
from tubelet.formats.registry import open_set
from tubelet.formats.results_files import FRAME_LINES, PREDICTIONS, ResultsForm, results_name
from tubelet.inference.counting import Counting
from tubelet.inference.counts import CROSSINGS, LINES, ZONES
from tubelet.inference.predict import Model, predict
from tubelet.inference.results import CONTACT_SHEET, OVERLAY, ProgressCallback, VideoPrediction
from tubelet.video.reader import open_remote, open_video

OpenModel = Callable[[str], Model]  # given a device
Segment = Callable[["Model", "VideoJob", Path, "Settings"], "VideoOutcome"]  # what a worker does with a video
Status = Literal["done", "skipped", "failed"]

MARKER, TRIES = "finished.json", ".tries"
MOST_TRIES = 3
OURS = (MARKER, PREDICTIONS, FRAME_LINES, OVERLAY, CONTACT_SHEET, LINES, CROSSINGS, ZONES)

log = logging.getLogger("tubelet.batch")


class Settings(Config):
    """Everything that decides what is written for a video; results of other settings are made again.

    >>> Settings(model="default").but(threshold=0.3).threshold
    0.3
    """

    model: str  # a hash of its weights, or a name that stands for it
    threshold: float = 0.5
    window: tuple[str, ...] = ()  # fields of the model's window to change, as key=value
    views: int = 1
    top: int | None = None
    distinct: float | None = None  # leave out tracks that overlap a better one by more (IoU)
    unknown: float | None = None  # give objects with a lower score the class "unknown"
    cuts: bool = True  # detect scene cuts
    classes: tuple[str, ...] | None = None  # keep these alone
    roi: tuple[tuple[float, float], ...] | None = None  # keep objects whose centre is inside this polygon
    start: float | None = None  # seconds
    end: float | None = None
    every: int = 1  # read every n-th frame
    video: bool = True  # write overlay.mp4
    results: ResultsForm = "auto"  # which file of results is written
    counting: Counting | None = None  # lines and zones to count at
    overlay: tuple[str, ...] = ()  # fields of the overlay's style to change, as key=value
    device: str = "cpu"  # without its number: "cpu" or "cuda"
    engine: str = "auto"  # what computes the network
    input_size: int | None = None  # objects are looked for in frames of the area of that many pixels squared
    threads: int = Field(default=1, ge=1, le=1024)  # of each worker; they change the last bits of sums
    version: str = __version__


class VideoJob(NamedTuple):
    """A video, by itself or in a data set, and the name of its results.

    >>> VideoJob("/films/dog.mp4", "dog").title
    '/films/dog.mp4'
    >>> VideoJob("/sets/val.json", "00003-dog", number=2).title
    '/sets/val.json: 00003-dog'
    """

    source: str  # an absolute path, or an address, of the video or of the data set
    name: str
    number: int | None = None  # position in the data set; None: `source` is the video
    form: str | None = None  # of the data set; None: find out
    frames: str | None = None  # where the data set's frames are, if not beside its annotations

    @property
    def title(self) -> str:
        """How messages and the summary name the video."""
        source = shown(self.source)
        return source if self.number is None else f"{source}: {self.name}"

    def video(self) -> Video:
        """Open the video; its frames are decoded later. Raises InputError if it cannot be read."""
        if self.number is None:
            return open_remote(self.source) if is_remote(self.source) else open_video(self.source)
        return opened_set(self.source, self.form, self.frames).videos[self.number]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOutcome:
    """The result of one video; a row of the summary.

    >>> VideoOutcome(video="/films/dog.mp4", folder="dog", status="done", objects=1, frames=30).note
    ''
    """

    video: str
    folder: str
    status: Status
    objects: int = 0
    frames: int = 0
    seconds: float = 0.0  # spent by this run
    note: str = ""  # why it failed, or the first warning


@lru_cache(maxsize=1)
def opened_set(path: str, form: str | None = None, frames: str | None = None) -> VideoSet:
    """Open a data set, once in each process: a worker takes many videos of one set.

    Raises InputError or FormatError as `formats.registry.open_set` does.
    """
    return open_set(path, form, frames)


class Earlier(NamedTuple):
    """What an earlier run left in a video's folder.

    >>> Earlier(None, "the video has changed").outcome is None
    True
    """

    outcome: VideoOutcome | None  # None if the video must be segmented
    reason: str  # why finished results cannot be used; empty if there are none, or if they can


def earlier(job: VideoJob, out: Path, settings: Settings) -> Earlier:
    """Check whether a video is already finished, with these settings and unchanged since.

    >>> earlier(VideoJob("/films/dog.mp4", "dog"), Path("/no/such/folder"), Settings(model="default"))
    Earlier(outcome=None, reason='')
    """
    try:
        marker = read(out / job.name / MARKER)
    except (OSError, ValueError):
        return Earlier(None, "")
    return judge(marker, job, settings)


def judge(marker: bytes, job: VideoJob, settings: Settings) -> Earlier:
    """Whether the results with this marker can be used; a marker that is damaged counts as none.

    >>> judge(b"{}", VideoJob("/films/dog.mp4", "dog"), Settings(model="default"))
    Earlier(outcome=None, reason='')
    """
    try:
        tree = decode_json(marker, MARKER)
        settings_before = tree["settings"]
        stamp_before = tree["source"]
        outcome = VideoOutcome(
            video=job.title,
            folder=job.name,
            status="skipped",
            objects=int(tree["objects"]),
            frames=int(tree["frames"]),
            note=str(tree["note"]),
        )
    except (ValueError, KeyError, TypeError):
        return Earlier(None, "")
    settings_now = settings.model_dump(mode="json")
    if settings_before != settings_now:
        return Earlier(None, _difference(settings_before, settings_now))
    if stamp_before != _stamp(job.source):
        return Earlier(None, "the video has changed")
    return Earlier(outcome, "")


def predict_as(
    settings: Settings,
    model: Model,
    video: Video,
    progress: ProgressCallback | None = None,
    *,
    results: Path | None = None,
) -> VideoPrediction:
    """Predict a video as the settings say; `results` as in `predict`.

    >>> from tubelet.inference.many.batch import Settings, predict_as
    >>> video = tubelet.open_video(np.zeros((4, 48, 64, 3), np.uint8))
    >>> predict_as(Settings(model="default", every=2), tubelet.load("default", device="cpu"), video).length
    2
    """
    return predict(
        model,
        video,
        window=model.window.override(*settings.window),
        threshold=settings.threshold,
        views=settings.views,
        top=settings.top,
        distinct=settings.distinct,
        unknown=settings.unknown,
        cuts=settings.cuts,
        classes=settings.classes,
        roi=settings.roi,
        start=settings.start,
        end=settings.end,
        every=settings.every,
        results=results,
        progress=progress,
    )


def frame_lines_of(settings: Settings, video: Video, folder: Path) -> Path | None:
    """Where frames are written as they are finished; None if the settings want one file at the end.

    >>> from tubelet.inference.many.batch import Settings, frame_lines_of
    >>> video = tubelet.open_video(np.zeros((4, 48, 64, 3), np.uint8))
    >>> frame_lines_of(Settings(model="default", results="jsonl"), video, Path("out")).name
    'predictions.jsonl'
    """
    part = open_video(video, start=settings.start, end=settings.end, every=settings.every)
    is_long = results_name(settings.results, len(part)) == FRAME_LINES
    return folder / FRAME_LINES if is_long else None


def segment(model: Model, job: VideoJob, out: Path, settings: Settings) -> VideoOutcome:
    """Predict one video and save the results into `out`/`job.name`.

    An error of this video becomes a failed outcome. If an earlier try of this run has finished it, nothing is done
    again. Raises ConfigError if the settings do not suit the model.
    """
    finished = earlier(job, out, settings).outcome
    if finished is not None:
        fresh(job, out)
        return replace(finished, status="done")

    folder = out / job.name
    try:
        return attempt(job, folder / TRIES, lambda: _predict(model, job, folder, settings))
    finally:
        with suppress(OSError):  # not empty
            folder.rmdir()


def attempt(job: VideoJob, tries: Path, make: Callable[[], VideoOutcome]) -> VideoOutcome:
    """Make a video's results; every error but ConfigError becomes a failed outcome.

    Args:
        job: The video.
        tries: A file that counts attempts; an attempt that the process does not survive stays counted,
            and after MOST_TRIES of them the video fails.
        make: Writes the results and returns the outcome.
    """
    start = time.perf_counter()
    try:
        outcome = make() if _count_try(tries) <= MOST_TRIES else gave_up(job)
    except ConfigError:
        raise  # of the settings, the same for every video
    except Exception as error:  # one bad video does not stop the rest
        log.debug("%s", job.title, exc_info=True)
        outcome = VideoOutcome(video=job.title, folder=job.name, status="failed", note=line_of(error))
    finally:  # not reached if the process is killed: the try counts
        with suppress(OSError):
            tries.unlink(missing_ok=True)
    return replace(outcome, seconds=time.perf_counter() - start)


def gave_up(job: VideoJob) -> VideoOutcome:
    """The failure of a video that ended its worker MOST_TRIES times.

    >>> gave_up(VideoJob("/films/dog.mp4", "dog")).status
    'failed'
    """
    note = f"its worker ended {MOST_TRIES} times in the middle of it"
    return VideoOutcome(video=job.title, folder=job.name, status="failed", note=note)


def line_of(error: Exception) -> str:
    """An error's message in one line of at most 300 characters, after its type if it is not one of ours.

    >>> line_of(OSError("no such file")), line_of(KeyError("a"))
    ('no such file', "KeyError: 'a'")
    """
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, TubeletError | OSError) else f"{type(error).__name__}: {text}"


def fresh(job: VideoJob, out: Path) -> None:
    """Forget how often a video was tried: by earlier runs, or by a process that was killed when it had finished it."""
    with suppress(OSError):  # what cannot be removed counts
        (out / job.name / TRIES).unlink(missing_ok=True)


def settle(settings: Settings) -> None:
    """Set up threads and cuDNN so that every worker computes the same bits."""
    torch.set_num_threads(settings.threads)
    cv2.setNumThreads(settings.threads)
    torch.backends.cudnn.benchmark = False  # else kernels are chosen by their speed on the first frames
    torch.backends.cudnn.deterministic = True


def _predict(model: Model, job: VideoJob, folder: Path, settings: Settings) -> VideoOutcome:
    """Write the results, then their marker."""
    _clear(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        video = job.video()
        lines = frame_lines_of(settings, video, folder)
        prediction = predict_as(settings, model, video, results=lines)
        prediction.save(
            folder,
            video=settings.video,
            style=OverlayStyle().override(*settings.overlay),
            counting=settings.counting,
            results="json" if lines is None else None,
            threads=1,  # they decide the bytes
        )
    outcome = VideoOutcome(
        video=job.title,
        folder=job.name,
        status="done",
        objects=len(prediction.tracks),
        frames=prediction.length,
        note=_first_warning(caught),
    )
    _write_marker(folder / MARKER, outcome, settings, job.source)
    return outcome


def _first_warning(caught: list[warnings.WarningMessage]) -> str:
    """The first of tubelet's own warnings, or an empty text."""
    for warning in caught:
        if warning.category.__module__.startswith("tubelet"):
            return str(warning.message)
    return ""


def _write_marker(path: Path, outcome: VideoOutcome, settings: Settings, source: str) -> None:
    marker = {
        "video": outcome.video,
        "objects": outcome.objects,
        "frames": outcome.frames,
        "note": outcome.note,
        "settings": settings.model_dump(mode="json"),
        "source": _stamp(source),
    }
    with replacing(path) as temporary:
        temporary.write_text(to_json(marker, indent=1) + "\n", encoding="utf-8")


def _count_try(tries: Path) -> int:
    """The number of this try, recorded on disk before anything can go wrong."""
    tries.parent.mkdir(parents=True, exist_ok=True)
    count = tries.stat().st_size + 1 if tries.exists() else 1
    with tries.open("ab") as file:  # a byte a try: a process killed here leaves the old or the new number
        file.write(b".")
    return count


def _clear(folder: Path) -> None:
    """Remove our own files of an earlier run or try, the marker first."""
    sweep(folder)  # scratch of a worker that ended; this process may have swept there before
    for name in OURS:
        (folder / name).unlink(missing_ok=True)


def _stamp(source: str) -> str:
    """A hash that changes when the file, or an image of the folder, is replaced; empty if there is none."""
    try:
        facts: Sequence[object] = version_of(source) if is_remote(source) else _facts(Path(source))
    except (OSError, InputError):
        return ""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _facts(source: Path) -> list[tuple[str, int, int]]:
    facts = []
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    for path in files:
        stat = path.stat()
        facts.append((path.name, stat.st_size, stat.st_mtime_ns))
    return facts


def _difference(before: Any, now: dict[str, Any]) -> str:
    """The first setting that has changed, for people."""
    known = before if isinstance(before, dict) else {}
    changed = [name for name in now if known.get(name) != now[name]] or ["settings"]
    name = changed[0]
    if name == "model":
        return "made with another model"
    if name not in known:
        return "made with other settings"
    return f"made with {name}={json.dumps(known[name])}, now {json.dumps(now[name])}"
