"""Index the frames of a video file without decoding: how many, their time stamps and their keyframes.

Three facts about video files shape this module:
- Time stamps need not start at 0 or be evenly spaced, and packets are not in display order (B-frames).
- AVI and raw streams have no presentation time stamps, only an order of decoding. There, frames are counted.
- A clip that was trimmed without re-encoding starts with frames that are decoded but not shown ("discarded").
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
    """Time stamps by the byte offsets of their packets, for files whose own stamps change after a seek.

    AVI stamps are packet counts. In an AVI without an index, the count after a seek is an estimate.

    Example:
        >>> from tubelet.video.index import OffsetStamps
        >>> stamps = OffsetStamps(offsets=np.array([100, 500]), stamps=np.array([0, 1]))
        >>> stamps.at(500), stamps.at(300)
        (1, None)
    """

    offsets: np.ndarray  # int64 [T], bytes from the start of the file, ascending
    stamps: np.ndarray  # int64 [T]

    def at(self, offset: int | None) -> int | None:
        """Return the stamp of the packet that starts at this byte; None if no indexed packet does."""
        if offset is None:
            return None

        row = int(np.searchsorted(self.offsets, offset))
        is_packet = row < len(self.offsets) and self.offsets[row] == offset
        return int(self.stamps[row]) if is_packet else None


@dataclass(frozen=True, slots=True, eq=False)
class FrameIndex:
    """The frames of a file in display order. T frames, K keyframes.

    Example:
        >>> from tubelet.video.index import FrameIndex
        >>> stamps = np.array([0, 40, 80, 120])
        >>> index = FrameIndex(length=4, stamps=stamps, keys=np.array([0, 2]), starts_at_key=True)
        >>> index.position(80), index.key_before(3)
        (2, 1)
    """

    length: int
    stamps: np.ndarray | None  # int64 [T], ascending, in units of the stream; None if frames must be counted
    keys: np.ndarray  # int64 [K], positions of keyframes, ascending; the first is 0
    starts_at_key: bool  # False only if no packet is marked as a keyframe
    by_offset: OffsetStamps | None = None  # if set, replaces the packets' stamps while decoding

    def position(self, stamp: int | None) -> int | None:
        """Return the position of the frame with this stamp; None if there is none."""
        if self.stamps is None or stamp is None:
            return None

        position = int(np.searchsorted(self.stamps, stamp))
        is_frame = position < self.length and self.stamps[position] == stamp
        return position if is_frame else None

    def key_before(self, t: int) -> int:
        """Return the last keyframe at or before frame t, as an index into `keys`."""
        return max(int(np.searchsorted(self.keys, t, side="right")) - 1, 0)

    def is_key(self, t: int) -> bool:
        """Whether frame t is a keyframe."""
        return bool(self.keys[self.key_before(t)] == t)

    def from_first(self, stamp: int | None) -> FrameIndex:
        """Return the index without the frames before the one with this stamp, the first that decodes.

        The frames before it cannot be decoded: they depend on frames that are not in the file.
        """
        start = self.position(stamp)
        if not start or self.stamps is None:
            return self

        keys = np.union1d(np.zeros(1, np.int64), self.keys[self.keys >= start] - start)
        return replace(self, length=self.length - start, stamps=self.stamps[start:], keys=keys)


class Listed(NamedTuple):
    """One packet of the video stream.

    Example:
        >>> from tubelet.video.index import Listed
        >>> Listed(pts=40, dts=40, offset=500, is_key=False, is_shown=True, is_corrupt=False).pts
        40
    """

    pts: int | None  # presentation time stamp
    dts: int | None  # decoding time stamp
    offset: int | None  # bytes from the start of the file
    is_key: bool
    is_shown: bool  # False for a frame that others depend on, but that an edit list leaves out
    is_corrupt: bool


class Packets(NamedTuple):
    """The packets of a file.

    Example:
        >>> from tubelet.video.index import Listed, Packets
        >>> shown = [Listed(pts, pts, None, pts == 0, True, False) for pts in (0, 80, 40)]
        >>> packets = Packets(
        ...     shown, has_keys=True, is_avi=False, is_reordered=True, unit=0.001, nominal_rate=25.0, shortage=None
        ... )
        >>> index = packets.frame_index()
        >>> index.stamps.tolist(), packets.times(index)
        ([0, 40, 80], (0.0, 0.04, 0.08))
    """

    shown: list[Listed]  # in decoding order, from the first keyframe
    has_keys: bool
    is_avi: bool  # the only clock is the decoding order, in ticks of one frame
    is_reordered: bool  # display order differs from decoding order (B-frames)
    unit: float  # seconds per stamp
    nominal_rate: float  # frames per second
    shortage: str | None  # what is missing, in words; None if the file is complete

    def frame_index(self) -> FrameIndex:
        """Return the index of the frames in display order."""
        length = len(self.shown)
        stamped = [packet for packet in self.shown if self._stamp(packet) is not None]
        stamps = np.sort(np.array([self._stamp(packet) for packet in stamped], np.int64))
        if (self.is_avi and self.is_reordered) or len(np.unique(stamps)) < length:
            return FrameIndex(length, None, np.zeros(1, np.int64), self.has_keys)

        key_stamps = np.array([self._stamp(packet) for packet in stamped if packet.is_key], np.int64)
        keys = np.union1d(np.zeros(1, np.int64), np.searchsorted(stamps, key_stamps))
        by_offset = self._by_offset() if self.is_avi else None
        return FrameIndex(length, stamps, keys, self.has_keys, by_offset)

    def times(self, index: FrameIndex) -> tuple[float, ...] | None:
        """Return the time of each frame in seconds from the first; None if the file has no times."""
        stamps = self._counted_stamps() if index.stamps is None else index.stamps
        if stamps is None:
            return None
        return tuple(((stamps - stamps[0]) * self.unit).tolist())

    def _stamp(self, packet: Listed) -> int | None:
        return packet.dts if self.is_avi else packet.pts

    def _counted_stamps(self) -> np.ndarray | None:
        """The stamps of frames that are counted: B-frames only change their order, so the n-th frame has the n-th."""
        stamps = [self._stamp(packet) for packet in self.shown]
        clock = [packet.dts for packet in self.shown if packet.dts is not None]
        goes_back = bool(np.any(np.diff(clock) < 0))  # as where two recordings were joined
        if None in stamps or goes_back:
            return None
        return np.sort(np.array(stamps, np.int64))

    def _by_offset(self) -> OffsetStamps | None:
        if any(packet.offset is None for packet in self.shown):
            return None

        offsets = np.array([packet.offset for packet in self.shown], np.int64)
        stamps = np.array([packet.dts for packet in self.shown], np.int64)
        order = np.argsort(offsets)
        return OffsetStamps(offsets[order], stamps[order])


def scan(path: Path) -> Packets:
    """Read all packets of a file without decoding them.

    Raises InputError as `open_container` does.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.video.index import scan
        >>> from tubelet.video.writer import VideoWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "black.mp4")
        ...     with VideoWriter(path, size=(48, 64), fps=10) as writer:
        ...         for _ in range(3):
        ...             writer.write(np.zeros((48, 64, 3), np.uint8))
        ...     scan(path).frame_index().length
        3
    """
    with opened(path) as (container, stream):
        promised = promised_packets(container, stream)
        packets: list[Listed] = []
        num_intact = 0
        end = 0.0
        for packet in demux(container):
            if packet.pts is not None and packet.time_base:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))

            if packet.stream_index != stream.index:
                continue
            num_intact += not packet.is_corrupt
            if not _is_hidden(packet, stream):
                packets.append(_listed(packet))

        while packets and packets[-1].is_corrupt:  # cut off by the end of the file
            packets.pop()

        ticks = [packet.dts for packet in packets if packet.dts is not None]
        return Packets(
            shown=_shown(packets),
            has_keys=any(packet.is_key for packet in packets),
            is_avi=container.format.name == "avi",
            is_reordered=bool(stream.codec_context.has_b_frames),
            unit=float(stream.time_base or 0),
            nominal_rate=float(stream.average_rate or 0) or 25.0,
            shortage=shortage(path, container, stream, Demuxed(promised, num_intact, end, ticks)),
        )


def _listed(packet: av.Packet) -> Listed:
    return Listed(
        pts=packet.pts,
        dts=packet.dts,
        offset=packet.pos,
        is_key=packet.is_keyframe,
        is_shown=not packet.is_discard,
        is_corrupt=packet.is_corrupt,
    )


def _shown(packets: list[Listed]) -> list[Listed]:
    """The packets whose frames are shown, from the first keyframe on, which itself may not be shown."""
    first = next((n for n, packet in enumerate(packets) if packet.is_key), 0)
    shown = [packet for packet in packets[first:] if packet.is_shown]

    # Matroska has no stamps before 0: those frames of an open group depend on frames before the file's start
    num_leading = sum(1 for _ in takewhile(lambda packet: packet.pts is None, shown[1:]))
    rest = shown[1 + num_leading :]
    others_have_stamps = all(packet.pts is not None for packet in rest)
    if shown and shown[0].pts is not None and others_have_stamps:
        return shown[:1] + rest
    return shown


@contextmanager
def opened(path: Path, threads: int = 1) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file as `open_container` does, for a `with` block that closes it."""
    container, stream = open_container(path, threads)
    try:
        yield container, stream
    finally:
        container.close()


def open_container(path: Path, threads: int = 1) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open a file and choose its best video stream; the caller closes the container.

    Args:
        path: The file.
        threads: Number of decoder threads.

    Raises:
        TruncatedVideo: for an MP4 without its table of contents, which is usually at the end.
        InputError: if the file is not a video, or has no stream that can be decoded.
    """
    try:
        # a playlist must not read anything but local files
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
    """Return a path that FFmpeg does not mistake for an address, as it does `12:30:05.mp4` (protocol "12").

    Example:
        >>> from pathlib import Path
        >>> from tubelet.video.index import plain_path
        >>> Path(plain_path(Path("12:30:05.mp4"))).is_absolute()
        True
    """
    return os.path.abspath(path)


def demux(container: av.container.InputContainer, stream: av.VideoStream | None = None) -> Iterator[av.Packet]:
    """Yield packets until the end of the file or an error, without the empty one at the end of each stream.

    `stream` is the stream to read, by default all of them.
    """
    try:
        packets = container.demux() if stream is None else container.demux(stream)
        for packet in packets:
            if packet.size:
                yield packet
    except (av.FFmpegError, OSError):
        return


def _video_stream(container: av.container.InputContainer, path: Path, threads: int) -> av.VideoStream:
    stream = container.streams.best("video")
    # FFmpeg opens any text file as a video of its characters
    is_text = container.format.name == "tty"
    if not isinstance(stream, av.VideoStream) or stream.codec_context is None or is_text:
        raise InputError(f"{path}: no video stream in it that can be decoded")

    width = stream.codec_context.width
    height = stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: frames of {width}x{height} pixels are too large")

    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads
    return stream


def _is_hidden(packet: av.Packet, stream: av.VideoStream) -> bool:
    """Whether a VP8 frame is only a reference and never shown: bit 4 of the first byte is 0 (RFC 6386, 9.1)."""
    return stream.codec_context.codec.canonical_name == "vp8" and not memoryview(packet)[0] & 0x10


def _is_headless_mp4(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(12)[4:8] == b"ftyp"
    except OSError:
        return False


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
