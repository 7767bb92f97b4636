"""Masks that Label Studio's brush has painted: an RGBA image, packed as runs of bytes (rle-pack of thi.ng/umbrella).

The packed bits, the most significant first:

    32      number of words that come out, here 4 a pixel
    5       bits of a word, less one
    4 x 4   widths of the four sizes of counters, in bits, less one
    then, until all words are there:
    1       1: one word, repeated; 0: words that differ
    2       which of the four counters follows
    width   how many words, less one
    ...     the word, or the words

The mask is where alpha, each fourth word, is not 0.
"""

from __future__ import annotations

import numpy as np

from tubelet.core.errors import FormatError

CHANNELS = 4  # red, green, blue, alpha
BYTE = 8
COUNTERS = 4


def decode(packed: bytes, size: tuple[int, int], where: str) -> np.ndarray:
    """Unpack a mask of (height, width), bool [H, W].

    Raises FormatError, with `where`, if it has another number of pixels or is cut short.

    Example:
        >>> from tubelet.formats.label_studio.brush import decode
        >>> header = f"{4 * 6:032b}" + f"{8 - 1:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
        >>> clear = "1" + "01" + f"{12 - 1:04b}" + f"{0:08b}"  # a run of 12 words of 0: three pixels
        >>> painted = "1" + "01" + f"{12 - 1:04b}" + f"{255:08b}"
        >>> bits = header + clear + painted
        >>> packed = int(bits.ljust(96, "0"), 2).to_bytes(12, "big")
        >>> decode(packed, size=(2, 3), where="a file").tolist()
        [[False, False, False], [True, True, True]]
    """
    bits = _Bits(packed, where)
    num_words = bits.number(32)
    height, width = size
    if num_words != height * width * CHANNELS:
        raise FormatError(
            f"{where}: a brush mask of {num_words // CHANNELS} pixels where the image has {width}x{height}"
        )
    if bits.number(5) + 1 != BYTE:
        raise FormatError(f"{where}: expected a brush mask of 8 bits a channel")

    widths = [bits.number(4) + 1 for _ in range(COUNTERS)]
    words = np.empty(num_words, np.uint8)
    done = 0
    while done < num_words:
        is_run = bits.number(1)
        count = bits.number(widths[bits.number(2)]) + 1
        if done + count > num_words:
            raise FormatError(f"{where}: a brush mask with more pixels than it says")
        words[done : done + count] = bits.number(BYTE) if is_run else bits.words(count)
        done += count
    return words.reshape(height, width, CHANNELS)[..., -1] > 0


class _Bits:
    """Bytes that are read bit by bit."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.position = 0  # bits

    def number(self, width: int) -> int:
        """Read a number of this many bits."""
        part, offset = self._take(width)
        behind = len(part) * 8 - offset - width
        return int.from_bytes(part, "big") >> behind & ((1 << width) - 1)

    def words(self, count: int) -> np.ndarray:
        """Read bytes that need not begin where a byte of the data does, uint8 [count]."""
        part, offset = self._take(count * BYTE)
        bits = np.unpackbits(np.frombuffer(part, np.uint8))
        return np.packbits(bits[offset : offset + count * BYTE])

    def _take(self, width: int) -> tuple[bytes, int]:
        """The bytes with the next bits, and how many bits before them the first has."""
        end = self.position + width
        if end > len(self.data) * 8:
            raise FormatError(f"{self.where}: a brush mask that is cut short")
        first, offset = divmod(self.position, 8)
        self.position = end
        return self.data[first : (end + 7) // 8], offset
