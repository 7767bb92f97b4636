"""Label maps: one image per frame whose pixel values are object numbers (DAVIS, MOTS, annotation tools)."""

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
    """The PASCAL VOC colours, which DAVIS uses, uint8 [256, 3]: every third bit of the index for each channel."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> channel) & 1) << (7 - bit)
        index >>= 3
    return colours.astype(np.uint8)


PALETTE = _palette()


def decode_map(data: bytes, size: tuple[int, int] | None, where: str) -> np.ndarray:
    """Decode an image file to object numbers, int64 [H, W].

    The image has a palette, one grey channel of 1, 8 or 16 bits, or RGB in the VOC colours.

    Args:
        data: The file.
        size: Expected height and width; None for any.
        where: What error messages call the file.

    Raises:
        FormatError: if the image is of another kind or size, or broken.

    Example:
        >>> from tubelet.formats.label_maps import decode_map, encode_map
        >>> decode_map(encode_map(np.array([[0, 1, 2]])), size=(1, 3), where="00000.png")
        array([[0, 1, 2]])
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
    """Encode object numbers [H, W] as a PNG with the VOC palette, or, if `wide`, with 16 grey bits.

    Example:
        >>> from tubelet.formats.label_maps import encode_map
        >>> encode_map(np.array([[0, 1, 2]]))[:4]
        b'\\x89PNG'
    """
    if wide:
        image = Image.fromarray(numbers.astype(np.uint16))
    else:
        image = Image.fromarray(numbers.astype(np.uint8), mode="P")
        image.putpalette(PALETTE.tobytes())

    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def encode_binary(mask: np.ndarray) -> bytes:
    """Encode a mask [H, W] as a PNG, white where it is positive, else black.

    Example:
        >>> from tubelet.formats.label_maps import decode_map, encode_binary
        >>> decode_map(encode_binary(np.array([[False, True]])), size=(1, 2), where="00000.png")
        array([[  0, 255]])
    """
    image = Image.fromarray((mask > 0).astype(np.uint8) * 255)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def separate(maps: Iterable[np.ndarray | None]) -> dict[int, list[RLE | None]]:
    """Split the label maps of T frames into the masks of each object.

    Args:
        maps: Object numbers [H, W] of each frame, 0 for background; None for a frame without
            objects.

    Returns:
        Object number -> T masks, None where absent; sorted by number.

    Example:
        >>> from tubelet.formats.label_maps import separate
        >>> separate([np.array([[0, 7]]), None])
        {7: [RLE(size=(1, 2), counts=b'11'), None]}
    """
    rles: dict[int, list[RLE | None]] = {}
    for t, numbers in enumerate(maps):
        if numbers is not None:
            for number, rle in _objects(numbers).items():
                rles.setdefault(number, [None] * t).append(rle)
        for of_object in rles.values():
            of_object.extend([None] * (t + 1 - len(of_object)))
    return dict(sorted(rles.items()))


def _objects(numbers: np.ndarray) -> dict[int, RLE]:
    """The mask of each object in one label map."""
    present = [int(number) for number in np.flatnonzero(np.bincount(numbers.ravel())) if number]
    if not present:
        return {}
    masks_of_objects = numbers[None] == np.array(present)[:, None, None]  # [N, H, W]
    return dict(zip(present, masks.encode(masks_of_objects), strict=True))


def merge(tracks: Iterable[Track], numbers: Mapping[int, int], size: tuple[int, int], t: int) -> tuple[np.ndarray, int]:
    """Draw the label map of frame t, int64 [H, W], and count the pixels that more than one track covers.

    Such a pixel gets the earlier track, and an ignored track only if no other covers it.

    Args:
        tracks: The objects.
        numbers: Track id -> number in the map.
        size: Height and width.
        t: The frame.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.formats.label_maps import merge
        >>> left, both = masks.encode(np.array([[[1, 0]], [[1, 1]]], bool))
        >>> tracks = [tubelet.Track(id=n, label=0, score=1.0, rles=(rle,)) for n, rle in ((5, left), (6, both))]
        >>> merge(tracks, {5: 1, 6: 2}, size=(1, 2), t=0)
        (array([[1, 2]]), 1)
    """
    merged = np.zeros(size, np.int64)
    num_shared = 0
    for track in sorted(tracks, key=lambda track: track.ignore):
        rle = track.rles[t]
        if rle is None:
            continue
        mask = masks.decode([rle])[0].astype(bool)
        shared = mask & (merged > 0)
        num_shared += int(np.count_nonzero(shared))
        merged[mask & ~shared] = numbers[track.id]
    return merged, num_shared


def _from_colours(colours: np.ndarray, where: str) -> np.ndarray:
    """The palette index of each pixel."""
    weights = np.array([65536, 256, 1])
    palette_codes = PALETTE.astype(np.int64) @ weights
    indices = {int(code): index for index, code in reversed(list(enumerate(palette_codes)))}

    codes, inverse = np.unique(colours.astype(np.int64) @ weights, return_inverse=True)
    for code in codes:
        if int(code) not in indices:
            raise FormatError(f"{where}: the colour #{int(code):06x} is none of DAVIS's palette")
    return np.array([indices[int(code)] for code in codes])[inverse.reshape(colours.shape[:2])]
