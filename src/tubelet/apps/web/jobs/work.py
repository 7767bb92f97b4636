"""What the worker process does: segment a video, make a download, look at attention. Here torch is at home."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tubelet.apps.web import attention, downloads, results
from tubelet.apps.web.limits import BASE_THRESHOLD
from tubelet.core.errors import TubeletError
from tubelet.core.protocol import Window
from tubelet.core.types import Video
from tubelet.inference.predict import Model, predict
from tubelet.video.reader import TruncatedVideoWarning, open_video
from tubelet.video.writer import VideoWriter

PLAY = "play.mp4"
REPORT_EVERY = 0.1  # seconds

Tell = Callable[[dict[str, Any]], None]
log = logging.getLogger("tubelet.web")


class Stopped(Exception):
    """Raised within a job that is to end."""


def segment(model: Model, order: dict[str, Any], check: Callable[[], None], tell: Tell) -> dict[str, Any]:
    """Play copy where needed, tracks, result file in the folder `out`; `check` may raise Stopped at every frame."""
    started, out = time.monotonic(), Path(order["out"])
    video, damaged = _open(Path(order["source"]))
    if not order["has_play"] and (damaged or not order["playable"]):
        _prepare(video, out / PLAY, Pace("preparing", check, tell))
        tell({"say": "prepared"})
    window = model.window
    if order["length"] is not None:
        window = Window(length=order["length"], stride=order["stride"] or 1)
    pace = Pace("segmenting", check, tell)
    pace(0, len(video))
    prediction = predict(model, video, window=window, threshold=BASE_THRESHOLD, progress=pace)
    count = results.write(out / results.RESULT, prediction)
    return {"objects": count, "seconds": time.monotonic() - started}


def download(order: dict[str, Any], check: Callable[[], None]) -> dict[str, Any]:
    """Make one download into the folder `out`."""
    prediction = results.read(Path(order["result"]), Path(order["source"]), order["name"], order["threshold"])
    downloads.make(order["file"], prediction, Path(order["out"]), check)
    return {}


def attend(model: Model, order: dict[str, Any]) -> dict[str, Any]:
    """Attention of one point, as the page takes it."""
    video, _ = _open(Path(order["source"]))
    maps = attention.attention_maps(model, video, order["frame"], (order["x"], order["y"]))
    return {"maps": [attention.described(heat) for heat in maps]}


def line_of(error: BaseException, order: dict[str, Any]) -> str:
    """One line fit for a browser; whatever is our fault goes to the log instead."""
    if isinstance(error, TubeletError):
        line = str(error)
        for path in (order.get("source"), order.get("out")):
            line = line.replace(str(path), order.get("name", "video")) if path else line
        return " ".join(line.split())
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "there is not enough memory for this video"
    if isinstance(error, OSError):
        return f"the disk refused: {(error.strerror or 'unknown reason').lower()}"
    log.error("%s failed", order.get("do"), exc_info=error)
    return f"something went wrong with this video ({type(error).__name__}); the server's log has more"


class Pace:
    """A progress callback: checks whether to stop at every call, tells done, total and seconds left now and then."""

    def __init__(self, stage: str, check: Callable[[], None], tell: Tell) -> None:
        self._stage, self._check, self._tell = stage, check, tell
        self._start = time.monotonic()
        self._told = 0.0

    def __call__(self, done: int, total: int) -> None:
        self._check()
        now = time.monotonic()
        if now - self._told < REPORT_EVERY and 0 < done < total:
            return
        self._told = now
        passed = now - self._start
        left = passed / done * (total - done) if done else None
        rate = done / passed if done and passed else None
        self._tell({"say": "progress", "stage": self._stage, "done": done, "total": total, "left": left, "rate": rate})


def _prepare(video: Video, path: Path, pace: Pace) -> None:
    with VideoWriter(path, video.size, video.fps) as writer:
        for t, image in enumerate(video.frames):
            writer.write(image.permute(1, 2, 0).contiguous().numpy(), video.time(t))
            pace(t + 1, len(video))


def _open(source: Path) -> tuple[Video, bool]:
    """The video, and whether a part of it is missing: a browser would then show other frames than we count."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        video = open_video(os.fspath(source))
    return video, any(issubclass(warning.category, TruncatedVideoWarning) for warning in seen)
