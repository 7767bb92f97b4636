"""Detect truncated video files, as when a copy or a recording was cut short.

The header's number of frames is not reliable: an MP4's edit list leaves out some of the counted frames, and an AVI
counts a frame that is shown for several ticks several times. So each container has its own test.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

# a file is truncated if more than this is missing; durations in headers are off by less
LEAST_MISSING = 0.5  # seconds
LEAST_SHARE = 0.02  # of the duration


class TruncatedVideoWarning(UserWarning):
    """A part of a video is missing or does not decode; the rest is used."""


class Demuxed(NamedTuple):
    """What was counted while reading a file to its end.

    Example:
        >>> from tubelet.video.shortage import Demuxed
        >>> demuxed = Demuxed(promised=100, number=90, end=3.6, ticks=list(range(90)))
        >>> demuxed.promised - demuxed.number  # packets that are missing
        10
    """

    promised: int  # video packets listed by the container; 0 if it has no list
    number: int  # intact video packets
    end: float  # seconds, end of the last packet of any stream
    ticks: list[int]  # decoding time stamps of the video packets


def promised_packets(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Return how many video packets a newly opened file lists; 0 if it has no list."""
    # an MP4's index entries already respect the edit list
    return min(stream.frames, len(stream.index_entries)) if _is_mp4(container) else stream.frames


def shortage(
    path: Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    demuxed: Demuxed,
) -> str | None:
    """Describe what is missing from a file, in words for a message; None if it is complete."""
    if container.format.name == "avi":
        return _avi_shortage(stream, demuxed)

    if demuxed.promised > demuxed.number:
        return f"{demuxed.number} of {demuxed.promised} frames are in the file"
    if _is_mp4(container):
        return "its last part is cut off" if _ends_inside_a_box(path) else None

    # other containers do not store the duration: FFmpeg estimates it
    has_duration = any(name in container.format.name for name in ("matroska", "flv"))
    duration = (container.duration or 0) / av.time_base
    missing = duration - demuxed.end
    if has_duration and not stream.frames and missing > max(LEAST_MISSING, LEAST_SHARE * duration):
        return f"{demuxed.end:.1f} of {duration:.1f} seconds are in the file"
    return None


def _is_mp4(container: av.container.InputContainer) -> bool:
    return "mp4" in container.format.name


def _avi_shortage(stream: av.VideoStream, demuxed: Demuxed) -> str | None:
    """As `shortage`; an AVI's length is in ticks, and a frame may last several ticks."""
    ticks = demuxed.ticks
    if not ticks:
        return None

    ticks_per_frame = max(int(np.median(np.diff(ticks))), 1) if len(ticks) > 1 else 1
    end = ticks[-1] + ticks_per_frame
    if end >= stream.frames:
        return None

    seconds_per_tick = float(stream.time_base or 0)
    return f"{end * seconds_per_tick:.1f} of {stream.frames * seconds_per_tick:.1f} seconds are in the file"


def _ends_inside_a_box(path: Path) -> bool:
    """Whether an MP4 ends before its last box does, as when a fragmented recording was cut short."""
    size = path.stat().st_size
    start = 0
    with path.open("rb") as file:
        while start + 8 <= size:
            file.seek(start)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1:  # the length is the next eight bytes
                length = int.from_bytes(file.read(8), "big")
            if length < 8 or not kind.isalnum():  # 0 means up to the end of the file; others are not boxes
                return False
            start += length
    return start != size
