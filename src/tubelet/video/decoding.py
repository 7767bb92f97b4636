"""Decode the frames of a video file with FFmpeg through PyAV: exact random access, and in order without seeking.

`frames[t]` is the t-th frame of sequential decoding. It seeks to the keyframe before, decodes forward, and checks the
time stamps to know that it arrived. A frame that does not decode (damaged, or cut off) is replaced by the frame before
it, as in a player, with a TruncatedVideoWarning, so that the length of the video does not change.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from fractions import Fraction
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import av
from torch import Tensor

from tubelet.core.errors import InputError
from tubelet.video.conversion import Converter, Orientation, orientation_of
from tubelet.video.frames import LazyFrames
from tubelet.video.index import FrameIndex, demux, open_container, opened, scan
from tubelet.video.shortage import TruncatedVideoWarning

NEAR = 16  # frames; up to here, decoding on is preferred to seeking
MAX_OPEN = 8  # files that random access leaves open in a process
MAX_THREADS = 4
BIG_FRAME = 1920 * 1080  # pixels from which several decoder threads are faster
SLOW = 250  # frames; a warning is given if reading one frame decodes this many
SQUARE = Fraction(1)
WIDEST_PIXEL = 16  # width over height; a larger value is a broken header

Positioned = tuple[int, av.VideoFrame]  # position in the video, decoded frame


class SlowAccessWarning(UserWarning):
    """Frames are read out of order, and each one needs the video decoded from its start."""


class OpenedFile(NamedTuple):
    """The frames of a video file and its timing; see `open_file`."""

    frames: FileFrames
    fps: float  # mean frame rate
    times: tuple[float, ...] | None  # seconds from the first frame; None if the file has no times
    pixel_aspect: Fraction  # width of a pixel over its height


def open_file(path: Path) -> OpenedFile:
    """Index a video file and decode its first frame.

    Warns with TruncatedVideoWarning if a part of the file is missing.

    Raises:
        TruncatedVideo: for an MP4 without its table of contents.
        InputError: if the file is not a video or no frame decodes.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.video.decoding import open_file
        >>> from tubelet.video.writer import VideoWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "black.mp4")
        ...     with VideoWriter(path, size=(48, 64), fps=10) as writer:
        ...         for _ in range(3):
        ...             writer.write(np.zeros((48, 64, 3), np.uint8))
        ...     file = open_file(path)
        ...     file.frames[2].shape, file.times
        (torch.Size([3, 48, 64]), (0.0, 0.1, 0.2))
    """
    packets = scan(path)
    index = packets.frame_index()
    with opened(path) as (container, stream):
        first = next((frame for _, frame in _decode(container, stream, index)), None)
        pixel_aspect = _pixel_aspect(stream)
    if first is None:
        raise InputError(f"{path}: no frame in it can be decoded")

    index = index.from_first(first.pts)
    if packets.shortage:
        what = f"is incomplete, {packets.shortage}; {index.length} frames are kept"
        warnings.warn(f"{path}: {what}", TruncatedVideoWarning, stacklevel=2)

    orientation = orientation_of(first)
    times = packets.times(index)
    return OpenedFile(
        frames=FileFrames(path, index, (first.height, first.width), orientation),
        fps=_mean_rate(times, packets.nominal_rate),
        times=times,
        pixel_aspect=1 / pixel_aspect if orientation.is_sideways else pixel_aspect,
    )


class FileFrames(LazyFrames):
    """The frames of one video file; `open_file` makes it.

    Every iteration opens the file again, so several loops can run at the same time. The object itself
    has no open file, so it can be pickled and used after a fork.

    Args:
        path: The file.
        index: Its frames.
        coded_size: Height and width before rotation.
        orientation: How a frame becomes upright.
    """

    def __init__(self, path: Path, index: FrameIndex, coded_size: tuple[int, int], orientation: Orientation) -> None:
        self._path = path
        self._index = index
        self._coded_size = coded_size
        self._orientation = orientation

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as displayed, after rotation."""
        height, width = self._coded_size
        return (width, height) if self._orientation.is_sideways else (height, width)

    def __len__(self) -> int:
        return self._index.length

    def read(self, t: int) -> Tensor:
        # removed while in use, so that another thread opens its own
        cursor = _cursors.pop(self, None)
        if cursor is None or cursor.process != os.getpid():
            cursor = _Cursor(self._path, self._index, self._converter())

        image = cursor.read(t)
        _cursors[self] = cursor
        while len(_cursors) > MAX_OPEN:
            oldest = _cursors.pop(next(iter(_cursors)), None)
            if oldest is not None:
                oldest.close()
        return image

    def __iter__(self) -> Iterator[Tensor]:
        convert = self._converter()
        image: Tensor | None = None
        num_yielded = 0
        num_missing = 0
        with opened(self._path, self._threads()) as (container, stream):
            for position, frame in _decode(container, stream, self._index):
                while image is not None and num_yielded < position:
                    yield image
                    num_yielded += 1
                    num_missing += 1

                if position >= num_yielded:
                    image = convert(frame)
                    yield image
                    num_yielded += 1

        if image is None:
            raise _unreadable(self._path, 0)
        for _ in range(num_yielded, len(self)):
            yield image

        num_missing += len(self) - num_yielded
        if num_missing:
            what = f"{num_missing} of {len(self)} frames do not decode; the frame before is shown in their place"
            warnings.warn(f"{self._path}: {what}", TruncatedVideoWarning, stacklevel=2)

    def _converter(self) -> Converter:
        return Converter(self._orientation, self._coded_size)

    def _threads(self) -> int:
        height, width = self._coded_size
        if height * width < BIG_FRAME:
            return 1
        return min(os.cpu_count() or 1, MAX_THREADS)


class _Cursor:
    """An open file and its position in it, so that reading on needs no seek."""

    def __init__(self, path: Path, index: FrameIndex, convert: Converter) -> None:
        self.process = os.getpid()
        self._path = path
        self._index = index
        self._convert = convert
        self._container, self._stream = open_container(path)
        self._frames = _decode(self._container, self._stream, index)
        self._key = 0  # the keyframe at which decoding started
        self._current: Positioned | None = None
        self._next: Positioned | None = None  # the frame after it, if decoded already
        self._image: Tensor | None = None  # the current frame, converted

    def close(self) -> None:
        self._container.close()

    def read(self, t: int) -> Tensor:
        if not self._can_decode_on_to(t):
            self._start(self._index.key_before(t))
            self._warn_if_slow(t)

        step = 1
        while (current := self._advance(t)) is None:
            # the seek went too far, or the first frames depend on earlier ones: start further back
            if self._key == 0:
                raise _unreadable(self._path, t)
            self._start(max(self._key - step, 0))
            step *= 2

        position, frame = current
        if position != t:
            what = f"frame {t} does not decode; the frame before is shown in its place"
            warnings.warn(f"{self._path}: {what}", TruncatedVideoWarning, stacklevel=4)
        if self._image is None:
            self._image = self._convert(frame)
        return self._image

    def _can_decode_on_to(self, t: int) -> bool:
        """Whether frame t is ahead, and near or without a keyframe in between."""
        position = 0 if self._current is None else self._current[0]
        if t < position:
            return False
        if t - position <= NEAR:
            return True
        return bool(self._index.keys[self._index.key_before(t)] <= position)

    def _start(self, key: int) -> None:
        """Continue at a keyframe, given as an index into the index's `keys`."""
        self._current = None
        self._next = None
        self._image = None
        self._key = key if key > 0 and self._seek(key) else 0
        if self._key == 0:  # only opening the file again is sure to lead to the first frame
            self._container.close()
            self._container, self._stream = open_container(self._path)
            self._frames = _decode(self._container, self._stream, self._index)

    def _warn_if_slow(self, t: int) -> None:
        if self._key == 0 and t >= SLOW:
            what = "frames are read out of order, and each must be decoded from the first one on, which is slow"
            warnings.warn(f"{self._path}: {what}", SlowAccessWarning, stacklevel=5)

    def _seek(self, key: int) -> bool:
        """Seek to a keyframe; False if the file does not allow it."""
        if self._index.stamps is None:
            return False
        try:
            stamp = int(self._index.stamps[self._index.keys[key]])
            self._container.seek(stamp, stream=self._stream)
        except (av.FFmpegError, OSError):
            return False

        frames = _decode(self._container, self._stream, self._index)
        self._frames = dropwhile(lambda item: not self._is_start(*item), frames)
        return True

    def _is_start(self, position: int, frame: av.VideoFrame) -> bool:
        """Whether decoding can start at a frame that follows a seek.

        In an AVI without an index every packet is marked as a keyframe, so the decoded frame must tell. An
        MPEG program stream that is damaged gives other time stamps after a seek, so the index must agree. A
        damaged keyframe is filled in from the frames before it.
        """
        return frame.key_frame and not frame.is_corrupt and self._index.is_key(position)

    def _advance(self, t: int) -> Positioned | None:
        """Decode up to frame t, or the last frame before it that decodes; None if decoding started after t."""
        while self._current is None or self._current[0] < t:
            self._next = self._next or next(self._frames, None)
            if self._next is None or self._next[0] > t:
                break
            self._current = self._next
            self._next = None
            self._image = None
        return self._current


_cursors: WeakKeyDictionary[FileFrames, _Cursor] = WeakKeyDictionary()  # in order of last use


def _decode(container: av.container.InputContainer, stream: av.VideoStream, index: FrameIndex) -> Iterator[Positioned]:
    """Frames from the container's current position on, in display order."""
    for count, frame in enumerate(_all_frames(container, stream, index)):
        position = count if index.stamps is None else index.position(frame.pts)
        if position is not None and position < index.length:
            yield position, frame


def _all_frames(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    index: FrameIndex,
) -> Iterator[av.VideoFrame]:
    """Decoded frames from the next keyframe on, including those that are not shown."""
    before_key = index.starts_at_key  # before a keyframe, some decoders give grey frames
    for packet in demux(container, stream):
        before_key = before_key and not packet.is_keyframe
        if index.by_offset is not None:
            packet.pts = index.by_offset.at(packet.pos)
        if not before_key:
            yield from _decode_packet(stream, packet)
    yield from _decode_packet(stream, None)


def _decode_packet(stream: av.VideoStream, packet: av.Packet | None) -> list[av.VideoFrame]:
    """The frames that a packet completes; None flushes the decoder."""
    try:
        return stream.decode(packet)
    except (av.FFmpegError, OSError):
        return []  # the packet is damaged, but later ones may not be


def _pixel_aspect(stream: av.VideoStream) -> Fraction:
    aspect = Fraction(stream.sample_aspect_ratio or 0)
    is_plausible = 1 <= aspect * WIDEST_PIXEL <= WIDEST_PIXEL**2
    return aspect if is_plausible else SQUARE


def _mean_rate(times: tuple[float, ...] | None, nominal: float) -> float:
    if times and times[-1] > 0:
        return (len(times) - 1) / times[-1]
    return nominal


def _unreadable(path: Path, t: int) -> InputError:
    return InputError(f"{path}: frame {t} cannot be decoded any more; was the file changed?")
