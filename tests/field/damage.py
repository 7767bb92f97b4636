"""Ways in which files break: of copies that end early, disks with bad sectors, cables and unfinished recordings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def cut_tail(data: bytes) -> bytes:
    return data[: int(0.7 * len(data))]


def cut_tail_by_a_little(data: bytes) -> bytes:
    return data[:-9]


def cut_head(data: bytes) -> bytes:
    return data[int(0.3 * len(data)) :]


def flipped_bytes(data: bytes) -> bytes:
    """Twelve bytes anywhere behind the first tenth."""
    changed = np.frombuffer(data, np.uint8).copy()
    where = np.random.default_rng(len(data)).integers(len(data) // 10, len(data), 12)
    changed[where] ^= 0x5A
    return changed.tobytes()


def zero_hole(data: bytes) -> bytes:
    start, end = _middle(data)
    return data[:start] + bytes(end - start) + data[end:]


def lost_block(data: bytes) -> bytes:
    start, end = _middle(data)
    return data[:start] + data[end:]


def repeated_block(data: bytes) -> bytes:
    start, end = _middle(data)
    return data[:end] + data[start:]


def swapped_blocks(data: bytes) -> bytes:
    start, end = _middle(data)
    width = end - start
    return data[:start] + data[end : end + width] + data[start:end] + data[end + width :]


def rubbish_behind(data: bytes) -> bytes:
    return data + np.random.default_rng(0).bytes(1000)


def rubbish_in_front(data: bytes) -> bytes:
    return np.random.default_rng(0).bytes(300) + data


def _middle(data: bytes) -> tuple[int, int]:
    return len(data) // 2, len(data) // 2 + len(data) // 12


def without_index(data: bytes) -> bytes:
    """The name of the table of contents is overwritten: of an MP4, an AVI or a Matroska."""
    for name in (b"moov", b"idx1", b"\x1c\x53\xbb\x6b"):
        data = data.replace(name, b"\xec" + bytes(3))
    return data


def wrong_sizes(data: bytes) -> bytes:
    """What the header of an MP4's, AVI's or Matroska's pictures says of their size is far too little."""
    data = _overwritten(data, b"mdat", -4, b"\0\0\0\x20")
    data = _overwritten(data, b"movi", -4, b"\x10\0\0\0")
    return _overwritten(data, b"\x1f\x43\xb6\x75", 4, b"\x81")


def _overwritten(data: bytes, name: bytes, offset: int, new: bytes) -> bytes:
    start = data.find(name) + offset
    return data if name not in data else data[:start] + new + data[start + len(new) :]


WAYS: tuple[Callable[[bytes], bytes], ...] = (
    cut_tail,
    cut_tail_by_a_little,
    cut_head,
    flipped_bytes,
    zero_hole,
    lost_block,
    repeated_block,
    swapped_blocks,
    rubbish_behind,
    rubbish_in_front,
    without_index,
    wrong_sizes,
)
