"""Write frames with transparency as a WebM video (VP9), which browsers and editing programs lay over others."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tubelet.core.errors import InputError
from tubelet.video.index import plain_path
from tubelet.video.writer import EncodedWriter

ENCODER = "libvpx-vp9"
CLOCK = 1000  # time stamps per second, as WebM has them
OPTIONS = {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"}


class TransparentWriter(EncodedWriter):
    """Writes frames of RGBA; odd sizes lose their last row or column.

    Args:
        path: The target, .webm.
        size: Height and width of every frame, at least 2 each.
        fps: Frame rate of frames that are written without a time.

    Raises:
        InputError: for another suffix, for a frame of another size, if no frame was written, or if the
            file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.video.transparent import TransparentWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with TransparentWriter(Path(folder, "clear.webm"), size=(48, 64), fps=10) as writer:
        ...         for _ in range(3):
        ...             writer.write(np.zeros((48, 64, 4), np.uint8))
        ...     len(tubelet.open_video(Path(folder, "clear.webm")))
        3
    """

    def __init__(self, path: str | Path, size: tuple[int, int], fps: float = 25.0) -> None:
        path = Path(path)
        if path.suffix.lower() != ".webm":
            raise InputError(f"{path}: expected a name that ends in .webm")
        if min(size) < 2:
            raise InputError(f"{path}: expected frames of 2x2 pixels or more, got {size[1]}x{size[0]}")
        if ENCODER not in av.codecs_available:
            raise InputError(f"{path}: the FFmpeg of this PyAV has no VP9 encoder ({ENCODER})")

        super().__init__(path)
        self.size = size
        self.fps = fps
        self._stamp = -1
        self._first_time: float | None = None
        with self._guarded():
            self._container = av.open(plain_path(self._temporary), "w", format="webm")
        stream = self._container.add_stream(ENCODER, rate=Fraction(fps).limit_denominator(1001), options=OPTIONS)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = (side - side % 2 for side in size)
        stream.pix_fmt = "yuva420p"
        stream.codec_context.time_base = Fraction(1, CLOCK)
        self._stream = stream

    def write(self, frame: np.ndarray, time: float | None = None) -> None:
        """Append one frame, uint8 [H, W, 4] RGBA, at `time` seconds; by default 1 / fps after the one before."""
        if frame.dtype != np.uint8 or frame.shape != (*self.size, 4):
            given = f"{frame.dtype} {list(frame.shape)}"
            raise InputError(f"{self.target}: expected frames of uint8 {[*self.size, 4]}, got {given}")

        even = np.ascontiguousarray(frame[: self._stream.height, : self._stream.width])
        picture = av.VideoFrame.from_ndarray(even, format="rgba").reformat(format="yuva420p")
        picture.pts = self._next_stamp(time)
        picture.time_base = Fraction(1, CLOCK)
        with self._guarded():
            self._container.mux(self._stream.encode(picture))
        self.count += 1

    def _next_stamp(self, time: float | None) -> int:
        if time is None:
            wanted = round(self.count * CLOCK / self.fps)
        else:
            self._first_time = time if self._first_time is None else self._first_time
            wanted = round((time - self._first_time) * CLOCK)
        self._stamp = max(wanted, self._stamp + 1)
        return self._stamp
