"""What a video file says of its frames without being decoded: which there are, when they are shown, where to begin.

Two facts of video files shape this module:
- Stamps need not start at 0, need not be evenly spaced, and come in another order than they are shown (B-frames).
- AVI and raw streams hold no stamps of showing, only an order of decoding. There, frames must be counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from tubelet.core.errors import InputError, TruncatedVideo
from tubelet.core.masks import MAX_PIXELS


@dataclass(frozen=True, slots=True, eq=False)
class FrameIndex:
    """Which frames a file shows, when, and from where they can be decoded. T frames, K keyframes."""

    length: int
    stamps: np.ndarray | None  # int64 [T], ascending, in units of the stream; None where frames must be counted
    keys: np.ndarray  # int64 [K], positions of keyframes, ascending; the first is 0
    starts_at_key: bool  # False only where a stream marks no keyframe at all

    def position(self, stamp: int | None) -> int | None:
        """Which frame carries this stamp; None where the index holds no such frame."""
        if self.stamps is None or stamp is None:
            return None
        place = int(np.searchsorted(self.stamps, stamp))
        return place if place < self.length and self.stamps[place] == stamp else None

    def key_before(self, t: int) -> int:
        """Which keyframe (a place in `keys`) is the last one at or before frame t."""
        return max(int(np.searchsorted(self.keys, t, side="right")) - 1, 0)

    def from_first(self, stamp: int | None) -> FrameIndex:
        """The index without frames before the first that decodes: they refer to pictures before the file's start."""
        start = self.position(stamp)
        if not start or self.stamps is None:
            return self
        keys = np.union1d(np.zeros(1, np.int64), self.keys[self.keys >= start] - start)
        return replace(self, length=self.length - start, stamps=self.stamps[start:], keys=keys)


class Packets(NamedTuple):
    """What demuxing a file tells."""

    stamps: list[int | None]  # in the order of decoding, from the first keyframe on
    is_key: list[bool]
    counted: bool  # the stamps are guesses: trust only the order in which frames are decoded
    unit: float  # seconds per stamp
    nominal_rate: float  # frames per second
    shortage: str | None  # in words, where the file promises more than it holds

    def frame_index(self) -> FrameIndex:
        """The frames in the order of showing."""
        known = [stamp for stamp in self.stamps if stamp is not None]
        length, has_keys = len(self.stamps), any(self.is_key)
        if self.counted or len(set(known)) < length:
            return FrameIndex(length, None, np.zeros(1, np.int64), has_keys)
        stamps = np.sort(np.array(known, np.int64))
        keyed = np.array([stamp for stamp, key in zip(known, self.is_key, strict=True) if key], np.int64)
        keys = np.union1d(np.zeros(1, np.int64), np.searchsorted(stamps, keyed))
        return FrameIndex(length, stamps, keys, has_keys)


def scan(path: Path) -> Packets:
    """Read all packets of a file without decoding any; raises InputError as `open_container`."""
    with opened(path) as (container, stream):
        packets: list[tuple[int | None, bool, bool]] = []
        number, end = 0, 0.0
        for packet in demux(container):
            if packet.pts is not None and packet.time_base:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            number += not packet.is_corrupt
            if not packet.is_discard and not _is_hidden(packet, stream):
                packets.append((packet.pts, packet.is_keyframe, packet.is_corrupt))
        while packets and packets[-1][2]:  # cut through by the end of the file
            packets.pop()
        first = next((n for n, packet in enumerate(packets) if packet[1]), 0)
        return Packets(
            stamps=[stamp for stamp, _, _ in packets[first:]],
            is_key=[key for _, key, _ in packets[first:]],
            counted=container.format.name == "avi" and bool(stream.codec_context.has_b_frames),
            unit=float(stream.time_base or 0),
            nominal_rate=float(stream.average_rate or 0) or 25.0,
            shortage=_shortage(container, stream, number, end),
        )


@contextmanager
def opened(path: Path, threads: int = 1) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """`open_container` for a `with` block."""
    container, stream = open_container(path, threads)
    try:
        yield container, stream
    finally:
        container.close()


def open_container(path: Path, threads: int = 1) -> tuple[av.container.InputContainer, av.VideoStream]:
    """An open file and its best video stream.

    Raises InputError, in one line, where there is none, and TruncatedVideo for an MP4 whose end is missing, and with
    it the table of contents that it cannot be decoded without.
    """
    try:
        # a playlist must not make this program read other places than the disk
        container = av.open(str(path), metadata_errors="ignore", options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        if _is_headless_mp4(path):
            what = "an MP4 whose table of contents is missing or broken, as when a recording is cut short"
            raise TruncatedVideo(f"{path}: {what}; none of it decodes") from None
        raise InputError(f"{path}: not a video that can be read ({_reason(error)})") from None
    try:
        return container, _video_stream(container, path, threads)
    except InputError:
        container.close()
        raise


def demux(container: av.container.InputContainer, stream: av.VideoStream | None = None) -> Iterator[av.Packet]:
    """Packets until the end of the file or of what can be read of it, without the empty ones that end each stream."""
    try:
        for packet in container.demux() if stream is None else container.demux(stream):
            if packet.size:
                yield packet
    except (av.FFmpegError, OSError):
        return


def _video_stream(container: av.container.InputContainer, path: Path, threads: int) -> av.VideoStream:
    stream = container.streams.best("video")
    # FFmpeg shows any text file as a video of its letters, which nobody means
    if not isinstance(stream, av.VideoStream) or stream.codec_context is None or container.format.name == "tty":
        raise InputError(f"{path}: no video stream in it that can be decoded")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: frames of {width}x{height} pixels are too large")
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads
    return stream


def _is_hidden(packet: av.Packet, stream: av.VideoStream) -> bool:
    """VP8 sends pictures that are only referred to, never shown; bit 4 of the first byte says so (RFC 6386, 9.1)."""
    return stream.codec_context.codec.canonical_name == "vp8" and not memoryview(packet)[0] & 0x10


def _shortage(container: av.container.InputContainer, stream: av.VideoStream, number: int, end: float) -> str | None:
    if stream.frames > number:
        return f"{number} of {stream.frames} frames are in the file"
    # only where the duration is written down: elsewhere FFmpeg estimates it
    written = any(name in container.format.name for name in ("matroska", "flv"))
    duration = (container.duration or 0) / av.time_base
    if written and not stream.frames and duration - end > max(0.5, 0.02 * duration):
        return f"{end:.1f} of {duration:.1f} seconds are in the file"
    return None


def _is_headless_mp4(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(12)[4:8] == b"ftyp"
    except OSError:
        return False


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
