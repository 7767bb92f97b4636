"""Label maps: one image per frame whose pixel values say which object is seen there (DAVIS, MOTS, annotation tools)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.masks import RLE
from tubelet.core.types import Track
from tubelet.core.untrusted.images import check_header, decode


def _palette() -> np.ndarray:
    """The PASCAL VOC colours, which DAVIS uses: uint8 [256, 3]; the bits of an index, spread over three channels."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> channel) & 1) << (7 - bit)
        index >>= 3
    return colours.astype(np.uint8)


PALETTE = _palette()


def decode_map(data: bytes, size: tuple[int, int] | None, where: str) -> np.ndarray:
    """Object numbers, int64 [H, W], of an image file: palette, grey of 1, 8 or 16 bits, or RGB in the VOC colours.

    Raises FormatError, which names `where`, for anything else and for another `size` (height, width).
    """
    try:
        height, width = check_header(data, where).size
        if size is not None and (height, width) != size:
            hint = ", width and height are swapped" if (width, height) == size else ""
            raise FormatError(f"{where}: expected a mask of {size[1]}x{size[0]}, got {width}x{height}{hint}")
        values, mode, _ = decode(data, where)
    except InputError as error:
        raise FormatError(str(error)) from None
    if mode in ("RGB", "RGBA"):
        return _from_colours(values[..., :3], where)
    if values.ndim != 2 or mode == "LA":
        raise FormatError(f"{where}: expected one channel of object numbers, got an image of mode {mode}")
    return values.astype(np.int64)


def encode_map(numbers: np.ndarray, *, wide: bool = False) -> bytes:
    """Object numbers [H, W] -> a palette PNG in the VOC colours, or, `wide`, a 16-bit grey PNG."""
    file = io.BytesIO()
    if not wide:
        image = Image.fromarray(numbers.astype(np.uint8), mode="P")
        image.putpalette(PALETTE.tobytes())
    else:
        image = Image.fromarray(numbers.astype(np.uint16))
    image.save(file, format="PNG")
    return file.getvalue()


def encode_binary(mask: np.ndarray) -> bytes:
    """A mask [H, W] -> a black and white PNG."""
    file = io.BytesIO()
    Image.fromarray((mask > 0).astype(np.uint8) * 255).save(file, format="PNG")
    return file.getvalue()


def separate(maps: Iterable[np.ndarray | None]) -> dict[int, list[RLE | None]]:
    """Object number -> its masks frame by frame, for all numbers but 0; a map that is None holds nothing."""
    found: dict[int, list[RLE | None]] = {}
    for t, numbers in enumerate(maps):
        present = [] if numbers is None else [int(n) for n in np.flatnonzero(np.bincount(numbers.ravel())) if n]
        if numbers is not None and present:
            codes = masks.encode(numbers[None] == np.array(present)[:, None, None])
            for number, code in zip(present, codes, strict=True):
                found.setdefault(number, [None] * t).append(code)
        for column in found.values():
            column.extend([None] * (t + 1 - len(column)))
    return dict(sorted(found.items()))


def merge(tracks: Iterable[Track], numbers: Mapping[int, int], size: tuple[int, int], t: int) -> tuple[np.ndarray, int]:
    """The map of frame t, int64 [H, W], and how many pixels two tracks claimed; the earlier track keeps them.

    `numbers` gives each track id its number in the map.
    """
    merged = np.zeros(size, np.int64)
    disputed = 0
    for track in sorted(tracks, key=lambda track: track.ignore):  # an object is seen through an ignored region
        rle = track.rles[t]
        if rle is None:
            continue
        mask = masks.decode([rle])[0].astype(bool)
        taken = mask & (merged > 0)
        disputed += int(np.count_nonzero(taken))
        merged[mask & ~taken] = numbers[track.id]
    return merged, disputed


def _from_colours(colours: np.ndarray, where: str) -> np.ndarray:
    weights = np.array([65536, 256, 1])
    numbers = {int(code): n for n, code in reversed(list(enumerate(PALETTE.astype(np.int64) @ weights)))}
    codes, places = np.unique(colours.astype(np.int64) @ weights, return_inverse=True)
    for code in codes:
        if int(code) not in numbers:
            raise FormatError(f"{where}: the colour #{int(code):06x} is none of DAVIS's palette")
    return np.array([numbers[int(code)] for code in codes])[places.reshape(colours.shape[:2])]
