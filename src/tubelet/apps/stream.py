"""`tubelet stream`: follow objects in a camera or a network stream, live.

Results go to a page, into a window, or out as one line of JSON per frame.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tubelet.apps.console import say
from tubelet.apps.option_texts import CUTS_HELP, DEVICE_HELP, MODEL_HELP, THRESHOLD_HELP
from tubelet.apps.options import (
    Anchor,
    Classes,
    End,
    Engine,
    Every,
    InputSize,
    Lines,
    Reading,
    Region,
    Start,
    Unknown,
    Zones,
    class_names,
    counting_of,
    region,
)

if TYPE_CHECKING:
    from tubelet.core.types import Frame
    from tubelet.inference.counting import Counting, Crossing, ObjectCounter
    from tubelet.video.live import LiveVideo

REMEMBERED = 600.0  # seconds after which an identity that is gone is no longer known at lines and zones
RECENT = 30  # frames over which the rate is taken
TITLE = "tubelet"
Sink = Callable[["Frame", float], None]  # takes each frame and the current frames a second


class Closed(Exception):
    """Raised when the viewer closed the window or the pipe."""


def stream(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A camera's number (0 is the first), an address, or a video file.")
    ],
    *,
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help=MODEL_HELP)] = "default",
    threshold: Annotated[float, typer.Option(min=0, max=1, help=THRESHOLD_HELP)] = 0.5,
    unknown: Unknown = None,
    window: Reading = None,
    classes: Classes = None,
    roi: Region = None,
    start: Start = None,
    end: End = None,
    every: Every = 1,
    line: Lines = None,
    zone: Zones = None,
    anchor: Anchor = "centre",
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    engine: Engine = "auto",
    input_size: InputSize = None,
    no_cuts: Annotated[bool, typer.Option("--no-cuts", help=CUTS_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per frame; no page.")] = False,
    with_masks: Annotated[bool, typer.Option("--masks", help="With --json: masks too, as RLE.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Open a window; no page.")] = False,
    page: Annotated[bool, typer.Option("--page", help="The page also beside --json or --show.")] = False,
    host: Annotated[str, typer.Option(help="Where the page listens; wider than this machine asks for a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 takes any that is free.")] = 8001,
) -> None:
    """Find, outline, name and follow objects live. If the model is slower than the source, frames are dropped."""
    from tubelet.inference import predict as inference
    from tubelet.models import weights

    with ExitStack() as stack:
        counting = counting_of(line, zone, anchor)
        live_counts = LiveCounts(counting) if counting is not None else None
        sinks: list[Sink] = []
        if as_json:

            def put(frame: Frame, rate: float) -> None:
                description = described(frame, rate, dropped(live), with_masks=with_masks)
                _print(description if live_counts is None else {**description, **live_counts.described()})

            sinks.append(put)
        if show and not _add_window(sinks):
            say("no window can be opened here (no screen, or opencv-python-headless); the page shows it instead")
            page = True
        if page or not (as_json or show):
            sinks.append(stack.enter_context(_page(host, port)))
        live = opened(source, stack)
        network = weights.load(model, device=device, engine=engine, input_size=input_size)
        reading = network.window.override(*(window or ()))
        frames = inference.stream(
            network,
            live,
            window=reading,
            threshold=threshold,
            unknown=unknown,
            cuts=not no_cuts,
            classes=class_names(classes),
            roi=region(roi),
            start=start,
            end=end,
            every=every,
        )
        with suppress(Closed):
            deliver(frames if live_counts is None else map(live_counts.counted, frames), sinks)


def opened(source: str, stack: ExitStack) -> LiveVideo | str:
    """Open a live source, to be closed with `stack`; a video file is returned as its path."""
    from tubelet.video.lasting import open_lasting
    from tubelet.video.reader import is_live

    live = int(source) if source.isdecimal() and not os.path.exists(source) else source
    return stack.enter_context(open_lasting(live)) if is_live(live) else source


class LiveCounts:
    """Counts the frames of a stream, and draws lines, zones and numbers onto their pictures."""

    def __init__(self, counting: Counting) -> None:
        self._counting = counting
        self._counter: ObjectCounter | None = None
        self._crossings: list[Crossing] = []  # of the last frame

    def counted(self, frame: Frame) -> Frame:
        """Count a frame; returns it with the numbers drawn under its objects."""
        import torch

        from tubelet.inference.counting import ObjectCounter
        from tubelet.inference.results import with_counts

        if self._counter is None:
            size = (frame.image.shape[1], frame.image.shape[2])
            self._counter = ObjectCounter(self._counting, size, period=0.0, memory=REMEMBERED)
        picture = with_counts(frame.image.permute(1, 2, 0).cpu().numpy(), frame, self._counter)
        self._crossings = list(self._counter.crossings)
        self._counter.crossings.clear()
        return replace(frame, image=torch.from_numpy(picture).permute(2, 0, 1))

    def described(self) -> dict[str, Any]:
        """For JSON: each line's totals, how many objects are in each zone, and who crossed in the last frame."""
        assert self._counter is not None, "no frame was counted"
        counter = self._counter
        totals = {name: counter.totals(name) for name in self._counting.lines}
        return {
            "lines": {name: {"in": total["in"], "out": total["out"]} for name, total in totals.items()},
            "zones": {name: counter.occupied(name) for name in self._counting.zones},
            "crossings": [
                {"line": entry.line, "id": entry.id, "name": entry.name, "direction": entry.direction}
                for entry in self._crossings
            ],
        }


def dropped(live: LiveVideo | str) -> int:
    """Number of frames that were dropped because the model was busy."""
    return 0 if isinstance(live, str) else live.dropped


def deliver(frames: Iterator[Frame], sinks: list[Sink]) -> None:
    """Pass each frame to every sink, with the frame rate over the last RECENT frames."""
    stamps: deque[float] = deque(maxlen=RECENT)
    for frame in frames:
        stamps.append(time.monotonic())
        passed = stamps[-1] - stamps[0]
        rate = (len(stamps) - 1) / passed if passed > 0 else 0.0
        for sink in sinks:
            sink(frame, rate)


def described(frame: Frame, rate: float, missed: int, *, with_masks: bool) -> dict[str, Any]:
    """Describe a frame for JSON: time in seconds, boxes (x1, y1, x2, y2) in pixels, masks as compressed RLE."""
    from tubelet.core import masks

    description: dict[str, Any] = {
        "time": round(frame.time, 4),
        "index": frame.index,
        "shot": frame.shot,
        "ids": frame.ids.tolist(),
        "names": list(frame.names),
        "scores": [round(score, 4) for score in frame.scores.tolist()],
        "boxes": [[round(side, 1) for side in box] for box in frame.boxes.tolist()],
        "fps": round(rate, 2),
        "dropped": missed,
    }
    if with_masks:
        description["masks"] = [masks.to_json(rle) for rle in masks.encode(frame.masks.cpu().numpy())]
    return description


def _print(description: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(description, separators=(",", ":")) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # otherwise Python reports the broken pipe on exit
        raise Closed from None


def _add_window(sinks: list[Sink]) -> bool:
    """Open a window and add it to the sinks; False if this OpenCV or machine has none."""
    import cv2

    has_screen = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if not has_screen:
        return False  # some builds end the process when they find no screen
    try:
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    except (cv2.error, AttributeError):
        return False

    from tubelet.apps.picture import picture

    def put(frame: Frame, rate: float) -> None:
        cv2.imshow(TITLE, picture(frame, rate)[..., ::-1])
        closed = cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1
        if cv2.waitKey(1) in (27, ord("q")) or closed:
            raise Closed

    sinks.append(put)
    return True


def _page(host: str, port: int) -> Any:
    from tubelet.apps import serve

    serve.require_web()
    from tubelet.apps.web.live import show_live

    return show_live(host, port)
