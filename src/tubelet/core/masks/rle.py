"""Run-length encoded masks in COCO's compressed format: encode, decode, areas and boxes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco

from tubelet.core.errors import FormatError

MAX_PIXELS = 1 << 28  # a larger mask in a file is an error, before memory is allocated for it


class RLE(NamedTuple):
    """One binary mask.

    Example:
        >>> from tubelet.core import masks
        >>> masks.encode(np.ones((1, 4, 6), bool))
        [RLE(size=(4, 6), counts=b'0h0')]
    """

    size: tuple[int, int]  # height, width
    counts: bytes  # COCO's compressed counts: runs of 0 and 1, column by column


def encode(masks: np.ndarray) -> list[RLE]:
    """Encode binary masks, bool or uint8 [N, H, W].

    Example:
        >>> from tubelet.core import masks
        >>> rles = masks.encode(np.eye(3, dtype=bool)[None])
        >>> masks.decode(rles)[0].tolist()
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    stacked = np.asfortranarray(np.moveaxis(masks, 0, -1).astype(np.uint8, copy=False))
    size = (int(masks.shape[1]), int(masks.shape[2]))
    return [RLE(size, code["counts"]) for code in coco.encode(stacked)]


def decode(rles: Sequence[RLE]) -> np.ndarray:
    """Decode RLEs of the same size into masks of 0 and 1, uint8 [N, H, W].

    Example:
        >>> from tubelet.core import masks
        >>> masks.decode(masks.encode(np.ones((2, 4, 6), bool))).shape
        (2, 4, 6)
    """
    if not rles:
        return np.zeros((0, 0, 0), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools warns about its own use of numpy 2
        return np.moveaxis(coco.decode(as_coco(rles)), -1, 0)


def areas(rles: Sequence[RLE]) -> np.ndarray:
    """Count the pixels of each mask, float64 [N].

    Example:
        >>> from tubelet.core import masks
        >>> masks.areas(masks.encode(np.ones((2, 4, 6), bool)))
        array([24., 24.])
    """
    return np.asarray(coco.area(as_coco(rles)), np.float64) if rles else np.zeros(0)


def boxes(rles: Sequence[RLE]) -> np.ndarray:
    """Compute tight half-open boxes (x1, y1, x2, y2), float64 [N, 4]; zeros for an empty mask.

    Example:
        >>> from tubelet.core import masks
        >>> mask = np.zeros((1, 4, 6), bool)
        >>> mask[0, 1:3, 2:5] = True
        >>> masks.boxes(masks.encode(mask))
        array([[2., 1., 5., 3.]])
    """
    if not rles:
        return np.zeros((0, 4))
    xywh = np.asarray(coco.toBbox(as_coco(rles)), np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def as_coco(rles: Sequence[RLE]) -> list[dict[str, Any]]:
    """Convert to the dictionaries that pycocotools takes.

    Example:
        >>> from tubelet.core import masks
        >>> masks.as_coco(masks.encode(np.ones((1, 4, 6), bool)))
        [{'size': [4, 6], 'counts': b'0h0'}]
    """
    return [{"size": list(rle.size), "counts": rle.counts} for rle in rles]


def from_json(value: Any, size: tuple[int, int], where: str = "segmentation") -> RLE | None:
    """Read a segmentation of a JSON file; None, [] and {} mean absent and give None.

    Args:
        value: An RLE with compressed counts (str or bytes) or uncompressed counts (list of ints),
            or a list of polygons, each a flat list x, y, x, y, ...
        size: Height and width that the mask must have.
        where: What error messages call the segmentation.

    Raises:
        FormatError: if the size differs, if runs are invalid, or if a polygon has fewer than three
            points.

    Example:
        >>> from tubelet.core import masks
        >>> masks.from_json({"size": [4, 6], "counts": [0, 24]}, size=(4, 6))
        RLE(size=(4, 6), counts=b'0h0')
    """
    if value is None or (isinstance(value, list | dict) and not value):
        return None
    if isinstance(value, list):
        return _from_polygons(value, size, where)
    if not isinstance(value, dict) or "counts" not in value or "size" not in value:
        raise FormatError(f"{where}: expected an RLE with size and counts or a list of polygons, got {_short(value)}")

    file_size = value["size"]
    is_pair = isinstance(file_size, list | tuple) and len(file_size) == 2
    if not is_pair or tuple(file_size) != tuple(size):
        raise FormatError(f"{where}: expected a mask of size {list(size)} (height, width), got {_short(file_size)}")

    counts = value["counts"]
    if isinstance(counts, list):
        _check_size(size, where)
        return RLE(size, _compress(_checked_runs(counts, size, where), size))

    if isinstance(counts, str):
        if not counts.isascii():
            raise FormatError(f"{where}: counts hold characters that no run-length code has")
        counts = counts.encode("ascii")
    if not isinstance(counts, bytes):
        raise FormatError(f"{where}: counts are of type {type(counts).__name__}, expected a string or a list of ints")
    check_counts(counts, size, where)
    return RLE(size, counts)


def to_json(rle: RLE | None) -> dict[str, Any] | None:
    """Convert to the dictionary that JSON files contain; None stays None.

    Example:
        >>> from tubelet.core import masks
        >>> masks.to_json(masks.RLE((4, 6), b"0h0"))
        {'size': [4, 6], 'counts': '0h0'}
    """
    if rle is None:
        return None
    return {"size": list(rle.size), "counts": rle.counts.decode("ascii")}


def runs(counts: bytes) -> np.ndarray:
    """Decode compressed counts into run lengths of 0 and 1 in turn, int64 [R], 0 first.

    Raises ValueError if these are no compressed counts.

    Example:
        >>> from tubelet.core import masks
        >>> masks.runs(b"0h0").tolist()
        [0, 24]
    """
    symbols = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if symbols.size == 0:
        return np.zeros(0, np.int64)
    if symbols.min() < 0 or symbols.max() > 63 or symbols[-1] & 32:
        raise ValueError("not compressed counts")

    # a number is up to 12 symbols of 5 bits, lowest first; bit 32 says that another symbol follows
    ends = np.flatnonzero((symbols & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:
        raise ValueError("a run of more than 60 bits")

    shifts = 5 * (np.arange(symbols.size) - np.repeat(starts, lengths))
    values = np.add.reduceat((symbols & 31) << shifts, starts)
    negative = (symbols[ends] & 16) != 0
    values = values - (negative.astype(np.int64) << (5 * lengths))

    # from the fourth run on, each is stored as its difference from the run two before it
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    return values


def check_counts(counts: bytes, size: tuple[int, int], where: str = "segmentation") -> None:
    """Raise FormatError unless compressed counts decode to runs >= 0 that add up to the pixels of `size`.

    Example:
        >>> from tubelet.core import masks
        >>> masks.check_counts(b"0h0", size=(4, 6))
    """
    _check_size(size, where)
    try:
        lengths = runs(counts)
    except ValueError as error:
        raise FormatError(f"{where}: counts cannot be decoded ({error})") from None
    _checked_runs(lengths, size, where)


def _check_size(size: tuple[int, int], where: str) -> None:
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise FormatError(f"{where}: a mask of size {list(size)} is not supported")


def _checked_runs(lengths: Sequence[Any] | np.ndarray, size: tuple[int, int], where: str) -> np.ndarray:
    if isinstance(lengths, list) and any(type(length) is not int for length in lengths):
        raise FormatError(f"{where}: run lengths must be integers")
    try:
        array = np.asarray(lengths, dtype=np.int64)
    except OverflowError:
        raise FormatError(f"{where}: a run length is too large") from None

    pixels = size[0] * size[1]
    # each run is checked first, so that the sum cannot overflow
    if array.ndim != 1 or (array < 0).any() or (array > pixels).any() or int(array.sum()) != pixels:
        total = int(array.sum()) if array.ndim == 1 else "no list"
        raise FormatError(f"{where}: runs must be non-negative and add up to {pixels} pixels, got {total}")
    return array


def _compress(lengths: np.ndarray, size: tuple[int, int]) -> bytes:
    code = coco.frPyObjects({"size": list(size), "counts": lengths.tolist()}, *size)
    return bytes(code["counts"])


def _from_polygons(polygons: list[Any], size: tuple[int, int], where: str) -> RLE | None:
    _check_size(size, where)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise FormatError(
                f"{where}: a polygon needs three points or more as x, y, x, y, ..., got {_short(polygon)}"
            )

        # rasterizing takes time and memory in proportion to how far points are from the frame
        reach = 4 * max(size)
        if not all(isinstance(v, int | float) and abs(v) <= reach for v in polygon):
            raise FormatError(f"{where}: polygon coordinates must be numbers near the frame, got {_short(polygon)}")

    merged = coco.merge(coco.frPyObjects(polygons, *size))
    return RLE(size, merged["counts"])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."
