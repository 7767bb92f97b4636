"""Read cameras and network streams: a thread keeps the newest frame, so memory is constant."""

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
from tubelet.video.conversion import Converter, orientation_of
from tubelet.video.media import open_media

TIMEOUT = 10.0  # seconds without data after which a stream counts as ended
PROTOCOLS = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")
# also the protocols that those use, but not "file": a remote playlist must not read this machine's disk
WHITELIST = ",".join((*PROTOCOLS, "crypto", "httpproxy", "rtmpt", "rtmpts", "tls"))

Stamped = tuple[float, Tensor]  # seconds from the first frame, uint8 [3, H, W] RGB


class LiveVideo:
    """A live source; iterate over it once, for (seconds since the first frame, uint8 [3, H, W] RGB).

    Each step gives the newest frame. Frames that arrive while the caller is busy are not queued but
    dropped, and counted in `dropped`. The source is released at the end of the loop, by `close()`,
    or at the end of a `with` block. `open_stream` makes one.

    Args:
        id: Name of the source, for messages.
        frames: Yields frames as described above.
        waits: The source waits for its reader, so no frame is dropped.
        stop: Set by `close()`, for frames that would wait for something else.

    Example:
        >>> from tubelet.video.live import LiveVideo
        >>> frames = ((t / 25, torch.zeros(3, 4, 6, dtype=torch.uint8)) for t in range(3))
        >>> with LiveVideo("test", frames, waits=True) as video:
        ...     [time for time, frame in video]
        [0.0, 0.04, 0.08]
    """

    def __init__(
        self,
        id: str,
        frames: Generator[Stamped, None, None],
        *,
        waits: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        self.id = id
        self.dropped = 0
        self._stop = stop or threading.Event()
        self._frames = frames
        self._waits = waits
        self._newest: Stamped | None = None
        self._error: Exception | None = None
        self._ended = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._pump, name=f"reader of {id}", daemon=True)

    @property
    def waits(self) -> bool:
        """Whether the source waits for its reader, as a recording at an address does; it then has an end."""
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
        self._stop.set()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is None:
            self._frames.close()
        elif self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)  # it may be blocked in a read, which ends after TIMEOUT at the latest

    def _take(self) -> Stamped | None:
        """Wait for the newest frame; None at the end. Raises the error that ended the source, if any."""
        with self._changed:
            while self._newest is None and not self._ended and not self._closed:
                self._changed.wait(timeout=0.5)  # without a timeout, some platforms block Ctrl-C

            item = self._newest
            self._newest = None
            self._changed.notify_all()
            if item is None and self._error is not None:
                raise self._error
            return item

    def _pump(self) -> None:
        """Read the source until its end; runs in the thread."""
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
        """Replace the newest frame; False if no more frames are needed."""
        with self._changed:
            while self._waits and self._newest is not None and not self._closed:
                self._changed.wait()

            self.dropped += self._newest is not None
            self._newest = item
            self._changed.notify_all()
            return not self._closed


def open_stream(source: int | str) -> LiveVideo:
    """Open a camera or a network stream.

    Args:
        source: Index of the camera, from 0, or an address (rtsp://, http:// and so on, see PROTOCOLS).

    Raises:
        InputError: if it cannot be opened; while reading, if it ends before its first frame.
    """
    if isinstance(source, int):
        return LiveVideo(f"camera {source}", _camera_frames(source, _open_camera(source)))

    name = re.sub(r"//[^/@]*@", "//", source)  # without a user name and password
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
    """Frames of a camera, with the times at which they arrive, since cameras give none."""
    start: float | None = None
    try:
        while True:
            success, image = camera.read()
            now = time.monotonic()
            if not success:
                if start is None:
                    raise InputError(f"camera {number} gives no frames")
                return

            if start is None:
                start = now
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            yield now - start, torch.from_numpy(rgb).permute(2, 0, 1)
    finally:
        camera.release()


def _open_address(address: str, name: str) -> av.container.InputContainer:
    scheme, _, rest = address.partition("://")
    protocol = scheme.lower()  # FFmpeg needs lower case
    if protocol not in PROTOCOLS:
        raise InputError(f"{name}: cannot be opened as a stream (expected {', '.join(PROTOCOLS)}, got {protocol!r})")

    options = {"protocol_whitelist": WHITELIST}
    if protocol in ("rtsp", "rtsps"):
        options["rtsp_transport"] = "tcp"  # over UDP, lost packets corrupt frames
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
    """Frames of a stream with its own times, or those of their arrival if it has none."""
    start: float | None = None
    convert: Converter | None = None
    try:
        for frame in container.decode(container.streams.video[0]):
            now = time.monotonic() if frame.time is None else frame.time
            if start is None:
                start = now

            _check_pixels(frame.width, frame.height, name)  # a stream may change its size
            if convert is None:
                convert = Converter(orientation_of(frame))
            yield max(now - start, 0.0), convert(frame)
    except (av.FFmpegError, OSError) as error:
        if start is None:
            raise InputError(f"{name}: no frame can be decoded ({str(error.strerror).lower()})") from None
    finally:
        container.close()
