"""Make the next items in a thread while this one is used: decoding beside the network, drawing beside the encoder."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from queue import Empty, Full, Queue
from typing import NamedTuple, TypeVar

from torch import Tensor

from tubelet.core.types import Video
from tubelet.video.frames import LazyFrames

Item = TypeVar("Item")

WAIT = 0.1  # seconds after which a thread looks whether it is still wanted


class _End(NamedTuple):
    """The last entry of a queue: why there are no more items."""

    error: BaseException | None


def ahead(items: Iterable[Item], most: int = 2) -> Iterator[Item]:
    """Yield the items of an iterable that runs in a thread, up to `most` items ahead.

    An error of the iterable is raised here, after the items before it. If this iterator is closed early, so is the
    iterable, in its thread.

    Example:
        >>> from tubelet.video.ahead import ahead
        >>> list(ahead(range(3)))
        [0, 1, 2]
    """
    queue: Queue[Item | _End] = Queue(most)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, queue, stop), name="read ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(entry := _next(queue, thread), _End):
            yield entry
        if entry.error is not None:
            raise entry.error
    finally:
        stop.set()
        thread.join()


def decoded_ahead(video: Video) -> Video:
    """Return a video that decodes two frames ahead when it is read in order.

    Example:
        >>> from tubelet.video.ahead import decoded_ahead
        >>> decoded_ahead(tubelet.open_video(np.zeros((3, 4, 6, 3), np.uint8)))
        Video(id='video', size=(4, 6), frames=3, fps=25, tracks=unknown)
    """
    return replace(video, frames=_Ahead(video.frames))


class _Ahead(LazyFrames):
    """The frames of a video; a loop over them decodes ahead."""

    def __init__(self, frames: Sequence[Tensor]) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Tensor]:
        return ahead(self._frames)

    def read(self, t: int) -> Tensor:
        return self._frames[t]


def _next(queue: Queue[Item | _End], thread: threading.Thread) -> Item | _End:
    """Wait for an entry; the wait can be interrupted (Ctrl-C)."""
    while True:
        try:
            return queue.get(timeout=WAIT)
        except Empty:
            if not thread.is_alive() and queue.empty():
                return _End(None)


def _fill(items: Iterable[Item], queue: Queue[Item | _End], stop: threading.Event) -> None:
    iterator = iter(items)
    end = _End(None)
    try:
        for item in iterator:
            if not _put(queue, item, stop):
                return
    except BaseException as error:
        end = _End(error)
    finally:
        if isinstance(iterator, Generator):
            iterator.close()
    _put(queue, end, stop)


def _put(queue: Queue[Item | _End], entry: Item | _End, stop: threading.Event) -> bool:
    """Put an entry when there is room; False if the items are not wanted any more."""
    while not stop.is_set():
        try:
            queue.put(entry, timeout=WAIT)
        except Full:
            continue
        return True
    return False
