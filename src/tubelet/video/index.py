"""What a video file says of its frames without being decoded: which there are, when they are shown, where to begin.

Three facts of video files shape this module:
- Stamps need not start at 0, need not be evenly spaced, and come in another order than they are shown (B-frames).
- AVI and raw streams hold no stamps of showing, only an order of decoding. There, frames must be counted.
- A clip that was trimmed without encoding it again begins with pictures that are decoded but not shown ("discarded").
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from tubelet.core.errors import InputError, TruncatedVideo
from tubelet.core.masks import MAX_PIXELS
from tubelet.video.media import open_media
from tubelet.video.shortage import Demuxed, promised_packets, shortage


@dataclass(frozen=True, slots=True, eq=False)
class OffsetStamps:
    """Stamps by where their packets lie in the file, for a container whose own stamps change after a seek.

    An AVI counts its packets. Without its index, that count starts from a guess after a seek.
    """

    offsets: np.ndarray  # int64 [T], bytes from the start of the file, ascending
    stamps: np.ndarray  # int64 [T]

    def at(self, offset: int | None) -> int | None:
        """The stamp of the packet at a byte of the file; None where no frame of the index begins there."""
        if offset is None:
            return None
        row = int(np.searchsorted(self.offsets, offset))
        return int(self.stamps[row]) if row < len(self.offsets) and self.offsets[row] == offset else None


@dataclass(frozen=True, slots=True, eq=False)
class FrameIndex:
    """Which frames a file shows, when, and from where they can be decoded. T frames, K keyframes."""

    length: int
    stamps: np.ndarray | None  # int64 [T], ascending, in units of the stream; None where frames must be counted
    keys: np.ndarray  # int64 [K], positions of keyframes, ascending; the first is 0
    starts_at_key: bool  # False only where a stream marks no keyframe at all
    by_offset: OffsetStamps | None = None  # replaces the stamps of packets while decoding

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


class Listed(NamedTuple):
    """One packet of the video stream, in the order of decoding."""

    pts: int | None
    dts: int | None
    offset: int | None  # bytes from the start of the file
    is_key: bool
    is_shown: bool  # False for a picture that others refer to, but that an edit list leaves out
    is_corrupt: bool


class Packets(NamedTuple):
    """What demuxing a file tells."""

    shown: list[Listed]  # in the order of decoding, from the first keyframe on
    has_keys: bool
    is_avi: bool  # the only clock is the order of decoding, in ticks of one frame
    is_reordered: bool  # B-frames: shown in another order than decoded
    unit: float  # seconds per stamp
    nominal_rate: float  # frames per second
    shortage: str | None  # in words, where the file promises more than it holds

    def frame_index(self) -> FrameIndex:
        """The frames in the order of showing."""
        length = len(self.shown)
        known = [packet for packet in self.shown if self._stamp(packet) is not None]
        stamps = np.sort(np.array([self._stamp(packet) for packet in known], np.int64))
        if (self.is_avi and self.is_reordered) or len(np.unique(stamps)) < length:
            return FrameIndex(length, None, np.zeros(1, np.int64), self.has_keys)
        keyed = np.array([self._stamp(packet) for packet in known if packet.is_key], np.int64)
        keys = np.union1d(np.zeros(1, np.int64), np.searchsorted(stamps, keyed))
        return FrameIndex(length, stamps, keys, self.has_keys, self._by_offset() if self.is_avi else None)

    def times(self, index: FrameIndex) -> tuple[float, ...] | None:
        """Seconds of each frame from the first; None where the file tells none."""
        stamps = index.stamps
        if stamps is None and self.is_avi:
            # B-frames change places among themselves, so the n-th one shown takes the n-th tick
            ticks = [packet.dts for packet in self.shown if packet.dts is not None]
            stamps = np.sort(np.array(ticks, np.int64)) if len(ticks) == index.length else None
        return None if stamps is None else tuple(((stamps - stamps[0]) * self.unit).tolist())

    def _stamp(self, packet: Listed) -> int | None:
        return packet.dts if self.is_avi else packet.pts

    def _by_offset(self) -> OffsetStamps | None:
        if any(packet.offset is None for packet in self.shown):
            return None
        offsets = np.array([packet.offset for packet in self.shown], np.int64)
        order = np.argsort(offsets)
        return OffsetStamps(offsets[order], np.array([packet.dts for packet in self.shown], np.int64)[order])


def scan(path: Path) -> Packets:
    """Read all packets of a file without decoding any; raises InputError as `open_container`."""
    with opened(path) as (container, stream):
        promised = promised_packets(container, stream)
        packets: list[Listed] = []
        number, end = 0, 0.0
        for packet in demux(container):
            if packet.pts is not None and packet.time_base:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            number += not packet.is_corrupt
            if not _is_hidden(packet, stream):
                packets.append(_listed(packet))
        while packets and packets[-1].is_corrupt:  # cut through by the end of the file
            packets.pop()
        ticks = [packet.dts for packet in packets if packet.dts is not None]
        return Packets(
            shown=_shown(packets),
            has_keys=any(packet.is_key for packet in packets),
            is_avi=container.format.name == "avi",
            is_reordered=bool(stream.codec_context.has_b_frames),
            unit=float(stream.time_base or 0),
            nominal_rate=float(stream.average_rate or 0) or 25.0,
            shortage=shortage(path, container, stream, Demuxed(promised, number, end, ticks)),
        )


def _listed(packet: av.Packet) -> Listed:
    return Listed(packet.pts, packet.dts, packet.pos, packet.is_keyframe, not packet.is_discard, packet.is_corrupt)


def _shown(packets: list[Listed]) -> list[Listed]:
    """The packets whose frames are shown, from the first keyframe on, be it shown or not."""
    first = next((n for n, packet in enumerate(packets) if packet.is_key), 0)
    shown = [packet for packet in packets[first:] if packet.is_shown]
    # Matroska gives no stamp to what comes before 0: pictures of an open group that refer to others before the file
    leading = sum(1 for _ in takewhile(lambda packet: packet.pts is None, shown[1:]))
    stamped_after = all(packet.pts is not None for packet in shown[1 + leading :])
    return shown[:1] + shown[1 + leading :] if shown and shown[0].pts is not None and stamped_after else shown


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
        container = open_media(plain_path(path), options={"protocol_whitelist": "file"})
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


def plain_path(path: Path) -> str:
    """A path that FFmpeg cannot take for an address: to it, the relative name `12:30:05.mp4` has a protocol "12"."""
    return os.path.abspath(path)


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


def _is_headless_mp4(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(12)[4:8] == b"ftyp"
    except OSError:
        return False


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
