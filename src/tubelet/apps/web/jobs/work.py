"""The tasks of the worker process: segment a video, make a download, compute attention maps, follow an object."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tubelet.apps.web import attention, downloads, results
from tubelet.apps.web.limits import BASE_THRESHOLD
from tubelet.core.errors import TubeletError
from tubelet.core.protocol import Window
from tubelet.core.types import Video
from tubelet.inference import following
from tubelet.inference.predict import Model, predict
from tubelet.video.reader import TruncatedVideoWarning, open_video
from tubelet.video.writer import VideoWriter

PLAY = "play.mp4"
NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
REPORT_EVERY = 0.1  # seconds

Send = Callable[[dict[str, Any]], None]  # sends a message to the server
log = logging.getLogger("tubelet.web")


class Stopped(Exception):
    """Raised by a task's `check` if the task is cancelled."""


def segment(model: Model, order: dict[str, Any], check: Callable[[], None], send: Send) -> dict[str, Any]:
    """Segment a video into a result file in the folder `out`; before that, make a copy for browsers if they need one.

    `check` is called for every frame and may raise Stopped. Returns the number of objects shown at first and the
    seconds that it took.
    """
    started = time.monotonic()
    out = Path(order["out"])
    video, is_truncated = _open(Path(order["source"]))

    if not order["has_play"] and (is_truncated or not order["playable"]):
        _write_play_copy(video, out / PLAY, Pace("preparing", check, send))
        send({"say": "prepared"})

    window = model.window
    if order["length"] is not None:
        window = Window(length=order["length"], stride=order["stride"] or 1)

    pace = Pace("segmenting", check, send)
    pace(0, len(video))
    prediction = predict(model, video, window=window, threshold=BASE_THRESHOLD, classes=order["classes"], progress=pace)
    num_objects = results.write(out / results.RESULT, prediction)
    return {"objects": num_objects, "seconds": time.monotonic() - started}


def download(order: dict[str, Any], check: Callable[[], None]) -> dict[str, Any]:
    """Write one download into the folder `out`: labelled data if the order names a form, of some frames or all."""
    prediction = results.read(Path(order["result"]), Path(order["source"]), order["name"], order["threshold"])
    out = Path(order["out"])
    if order["form"] is not None:
        downloads.make_labels(prediction, order["form"], order["frames"], out / order["file"], check)
    else:
        downloads.make(order["file"], prediction, out, check)
    return {}


def follow(model: Model, order: dict[str, Any], check: Callable[[], None], send: Send) -> dict[str, Any]:
    """Follow a track from frame `start` to each of the frames `ends`; each mask is sent as soon as it is found.

    Returns how far it came: the first and the last frame, less than was ordered if `check` raised Stopped.
    """
    prediction = results.read(Path(order["result"]), Path(order["source"]), order["name"], threshold=0)
    start, track = order["start"], order["track"]
    total = sum(abs(end - start) for end in order["ends"])
    span = [start, start]
    done = 0

    with suppress(Stopped):
        for end in order["ends"]:
            for frame, mask in following.follow(model, prediction, track, start, end):
                done += 1
                span = [min(span[0], frame), max(span[1], frame)]
                counts = None if mask is None else mask.counts.decode("ascii")
                send({"say": "progress", "frame": frame, "counts": counts, "done": done, "total": total})
                check()
    return {"first": span[0], "last": span[1]}


def attend(model: Model, order: dict[str, Any]) -> dict[str, Any]:
    """Compute the attention maps of one point, as JSON for the page."""
    video, _ = _open(Path(order["source"]))
    point = (order["x"], order["y"])
    maps = attention.attention_maps(model, video, order["frame"], point)
    return {"maps": [attention.described(attention_map) for attention_map in maps]}


def line_of(error: BaseException, order: dict[str, Any]) -> str:
    """Describe an error in one line that a browser may show; an unexpected error is logged, without details here."""
    if isinstance(error, TubeletError):
        line = str(error)
        for path in (order.get("source"), order.get("out"), order.get("folder")):
            line = line.replace(str(path), order.get("name", "video")) if path else line
        return " ".join(line.split())
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY):
        return "there is not enough memory for this video"
    if isinstance(error, OSError):
        return f"the disk refused: {(error.strerror or 'unknown reason').lower()}"
    log.error("%s failed", order.get("do"), exc_info=error)
    return f"something went wrong with this video ({type(error).__name__}); the server's log has more"


class Pace:
    """A progress callback: calls `check` every time, and sends progress at most every REPORT_EVERY seconds."""

    def __init__(self, stage: str, check: Callable[[], None], send: Send) -> None:
        self._stage = stage
        self._check = check
        self._send = send
        self._start = time.monotonic()
        self._first: int | None = None  # what was done when it began: a training may go on from a checkpoint
        self._last_sent = 0.0

    def __call__(self, done: int, total: int) -> None:
        self._check()
        if self._first is None:
            self._first = done
        now = time.monotonic()
        if now - self._last_sent < REPORT_EVERY and 0 < done < total:
            return
        self._last_sent = now

        elapsed = now - self._start
        made = done - self._first
        message = {
            "say": "progress",
            "stage": self._stage,
            "done": done,
            "total": total,
            "left": elapsed / made * (total - done) if made else None,
            "rate": made / elapsed if made and elapsed else None,
        }
        self._send(message)


def _write_play_copy(video: Video, path: Path, pace: Pace) -> None:
    with VideoWriter(path, video.size, video.fps) as writer:
        for t, image in enumerate(video.frames):
            writer.write(image.permute(1, 2, 0).contiguous().numpy(), video.time(t))
            pace(t + 1, len(video))


def _open(source: Path) -> tuple[Video, bool]:
    """Open a video, and say whether a part of it is missing: a browser would then count its frames differently."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        video = open_video(os.fspath(source))
    is_truncated = any(issubclass(warning.category, TruncatedVideoWarning) for warning in caught)
    return video, is_truncated
