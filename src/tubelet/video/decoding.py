"""Frames of a video file, decoded by FFmpeg through PyAV: exact random access, and in order without seeking.

`frames[t]` is the t-th frame that sequential decoding shows: it jumps to the keyframe before, decodes forward, and
checks by the stamps that it did arrive. A frame that does not decode (damaged, or lost with the end of the file) shows
the one before it, as a player does, so that the length stays what it was, and a TruncatedVideoWarning says so.
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
from tubelet.video.conversion import Converter, quarter_turns
from tubelet.video.frames import LazyFrames
from tubelet.video.index import FrameIndex, demux, open_container, opened, scan
from tubelet.video.shortage import TruncatedVideoWarning

NEAR = 16  # so many frames ahead are reached by decoding on, even where a keyframe lies between
MAX_OPEN = 8  # random access keeps so many files open in a process, whatever the number of videos
MAX_THREADS = 4
BIG_FRAME = 1920 * 1080  # pixels from which on decoding is worth more than one thread
SLOW = 250  # so many frames decoded for one that is asked for are worth a warning
SQUARE = Fraction(1)
WIDEST_PIXEL = 16  # width over height; more is a broken header

Positioned = tuple[int, av.VideoFrame]  # which frame it is, and its picture


class SlowAccessWarning(UserWarning):
    """Frames of a video are read out of order, and each needs the video decoded from its start."""


class OpenedFile(NamedTuple):
    """What opening a file tells: its frames and when they are shown."""

    frames: FileFrames
    fps: float  # mean frame rate
    times: tuple[float, ...] | None  # seconds from the first frame; None where the file tells none
    pixel_aspect: Fraction  # width of a pixel over its height


def open_file(path: Path) -> OpenedFile:
    """Index a video file and decode its first frame.

    Raises InputError for what is no video or has no frame that decodes, TruncatedVideo for an MP4 without its end.
    Warns with TruncatedVideoWarning where the file holds less than it promises.
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
    frames = FileFrames(path, index, (first.height, first.width), quarter_turns(first))
    times = packets.times(index)
    shown_aspect = 1 / pixel_aspect if quarter_turns(first) % 2 else pixel_aspect
    return OpenedFile(frames, _mean_rate(times, packets.nominal_rate), times, shown_aspect)


class FileFrames(LazyFrames):
    """The frames of one video file. Iterating opens the file anew, so that loops do not disturb each other.

    Holds no open file itself, so it can be pickled and used after a fork: a process opens what it reads from.
    """

    def __init__(self, path: Path, index: FrameIndex, coded_size: tuple[int, int], turns: int) -> None:
        self._path, self._index = path, index
        self._coded_size, self._turns = coded_size, turns

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as shown, after rotation."""
        height, width = self._coded_size
        return (width, height) if self._turns % 2 else (height, width)

    def __len__(self) -> int:
        return self._index.length

    def read(self, t: int) -> Tensor:
        # taken out while in use: a second thread then opens its own instead of disturbing this one
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
        convert, missing, shown = self._converter(), 0, 0
        image: Tensor | None = None
        with opened(self._path, self._threads()) as (container, stream):
            for position, frame in _decode(container, stream, self._index):
                while image is not None and shown < position:
                    yield image
                    shown, missing = shown + 1, missing + 1
                if position >= shown:
                    image = convert(frame)
                    yield image
                    shown += 1
        if image is None:
            raise _unreadable(self._path, 0)
        for _ in range(shown, len(self)):
            yield image
        missing += len(self) - shown
        if missing:
            what = f"{missing} of {len(self)} frames do not decode; the frame before is shown in their place"
            warnings.warn(f"{self._path}: {what}", TruncatedVideoWarning, stacklevel=2)

    def _converter(self) -> Converter:
        return Converter(self._turns, self._coded_size)

    def _threads(self) -> int:
        height, width = self._coded_size
        return min(os.cpu_count() or 1, MAX_THREADS) if height * width >= BIG_FRAME else 1


class _Cursor:
    """One open file that remembers where it is, so that reading on needs no seek."""

    def __init__(self, path: Path, index: FrameIndex, convert: Converter) -> None:
        self.process = os.getpid()
        self._path, self._index, self._convert = path, index, convert
        self._container, self._stream = open_container(path)
        self._frames = _decode(self._container, self._stream, index)
        self._key = 0  # the keyframe at which decoding started
        self._shown: Positioned | None = None
        self._next: Positioned | None = None  # decoded already, but shown later
        self._image: Tensor | None = None  # the shown frame, converted

    def close(self) -> None:
        self._container.close()

    def read(self, t: int) -> Tensor:
        if not self._leads_to(t):
            self._start(self._index.key_before(t))
            self._warn_if_slow(t)
        step = 1
        while (shown := self._advance(t)) is None:
            # the jump arrived too late, or its first frames need others before it: start further back
            if self._key == 0:
                raise _unreadable(self._path, t)
            self._start(max(self._key - step, 0))
            step *= 2
        if shown[0] != t:
            what = f"frame {t} does not decode; the frame before is shown in its place"
            warnings.warn(f"{self._path}: {what}", TruncatedVideoWarning, stacklevel=4)
        if self._image is None:
            self._image = self._convert(shown[1])
        return self._image

    def _leads_to(self, t: int) -> bool:
        at = 0 if self._shown is None else self._shown[0]  # a fresh cursor stands before the first frame
        return at <= t and (t - at <= NEAR or bool(self._index.keys[self._index.key_before(t)] <= at))

    def _start(self, key: int) -> None:
        self._shown = self._next = self._image = None
        self._key = key if key > 0 and self._jump(key) else 0
        if self._key == 0:  # opening again is the one way that surely leads to the first frame
            self._container.close()
            self._container, self._stream = open_container(self._path)
            self._frames = _decode(self._container, self._stream, self._index)

    def _warn_if_slow(self, t: int) -> None:
        if self._key == 0 and t >= SLOW:
            what = "frames are read out of order, and each must be decoded from the first one on, which is slow"
            warnings.warn(f"{self._path}: {what}", SlowAccessWarning, stacklevel=5)

    def _jump(self, key: int) -> bool:
        if self._index.stamps is None:
            return False
        try:
            self._container.seek(int(self._index.stamps[self._index.keys[key]]), stream=self._stream)
        except (av.FFmpegError, OSError):
            return False
        frames = _decode(self._container, self._stream, self._index)
        # where an AVI lost its index, every packet claims to be a keyframe: only the decoded picture tells
        self._frames = dropwhile(lambda item: not item[1].key_frame, frames)
        return True

    def _advance(self, t: int) -> Positioned | None:
        """Decode until the frame shown at t is there; None where decoding started after it."""
        while self._shown is None or self._shown[0] < t:
            self._next = self._next or next(self._frames, None)
            if self._next is None or self._next[0] > t:
                break
            self._shown, self._next, self._image = self._next, None, None
        return self._shown


_cursors: WeakKeyDictionary[FileFrames, _Cursor] = WeakKeyDictionary()  # in order of last use


def _decode(container: av.container.InputContainer, stream: av.VideoStream, index: FrameIndex) -> Iterator[Positioned]:
    """Frames from wherever the container stands, in the order of showing."""
    for count, frame in enumerate(_pictures(container, stream, index)):
        position = count if index.stamps is None else index.position(frame.pts)
        if position is not None and position < index.length:
            yield position, frame


def _pictures(
    container: av.container.InputContainer, stream: av.VideoStream, index: FrameIndex
) -> Iterator[av.VideoFrame]:
    waiting = index.starts_at_key  # before a keyframe some decoders give grey pictures
    for packet in demux(container, stream):
        waiting = waiting and not packet.is_keyframe
        if index.by_offset is not None:
            packet.pts = index.by_offset.at(packet.pos)
        if not waiting:
            yield from _decoded(stream, packet)
    yield from _decoded(stream, None)


def _decoded(stream: av.VideoStream, packet: av.Packet | None) -> list[av.VideoFrame]:
    try:
        return stream.decode(packet)
    except (av.FFmpegError, OSError):
        return []  # a damaged packet: the ones after it may be sound


def _pixel_aspect(stream: av.VideoStream) -> Fraction:
    aspect = Fraction(stream.sample_aspect_ratio or 0)
    return aspect if 1 <= aspect * WIDEST_PIXEL <= WIDEST_PIXEL**2 else SQUARE


def _mean_rate(times: tuple[float, ...] | None, nominal: float) -> float:
    return (len(times) - 1) / times[-1] if times and times[-1] > 0 else nominal


def _unreadable(path: Path, t: int) -> InputError:
    return InputError(f"{path}: frame {t} cannot be decoded any more; was the file changed?")
