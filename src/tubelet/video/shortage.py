"""Whether a file promises more than it holds, as when a copy or a recording was cut short.

A header's number of frames is no such promise. An edit list leaves out some of the frames that an MP4 counts, and an
AVI counts each moment in which the frame before is shown on. So each container is asked in its own way.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

LEAST_MISSING = 0.5  # seconds, and as a share of the duration: estimates are off by less
LEAST_SHARE = 0.02


class TruncatedVideoWarning(UserWarning):
    """A video of which a part is missing or does not decode; the rest is kept."""


class Demuxed(NamedTuple):
    """What reading a file to its end gave."""

    promised: int  # packets of the video, by the tables of the container; 0 where it has none
    number: int  # packets of the video that are whole
    end: float  # seconds at which the last packet of any stream ends
    ticks: list[int]  # decoding stamps of the video


def promised_packets(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """How many packets the tables of a file list that was just opened."""
    # an MP4's list is already what its edit list leaves of it
    return min(stream.frames, len(stream.index_entries)) if _is_mp4(container) else stream.frames


def shortage(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, demuxed: Demuxed
) -> str | None:
    """What is missing, in words; None where all is there."""
    if container.format.name == "avi":
        return _short_avi(stream, demuxed)
    if demuxed.promised > demuxed.number:
        return f"{demuxed.number} of {demuxed.promised} frames are in the file"
    if _is_mp4(container):
        return "its last part is cut off" if _ends_inside_a_box(path) else None
    # only where the duration is written down: elsewhere FFmpeg estimates it
    written = any(name in container.format.name for name in ("matroska", "flv"))
    duration = (container.duration or 0) / av.time_base
    if written and not stream.frames and duration - demuxed.end > max(LEAST_MISSING, LEAST_SHARE * duration):
        return f"{demuxed.end:.1f} of {duration:.1f} seconds are in the file"
    return None


def _is_mp4(container: av.container.InputContainer) -> bool:
    return "mp4" in container.format.name


def _short_avi(stream: av.VideoStream, demuxed: Demuxed) -> str | None:
    """An AVI's length is in ticks, of which a frame may last many."""
    if not demuxed.ticks:
        return None
    frame = max(int(np.median(np.diff(demuxed.ticks))), 1) if len(demuxed.ticks) > 1 else 1
    there = demuxed.ticks[-1] + frame
    if there >= stream.frames:
        return None
    tick = float(stream.time_base or 0)
    return f"{there * tick:.1f} of {stream.frames * tick:.1f} seconds are in the file"


def _ends_inside_a_box(path: Path) -> bool:
    """Whether an MP4 is shorter than the boxes in it say, as a fragmented recording that broke off."""
    size = path.stat().st_size
    start = 0
    with path.open("rb") as file:
        while start + 8 <= size:
            file.seek(start)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1:  # the length is the next eight bytes
                length = int.from_bytes(file.read(8), "big")
            if length < 8 or not kind.isalnum():  # 0: up to the end of the file; else these are no boxes
                return False
            start += length
    return start != size
