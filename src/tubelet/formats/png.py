"""PNG files that are the same bytes on every machine.

zlib's output differs between its versions and its faster rewrites, so the pixels are packed here: the Paeth filter,
then one deflate block of literals under its own Huffman code (RFC 1951, 3.2.7; RFC 2083). Without matches the file is
somewhat larger than zlib's on flat drawings, and about equal on textures.
"""

from __future__ import annotations

import heapq
import struct
import zlib

import numpy as np

_LONGEST = 15  # bits of a code, by the format
_Node = tuple[int, int, tuple[int, ...]]  # of the Huffman tree: count, first symbol, all symbols below
_END = 256  # the symbol that closes a block


def encode(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] RGB -> the bytes of a PNG file."""
    height, width = image.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    lines = np.concatenate([np.full((height, 1), 4, np.uint8), _paeth(image).reshape(height, -1)], 1)  # 4 is Paeth
    data = b"\x78\x01" + _deflate(lines.ravel()) + struct.pack(">I", zlib.adler32(lines.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _paeth(image: np.ndarray) -> np.ndarray:
    """What is left of each byte after guessing it from its left, upper and upper left neighbours."""
    padded = np.pad(image.astype(np.int16), ((1, 0), (1, 0), (0, 0)))
    left, up, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    guess = np.where(to_up <= to_corner, up, corner)
    guess = np.where((to_left <= to_up) & (to_left <= to_corner), left, guess)
    return (image - guess).astype(np.uint8)


def _deflate(data: np.ndarray) -> bytes:
    """uint8 [L] -> one final dynamic block."""
    counts = np.bincount(data, minlength=_END + 1)
    counts[_END] = 1
    lengths = _code_lengths(counts)
    codes = _codes(lengths)
    # final block, dynamic codes, 257 literal lengths, 2 distance lengths, 19 lengths of the code that writes them
    head = [_field(1, 1), _field(2, 2), _field(0, 5), _field(1, 5), _field(15, 4)]
    # that code: the order is 16 17 18 0 8 7 9 ...; lengths 0 to 15 take 4 bits each, the repeats are not used
    head += [_field(0, 3)] * 3 + [_field(4, 3)] * 16
    short = _codes(np.full(16, 4))
    # two distance codes of one bit make a complete code, which every decoder accepts, although none is used
    head += [_field(int(short[length]), 4) for length in (*lengths, 1, 1)]
    symbols = np.append(data.astype(np.int64), _END)
    bits = np.concatenate([*head, _pack(codes[symbols], lengths[symbols])])
    return np.packbits(bits, bitorder="little").tobytes()


def _code_lengths(counts: np.ndarray) -> np.ndarray:
    """Huffman's code lengths, int64, 0 for a symbol that does not occur; no code is longer than 15 bits."""
    while True:
        heap: list[_Node] = [(int(count), symbol, (symbol,)) for symbol, count in enumerate(counts) if count]
        heapq.heapify(heap)
        lengths = np.zeros(len(counts), np.int64)
        while len(heap) > 1:
            few, first, members = heapq.heappop(heap)
            many, _, others = heapq.heappop(heap)
            merged = members + others
            lengths[list(merged)] += 1
            heapq.heappush(heap, (few + many, first, merged))
        if lengths.max() <= _LONGEST:
            return lengths
        counts = np.where(counts > 0, counts // 2 + 1, 0)  # flatter counts give shorter codes


def _codes(lengths: np.ndarray) -> np.ndarray:
    """The format's codes for these lengths, their bits reversed, because they are written from the last bit on."""
    codes = np.zeros(len(lengths), np.int64)
    code = 0
    for length in range(1, int(lengths.max()) + 1):
        for symbol in np.flatnonzero(lengths == length):
            codes[symbol] = int(f"{code:0{length}b}"[::-1], 2)
            code += 1
        code <<= 1
    return codes


def _field(value: int, width: int) -> np.ndarray:
    return _pack(np.array([value]), np.array([width]))


def _pack(values: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Bits of all values one after another, lowest first, uint8 of 0 and 1."""
    ends = np.cumsum(widths)
    bits = np.zeros(int(ends[-1]), np.uint8)
    starts = ends - widths
    for k in range(int(widths.max())):
        held = widths > k
        bits[starts[held] + k] = (values[held] >> k) & 1
    return bits
