"""Read the format and size of an image from its header, before anything is decoded.

Formats: PNG, JPEG, WebP, BMP, TIFF and GIF, each from its public specification.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import NamedTuple

from tubelet.core.errors import InputError
from tubelet.core.untrusted.files import opened

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # segments with the image size
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # segments without a length
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_TYPES = {3: "H", 4: "I", 16: "Q"}  # unsigned integers of 2, 4, 8 bytes


class Header(NamedTuple):
    """The format and size of an image.

    Example:
        >>> from tubelet.core.untrusted.image_headers import Header
        >>> Header("PNG", (480, 640)).size
        (480, 640)
    """

    form: str  # Pillow's name of the format
    size: tuple[int, int]  # height, width as stored, before EXIF orientation


def read_header(source: bytes | str | Path, where: str) -> Header:
    """Read the header of an image, given as bytes or as a path.

    Raises InputError, with `where`, if the format is unknown or the header is broken.

    Example:
        >>> from tubelet.core.untrusted.image_headers import read_header
        >>> read_header(b"GIF89a" + bytes([4, 0, 3, 0]), "a file")
        Header(form='GIF', size=(3, 4))
    """
    if isinstance(source, bytes):
        return _parse(io.BytesIO(source), where)
    with opened(source) as file:
        return _parse(file, where)


def _parse(file: io.BufferedIOBase, where: str) -> Header:
    try:
        header = _parse_known(file)
    except (struct.error, ValueError, IndexError, OverflowError):
        raise InputError(f"{where}: not an image that can be decoded (its header is broken)") from None
    if header is None:
        known = "expected PNG, JPEG, WebP, BMP, TIFF or GIF"
        raise InputError(f"{where}: not an image that can be decoded ({known})")
    if min(header.size) < 1:
        raise InputError(f"{where}: not an image that can be decoded (it has no pixels)")
    return header


def _parse_known(file: io.BufferedIOBase) -> Header | None:
    """The header; None if the format is unknown."""
    start = file.read(32)
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = struct.unpack(">II", start[16:24])
        return Header("PNG", (height, width))
    if start[:3] == b"\xff\xd8\xff":
        return Header("JPEG", _jpeg(file))
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return Header("WEBP", _webp(start))
    if start[:2] == b"BM":
        return Header("BMP", _bmp(start))
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return Header("TIFF", _tiff(file, start))
    if start[:6] in (b"GIF87a", b"GIF89a"):
        width, height = struct.unpack("<HH", start[6:10])
        return Header("GIF", (height, width))
    return None


def _jpeg(file: io.BufferedIOBase) -> tuple[int, int]:
    file.seek(2)
    while True:
        byte = file.read(1)
        if not byte:
            raise ValueError("no segment tells the size")
        if byte != b"\xff":
            continue  # padding, or a broken segment, which decoders skip too

        marker = file.read(1)
        while marker == b"\xff":
            marker = file.read(1)
        if not marker or marker == b"\0" or marker[0] in _JPEG_BARE:
            continue

        length = struct.unpack(">H", file.read(2))[0]
        if marker[0] in _JPEG_FRAMES:
            _, height, width = struct.unpack(">BHH", file.read(5))
            return height, width
        file.seek(max(length - 2, 0), io.SEEK_CUR)


def _webp(start: bytes) -> tuple[int, int]:
    kind = start[12:16]
    if kind == b"VP8X":  # 24 bits each, less one
        width = int.from_bytes(start[24:27], "little") + 1
        height = int.from_bytes(start[27:30], "little") + 1
        return height, width
    if kind == b"VP8L":  # 14 bits each, less one, after a signature
        bits = struct.unpack("<I", start[21:25])[0]
        return ((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":  # 14 bits each, after the frame's tag and start code
        width, height = struct.unpack("<HH", start[26:30])
        return height & 0x3FFF, width & 0x3FFF
    raise ValueError("no chunk tells the size")


def _bmp(start: bytes) -> tuple[int, int]:
    if struct.unpack("<I", start[14:18])[0] == 12:  # of OS/2
        width, height = struct.unpack("<HH", start[18:22])
    else:
        width, height = struct.unpack("<ii", start[18:26])
    return abs(height), width  # rows from top to bottom have a negative height


def _tiff(file: io.BufferedIOBase, start: bytes) -> tuple[int, int]:
    """The size of the first image of the file."""
    order = "<" if start[:2] == b"II" else ">"
    is_big = b"+" in start[2:4]
    offset = struct.unpack(order + ("Q" if is_big else "I"), start[8:16] if is_big else start[4:8])[0]
    file.seek(offset)
    count = struct.unpack(order + ("Q" if is_big else "H"), file.read(8 if is_big else 2))[0]
    values: dict[int, int] = {}
    for _ in range(min(count, 4096)):
        entry = file.read(20 if is_big else 12)
        tag, kind = struct.unpack(order + "HH", entry[:4])
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT) and kind in _TIFF_TYPES:
            layout = order + _TIFF_TYPES[kind]
            values[tag] = struct.unpack_from(layout, entry, 12 if is_big else 8)[0]
    return values.get(_TIFF_HEIGHT, 0), values.get(_TIFF_WIDTH, 0)
