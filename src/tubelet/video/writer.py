"""Write frames as an H.264 video that browsers can play and seek, or as a folder of PNG images; both atomically.

Frames go to a temporary file beside the target, which replaces the target when the `with` block ends without an
exception. An exception, Ctrl-C or a full disk leaves neither a partial target nor the temporary file.
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from tubelet.core.atomic import move, scratch_name, sweep
from tubelet.core.errors import InputError
from tubelet.video.index import plain_path

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
ENCODER = "libx264"
CLOCK = 90_000  # time stamps per second; common frame rates give whole numbers
QUALITY = 23  # x264's rate factor; lower is better and larger
AVX512 = 256  # OpenCV's number of the processor feature AVX512-SKX
# all that a processor with AVX-512 has, except AVX-512 itself, so that x264 does not use that
UP_TO_AVX2 = "MMX2,SSE2,SSE3,SSSE3,SSE4,SSE42,AVX,FMA3,BMI1,BMI2,AVX2"
BT709 = 1  # primaries, transfer and matrix of HD video, in the numbering of ITU-T H.273
LIMITED_RANGE = 1
SQUARE = Fraction(1)
MARKER = ".written-by-tubelet"
OUR_NAMES = re.compile(rf"\d{{5,}}\.png|{re.escape(MARKER)}")


class FrameWriter(ABC):
    """Base class of the writers: the `with` block ends with a complete target or with none."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.count = 0  # frames written
        self._temporary = scratch_name(target)
        with self._guarded():
            target.parent.mkdir(parents=True, exist_ok=True)
            sweep(target.parent)

    @abstractmethod
    def write(self, frame: np.ndarray, time: float | None = None) -> None:
        """Append one frame, uint8 [H, W, 3] RGB; `time` is in seconds, for formats with times."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the temporary target."""

    @abstractmethod
    def _replace(self) -> None:
        """Replace the target by the temporary one."""

    @abstractmethod
    def _discard(self) -> None:
        """Remove the temporary target if it exists; must not raise."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                if self.count == 0:
                    raise InputError(f"{self.target}: no frame to write")
                with self._guarded():
                    self._finish()
                    self._replace()
        finally:
            self._discard()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{self.target}: cannot be written ({str(error.strerror).lower()})") from None


class EncodedWriter(FrameWriter):
    """A FrameWriter whose frames go through an encoder into one file: what videos of every form share."""

    _container: av.container.OutputContainer
    _stream: av.VideoStream

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def _replace(self) -> None:
        move(self._temporary, self.target)

    def _discard(self) -> None:
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


class VideoWriter(EncodedWriter):
    """Writes frames as H.264 video: 4:2:0, BT.709, a keyframe every second, ready to stream.

    The same frames give the same bytes, as long as the number of threads is the same. H.264 needs
    even sizes, so the last row or column of an odd size is repeated.

    Args:
        path: The target: .mp4, .m4v, .mov or .mkv.
        size: Height and width of every frame.
        fps: Frame rate of frames that are written without a time.
        pixel_aspect: Width of a pixel over its height, for players; frames are not scaled.
        threads: Number of encoder threads; 0 for one per processor.

    Raises:
        InputError: for another suffix, for a frame of another size, if no frame was written, or if
            the file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.video.writer import VideoWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with VideoWriter(Path(folder, "black.mp4"), size=(48, 64), fps=10) as writer:
        ...         for _ in range(3):
        ...             writer.write(np.zeros((48, 64, 3), np.uint8))
        ...     tubelet.open_video(Path(folder, "black.mp4"))
        Video(id='black', size=(48, 64), frames=3, fps=10, tracks=unknown)
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: float = 25.0,
        *,
        pixel_aspect: Fraction = SQUARE,
        threads: int = 0,
    ) -> None:
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in CONTAINERS:
            raise InputError(f"{path}: expected a name that ends in {', '.join(CONTAINERS)}")
        if not (math.isfinite(fps) and fps > 0):
            raise InputError(f"{path}: a frame rate must be a positive number, got {fps}")
        if ENCODER not in av.codecs_available:
            raise InputError(f"{path}: the FFmpeg of this PyAV has no H.264 encoder ({ENCODER})")

        super().__init__(path)
        self.size = size
        self.fps = fps
        self._pixel_aspect = pixel_aspect
        self._first_time: float | None = None
        self._stamp = -1
        self._reformatter = VideoReformatter()

        container_format = CONTAINERS[suffix]
        options = {} if container_format == "matroska" else {"movflags": "+faststart"}
        with self._guarded():
            self._container = av.open(plain_path(self._temporary), "w", format=container_format, options=options)
        self._stream = self._add_stream(threads)

    def write(self, frame: np.ndarray, time: float | None = None) -> None:
        """Append one frame.

        Args:
            frame: uint8 [H, W, 3] RGB.
            time: Seconds at which it is displayed; the first frame's time becomes 0. By default 1 / fps
                after the previous frame. A time that does not increase is moved up by one tick.
        """
        _check(frame, self.size, self.target)
        picture = av.VideoFrame.from_ndarray(self._even(frame), format="rgb24")
        picture = self._reformatter.reformat(picture, format="yuv420p", dst_colorspace=Colorspace.ITU709, threads=1)
        picture.pts = self._next_stamp(time)
        picture.time_base = Fraction(1, CLOCK)

        with self._guarded():
            self._container.mux(self._stream.encode(picture))
        self.count += 1

    def _add_stream(self, threads: int) -> av.VideoStream:
        height, width = self.size
        rate = Fraction(self.fps).limit_denominator(1001)
        # measured at 640x360: 2.7 ms a frame and half the bytes of "ultrafast", which takes 1.6 ms
        options = {"preset": "veryfast", "crf": str(QUALITY), **_repeatable()}

        stream = self._container.add_stream(ENCODER, rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width = width + width % 2
        stream.height = height + height % 2
        stream.pix_fmt = "yuv420p"

        context = stream.codec_context
        context.sample_aspect_ratio = self._pixel_aspect
        context.thread_count = threads
        context.time_base = Fraction(1, CLOCK)
        context.gop_size = max(round(self.fps), 1)
        context.color_primaries = BT709
        context.color_trc = BT709
        context.colorspace = BT709
        context.color_range = LIMITED_RANGE
        return stream

    def _even(self, frame: np.ndarray) -> np.ndarray:
        height, width = self.size
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return np.ascontiguousarray(frame)

    def _next_stamp(self, time: float | None) -> int:
        step = max(round(CLOCK / self.fps), 1)
        if time is None:
            self._stamp = self._stamp + step if self.count else 0
        else:
            if self._first_time is None:
                self._first_time = time
            self._stamp = max(round((time - self._first_time) * CLOCK), self._stamp + 1)
        return self._stamp


class ImageWriter(FrameWriter):
    """Writes frames as a folder of images 00000.png, 00001.png and so on, without times.

    An existing folder is replaced if it is empty or has only files of this class.

    Args:
        folder: The target.
        replace: Replace an existing folder, whatever it contains.

    Raises:
        InputError: if the folder exists and may not be replaced, for a frame of another size, if no
            frame was written, or if the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.video.writer import ImageWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ImageWriter(Path(folder, "frames")) as writer:
        ...         writer.write(np.zeros((4, 6, 3), np.uint8))
        ...     [path.name for path in Path(folder, "frames").glob("*.png")]
        ['00000.png']
    """

    def __init__(self, folder: str | Path, *, replace: bool = False) -> None:
        folder = Path(folder)
        if not replace and not _may_replace(folder):
            raise InputError(f"{folder}: exists and holds files of others; choose another folder or remove it")

        super().__init__(folder)
        self._size: tuple[int, int] | None = None
        with self._guarded():
            self._temporary.mkdir()
            (self._temporary / MARKER).write_text(
                "This folder is replaced when its frames are written anew.\n", encoding="utf-8"
            )

    def write(self, frame: np.ndarray, time: float | None = None) -> None:
        """Append one frame, uint8 [H, W, 3] RGB, of the same size as the first."""
        if self._size is None:
            self._size = (frame.shape[0], frame.shape[1])
        _check(frame, self._size, self.target)

        bgr = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        with self._guarded():
            (self._temporary / f"{self.count:05d}.png").write_bytes(data.tobytes())
        self.count += 1

    def _finish(self) -> None:
        """Do nothing: each image is complete once it is written."""

    def _replace(self) -> None:
        move(self._temporary, self.target)

    def _discard(self) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)


def _repeatable() -> dict[str, str]:
    """Options with which x264 encodes the same frames to the same bytes every time.

    Its AVX-512 code for the macroblock tree (core 165) reads uninitialised memory: 40 runs with the
    same frames gave up to 25 different files. With AVX2 they gave one, as fast (640x360, one thread:
    4.5 ms a frame) and as small.
    """
    return {"x264-params": f"asm={UP_TO_AVX2}"} if cv2.checkHardwareSupport(AVX512) else {}


def _may_replace(folder: Path) -> bool:
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False

    names = [entry.name for entry in folder.iterdir()]
    is_ours = MARKER in names and all(OUR_NAMES.fullmatch(name) for name in names)
    return not names or is_ours


def _check(frame: np.ndarray, size: tuple[int, int], target: Path) -> None:
    if frame.dtype != np.uint8 or frame.shape != (*size, 3):
        given = f"{frame.dtype} {list(frame.shape)}"
        raise InputError(f"{target}: expected frames of uint8 [{size[0]}, {size[1]}, 3], got {given}")
