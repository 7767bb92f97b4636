"""Live sources that break off and come back: they are opened again, and identities go on over the gap."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress

from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.video import live
from tubelet.video.live import LiveVideo, Stamped

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a lost source is tried again; doubled each time it fails

log = logging.getLogger("tubelet.video")

Open = Callable[[], LiveVideo]


def open_lasting(
    source: int | str, *, first_wait: float | None = None, longest_wait: float = LONGEST_WAIT
) -> LiveVideo:
    """Open a live source that reconnects whenever it breaks off; `close()` ends the attempts.

    Times go on by the clock. The wait between attempts doubles up to `longest_wait` seconds. A
    recording has an end and is not opened again. Raises InputError if the first attempt fails.
    """
    first = live.open_stream(source)
    if first.waits:
        return first

    stop = threading.Event()
    frames = _frames(first, lambda: live.open_stream(source), stop, first_wait or FIRST_WAIT, longest_wait)
    return LiveVideo(first.id, frames, stop=stop)


def _frames(
    first: LiveVideo, reopen: Open, stop: threading.Event, first_wait: float, longest_wait: float
) -> Generator[Stamped, None, None]:
    current: LiveVideo | None = first
    size: tuple[int, ...] | None = None
    offset = 0.0
    last = 0.0

    while current is not None:
        with current, suppress(InputError):  # breaking off before its first frame is the same as after it
            for at, image in current:
                last = offset + at
                size = size or tuple(image.shape)
                yield last, _fitted(image, size)
        lost = time.monotonic()
        current = _again(reopen, first.id, stop, first_wait or FIRST_WAIT, longest_wait)
        offset = last + time.monotonic() - lost


def _again(reopen: Open, name: str, stop: threading.Event, wait: float, longest: float) -> LiveVideo | None:
    log.warning("%s broke off; trying again", name)
    while not stop.wait(wait):
        try:
            again = reopen()
        except InputError:
            wait = min(2 * wait, longest)
        else:
            log.warning("%s is back", name)
            return again
    return None


def _fitted(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize a frame to the size before the break: the known objects' boxes are in its pixels."""
    if tuple(image.shape) == size:
        return image
    from torchvision.transforms.v2.functional import resize

    return resize(image, list(size[1:]))
