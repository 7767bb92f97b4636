"""One video of many: its folder of results, and the marker that says with which settings they were made.

A marker is written last and atomically, so a folder with one is finished, whatever happened before. What ends a
process in the middle of a video, in whichever pool of workers, is counted beside the marker: after MOST_TRIES the video
is given up, so that one that always ends its worker cannot hold up the rest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import torch
from pydantic import Field

from tubelet import __version__
from tubelet.core.atomic import replacing, sweep
from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, InputError, TubeletError
from tubelet.core.text import to_json
from tubelet.core.untrusted.documents import read_json
from tubelet.inference.predict import Model, predict
from tubelet.inference.results import CONTACT_SHEET, OVERLAY, PREDICTIONS
from tubelet.video.reader import open_video

OpenModel = Callable[[str], Model]  # given a device
Status = Literal["done", "skipped", "failed"]

MARKER, TRIES = "finished.json", ".tries"
MOST_TRIES = 3
_OURS = (MARKER, PREDICTIONS, OVERLAY, CONTACT_SHEET)

log = logging.getLogger("tubelet.batch")


class Settings(Config):
    """All that decides what is written for a video; results of other settings are made again."""

    model: str  # a hash of its weights, or a name that stands for them
    threshold: float = 0.5
    window: tuple[str, ...] = ()  # fields of the model's own way of reading to be changed, as key=value
    views: int = 1
    top: int | None = None
    cuts: bool = True  # scene cuts are looked for
    video: bool = True  # overlay.mp4 too
    device: str = "cpu"  # its kind
    threads: int = Field(default=1, ge=1, le=1024)  # of each worker: how a sum is split decides its last bits
    version: str = __version__


class VideoJob(NamedTuple):
    """A video and the name of its folder."""

    source: str  # an absolute path
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOutcome:
    """What became of a video; a row of the summary."""

    video: str
    folder: str
    status: Status
    objects: int = 0
    frames: int = 0
    seconds: float = 0.0  # that this run spent on it
    note: str = ""  # why it failed, or what was wrong with it


class Earlier(NamedTuple):
    """What a folder holds from a run before."""

    outcome: VideoOutcome | None  # where it is finished and as asked for
    reason: str  # why not, where there was something; else empty


def earlier(job: VideoJob, out: Path, settings: Settings) -> Earlier:
    """Whether the video is finished already, with these settings and unchanged since."""
    try:
        told = read_json(out / job.name / MARKER)
        held = {name: told[name] for name in ("settings", "source", "objects", "frames", "note")}
        counts = int(held["objects"]), int(held["frames"])
    except (OSError, ValueError, KeyError, TypeError):
        return Earlier(None, "")
    if held["settings"] != (wanted := settings.model_dump(mode="json")):
        return Earlier(None, _difference(held["settings"], wanted))
    if held["source"] != _stamp(Path(job.source)):
        return Earlier(None, "the video has changed")
    outcome = VideoOutcome(
        video=job.source,
        folder=job.name,
        status="skipped",
        objects=counts[0],
        frames=counts[1],
        note=str(held["note"]),
    )
    return Earlier(outcome, "")


def segment(model: Model, job: VideoJob, out: Path, settings: Settings) -> VideoOutcome:
    """Predict one video and save it into `out`/`job.name`; whatever goes wrong with it is told, not raised.

    Where an earlier try of this run has finished it, nothing is done again.
    """
    found = earlier(job, out, settings).outcome
    if found is not None:
        return replace(found, status="done")
    start, folder = time.perf_counter(), out / job.name
    told: dict[str, Any] = {}
    try:
        if _count(folder) > MOST_TRIES:
            raise InputError(f"its worker ended {MOST_TRIES} times in the middle of it")
        told = _made(model, job, folder, settings)
    except ConfigError:
        raise  # of the settings, the same for every video
    except Exception as error:  # one bad video does not stop the rest
        log.debug("%s", job.source, exc_info=True)
        told = {"status": "failed", "note": line_of(error)}
    finally:  # is not reached where the process is killed: the try counts
        _tidy(folder)
    return VideoOutcome(video=job.source, folder=job.name, seconds=time.perf_counter() - start, **told)


def line_of(error: Exception) -> str:
    """What to say of a fault in one line."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, TubeletError | OSError) else f"{type(error).__name__}: {text}"


def fresh(job: VideoJob, out: Path) -> None:
    """Forget how often an earlier run has tried a video."""
    (out / job.name / TRIES).unlink(missing_ok=True)


def settle(settings: Settings) -> None:
    """Make this process compute as every other worker does."""
    torch.set_num_threads(settings.threads)
    cv2.setNumThreads(settings.threads)
    torch.backends.cudnn.benchmark = False  # else the first frames decide by the clock which kernels are taken
    torch.backends.cudnn.deterministic = True


def _made(model: Model, job: VideoJob, folder: Path, settings: Settings) -> dict[str, Any]:
    """Results and their marker written; what there is to tell of them."""
    _clear(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prediction = predict(
            model,
            open_video(job.source),
            window=model.window.override(*settings.window),
            threshold=settings.threshold,
            views=settings.views,
            top=settings.top,
            cuts=settings.cuts,
        )
        prediction.save(folder, video=settings.video, threads=1)  # of the encoder: their number decides the bytes
    said = [str(w.message) for w in caught if w.category.__module__.startswith("tubelet")]
    told = {"objects": len(prediction.tracks), "frames": prediction.length, "note": said[0] if said else ""}
    terms = {"settings": settings.model_dump(mode="json"), "source": _stamp(Path(job.source))}
    _write(folder / MARKER, {"video": job.source, **told, **terms})
    return {"status": "done", **told}


def _tidy(folder: Path) -> None:
    (folder / TRIES).unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        folder.rmdir()


def _count(folder: Path) -> int:
    """This try's number; written down before anything can go wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TRIES
    tries = path.stat().st_size + 1 if path.exists() else 1
    with path.open("ab") as file:  # a byte a try: a process that ends here leaves the old or the new number
        file.write(b".")
    return tries


def _clear(folder: Path) -> None:
    """Remove what an earlier run or try left of ours, the marker first."""
    sweep(folder)  # of a worker that ended, while this process may have swept there before
    for name in _OURS:
        (folder / name).unlink(missing_ok=True)


def _write(path: Path, told: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(to_json(told, indent=1) + "\n", encoding="utf-8")


def _stamp(source: Path) -> str:
    """Changes when the file, or the images of the folder, are exchanged."""
    try:
        held = sorted(source.iterdir()) if source.is_dir() else [source]
        facts = [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in held]
    except OSError:
        return ""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _difference(before: Any, now: dict[str, Any]) -> str:
    known = before if isinstance(before, dict) else {}
    changed = [name for name in now if known.get(name) != now[name]] or ["settings"]
    name = changed[0]
    if name == "model":
        return "made with another model"
    if name not in known:
        return "made with other settings"
    return f"made with {name}={json.dumps(known[name])}, now {json.dumps(now[name])}"
