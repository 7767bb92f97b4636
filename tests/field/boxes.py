"""Give an MP4 another edit list. The movie's head must lie behind the pictures, as FFmpeg writes it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

EMPTY = -1  # the start of a part in which nothing is shown
FRAMES_PER_SECOND = 25


class Box(NamedTuple):
    """Where a box lies in the file, its header of eight bytes included."""

    kind: bytes
    start: int
    end: int


def with_edits(*parts: tuple[int, int]) -> Callable[[bytes], bytes]:
    """A change of a file's bytes: show these (first frame, number of frames), one after the other."""

    def change(data: bytes) -> bytes:
        ancestors, edts = _find(data, b"moov", b"trak", b"edts")
        (shift,) = struct.unpack_from(">i", data, edts.start + 28)  # B-frames delay all stamps
        movie_clock = _clock(data, b"mvhd")
        media_clock = _clock(data, b"mdhd")
        entries = []
        for start, number in parts:
            duration = number * movie_clock // FRAMES_PER_SECOND
            time = EMPTY if start == EMPTY else shift + start * media_clock // FRAMES_PER_SECOND
            entries.append(struct.pack(">IiI", duration, time, 1 << 16))

        elst = _box(b"elst", struct.pack(">II", 0, len(parts)) + b"".join(entries))
        return _replaced(data, ancestors, edts, _box(b"edts", elst))

    return change


def _clock(data: bytes, kind: bytes) -> int:
    """Ticks a second, as a movie's or a track's head states them."""
    (ticks,) = struct.unpack_from(">I", data, data.index(kind) + 16)
    return int(ticks)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _find(data: bytes, *kinds: bytes) -> tuple[list[Box], Box]:
    """The first box at a path of kinds, after those that it lies in."""
    start = 0
    end = len(data)
    path = []
    for kind in kinds:
        box = next(box for box in _boxes(data, start, end) if box.kind == kind)
        path.append(box)
        start = box.start + 8
        end = box.end
    return path[:-1], path[-1]


def _boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        yield Box(kind, start, start + length)
        start += length


def _replaced(data: bytes, ancestors: list[Box], box: Box, new: bytes) -> bytes:
    growth = len(new) - (box.end - box.start)
    changed = bytearray(data)
    for ancestor in ancestors:
        struct.pack_into(">I", changed, ancestor.start, ancestor.end - ancestor.start + growth)
    return bytes(changed[: box.start]) + new + bytes(changed[box.end :])
