"""Cameras and streams: sources that do not wait, read with constant memory by a thread that keeps the newest frame."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self

import av
import cv2
import torch
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.core.masks import MAX_PIXELS
from tubelet.video.conversion import Converter, quarter_turns
from tubelet.video.media import open_media

TIMEOUT = 10.0  # seconds without a frame after which a stream counts as broken off
PROTOCOLS = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")
# those, and what they are made of; no "file": a playlist from outside must not read this machine's disk
WHITELIST = ",".join((*PROTOCOLS, "crypto", "httpproxy", "rtmpt", "rtmpts", "tls"))

Stamped = tuple[float, Tensor]  # seconds from the first frame, uint8 [3, H, W] RGB


class LiveVideo:
    """Iterate once, for (seconds from the first frame, uint8 [3, H, W] RGB): always the newest frame there is.

    Frames that come while the reader is busy are dropped and counted in `dropped`, never queued. A source that waits
    (a recording behind an address) loses none. Leaving the loop, `close()` or a `with` block releases the source.
    """

    def __init__(self, id: str, frames: Generator[Stamped, None, None], *, waits: bool = False) -> None:
        self.id = id
        self.dropped = 0
        self._frames, self._waits = frames, waits
        self._newest: Stamped | None = None
        self._error: Exception | None = None
        self._ended = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._pump, name=f"reader of {id}", daemon=True)

    @property
    def waits(self) -> bool:
        """Whether the source waits for its reader: a recording behind an address, which has an end."""
        return self._waits

    def __iter__(self) -> Iterator[Stamped]:
        if self._closed or self._thread.ident is not None:
            raise InputError(f"{self.id}: a live source can be read only once; open it again")
        self._thread.start()
        try:
            while (item := self._take()) is not None:
                yield item
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and release the camera or connection."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is None:
            self._frames.close()
        elif self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)  # it may sit in a read; it ends by itself, at the latest by the timeout

    def _take(self) -> Stamped | None:
        """The newest frame, waiting for one; None at the end. Raises what made the source break off."""
        with self._changed:
            while self._newest is None and not self._ended and not self._closed:
                self._changed.wait(timeout=0.5)  # a wait without end would not let Ctrl-C through everywhere
            item, self._newest = self._newest, None
            self._changed.notify_all()
            if item is None and self._error is not None:
                raise self._error
            return item

    def _pump(self) -> None:
        try:
            for item in self._frames:
                if not self._offer(item):
                    break
        except Exception as error:
            self._error = error
        finally:
            self._frames.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _offer(self, item: Stamped) -> bool:
        with self._changed:
            while self._waits and self._newest is not None and not self._closed:
                self._changed.wait()
            self.dropped += self._newest is not None
            self._newest = item
            self._changed.notify_all()
            return not self._closed


def open_stream(source: int | str) -> LiveVideo:
    """A camera by its index (0 is the first) or a stream by its address (rtsp://, http://, ...: see PROTOCOLS).

    Raises InputError where it cannot be opened, and while reading where it breaks off before its first frame.
    """
    if isinstance(source, int):
        return LiveVideo(f"camera {source}", _camera_frames(source, _open_camera(source)))
    name = re.sub(r"//[^/@]*@", "//", source)  # without the password that an address may hold
    container = _open_address(source, name)
    return LiveVideo(name, _stream_frames(name, container), waits=container.duration is not None)


def _open_camera(number: int) -> cv2.VideoCapture:
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        camera = cv2.VideoCapture(number)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not camera.isOpened():
        raise InputError(f"camera {number} cannot be opened: none there, in use, or not allowed")
    return camera


def _camera_frames(number: int, camera: cv2.VideoCapture) -> Generator[Stamped, None, None]:
    """Frames of a camera, timed by the clock at their arrival: cameras tell no times of their own."""
    start: float | None = None
    try:
        while True:
            there, image = camera.read()
            now = time.monotonic()
            if not there:
                if start is None:
                    raise InputError(f"camera {number} gives no frames")
                return
            start = now if start is None else start
            yield now - start, torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
    finally:
        camera.release()


def _open_address(address: str, name: str) -> av.container.InputContainer:
    scheme, _, rest = address.partition("://")
    protocol = scheme.lower()  # as FFmpeg wants it
    if protocol not in PROTOCOLS:
        raise InputError(f"{name}: cannot be opened as a stream (expected {', '.join(PROTOCOLS)}, got {protocol!r})")
    options = {"protocol_whitelist": WHITELIST}
    if protocol in ("rtsp", "rtsps"):
        options["rtsp_transport"] = "tcp"  # over UDP, lost packets smear pictures
    try:
        container = open_media(f"{protocol}://{rest}", options=options, timeout=TIMEOUT)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "unknown address"
        raise InputError(f"{name}: cannot be opened as a stream ({reason.lower()})") from None
    try:
        _check_stream(container, name)
    except InputError:
        container.close()
        raise
    return container


def _check_stream(container: av.container.InputContainer, name: str) -> None:
    if not container.streams.video:
        raise InputError(f"{name}: no video in this stream")
    context = container.streams.video[0].codec_context
    if context is None:
        raise InputError(f"{name}: the video in this stream cannot be decoded")
    _check_pixels(context.width, context.height, name)


def _check_pixels(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: frames of {width}x{height} pixels are too large")


def _stream_frames(name: str, container: av.container.InputContainer) -> Generator[Stamped, None, None]:
    """Frames of a stream with its own times; the clock where it tells none."""
    start: float | None = None
    convert: Converter | None = None
    try:
        for frame in container.decode(container.streams.video[0]):
            now = time.monotonic() if frame.time is None else frame.time
            start = now if start is None else start
            _check_pixels(frame.width, frame.height, name)  # a stream may change its size
            convert = convert or Converter(quarter_turns(frame))
            yield max(now - start, 0.0), convert(frame)
    except (av.FFmpegError, OSError) as error:
        if start is None:
            raise InputError(f"{name}: no frame can be decoded ({str(error.strerror).lower()})") from None
    finally:
        container.close()
