"""Masks at rest: run-length encoding (COCO's compressed form), areas, boxes and spatio-temporal overlap."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco

from tubelet.core.errors import FormatError

MAX_PIXELS = 1 << 28  # a mask from outside that claims more is refused before anything is allocated


class RLE(NamedTuple):
    """One binary mask: size (height, width) and COCO's compressed counts (column-major runs)."""

    size: tuple[int, int]
    counts: bytes


def encode(masks: np.ndarray) -> list[RLE]:
    """Binary masks [N, H, W] (bool or uint8) -> N RLEs."""
    stacked = np.asfortranarray(np.moveaxis(masks, 0, -1).astype(np.uint8, copy=False))
    size = (int(masks.shape[1]), int(masks.shape[2]))
    return [RLE(size, code["counts"]) for code in coco.encode(stacked)]


def decode(rles: Sequence[RLE]) -> np.ndarray:
    """N RLEs of one size -> uint8 [N, H, W] of 0 and 1."""
    if not rles:
        return np.zeros((0, 0, 0), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools warns about its own use of numpy 2
        return np.moveaxis(coco.decode(as_coco(rles)), -1, 0)


def areas(rles: Sequence[RLE]) -> np.ndarray:
    """Pixel counts, float64 [N]."""
    return np.asarray(coco.area(as_coco(rles)), np.float64) if rles else np.zeros(0)


def boxes(rles: Sequence[RLE]) -> np.ndarray:
    """Tight half-open boxes (x1, y1, x2, y2), float64 [N, 4]; an empty mask gives zeros."""
    if not rles:
        return np.zeros((0, 4))
    xywh = np.asarray(coco.toBbox(as_coco(rles)), np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def as_coco(rles: Sequence[RLE]) -> list[dict[str, Any]]:
    """The dictionaries that pycocotools wants."""
    return [{"size": list(rle.size), "counts": rle.counts} for rle in rles]


def from_json(value: Any, size: tuple[int, int], where: str = "segmentation") -> RLE | None:
    """A segmentation as files hold it -> RLE of `size` (height, width); None, [] and {} mean absent.

    Reads compressed counts (str or bytes), uncompressed counts (list of ints) and polygons (list of flat x, y lists).
    Raises FormatError, which names `where`, for another size, broken runs or polygons under three points.
    """
    if value is None or (isinstance(value, list | dict) and not value):
        return None
    if isinstance(value, list):
        return _from_polygons(value, size, where)
    if not isinstance(value, dict) or "counts" not in value or "size" not in value:
        raise FormatError(f"{where}: expected an RLE with size and counts or a list of polygons, got {_short(value)}")
    given = value["size"]
    if not isinstance(given, list | tuple) or len(given) != 2 or tuple(given) != tuple(size):
        raise FormatError(f"{where}: expected a mask of size {list(size)} (height, width), got {_short(given)}")
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
    """The form that JSON files hold; None stays None."""
    return None if rle is None else {"size": list(rle.size), "counts": rle.counts.decode("ascii")}


def runs(counts: bytes) -> np.ndarray:
    """Run lengths of a compressed mask, int64 [R], zeros first: the format's 5-bit groups, decoded without a loop."""
    symbols = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if symbols.size == 0:
        return np.zeros(0, np.int64)
    if symbols.min() < 0 or symbols.max() > 63 or symbols[-1] & 32:
        raise ValueError("not compressed counts")
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
    """Raise FormatError unless compressed counts decode to non-negative runs that fill `size` exactly."""
    _check_size(size, where)
    try:
        lengths = runs(counts)
    except ValueError as error:
        raise FormatError(f"{where}: counts cannot be decoded ({error})") from None
    _checked_runs(lengths, size, where)


def spatio_temporal_iou(first: Sequence[RLE | None], second: Sequence[RLE | None]) -> float:
    """Overlap of two tracks over the same frames: summed intersections over summed unions (not a mean over frames).

    None means absent. 0 where the union is empty. Source: YouTube-VIS evaluation. Raises ValueError for other lengths.
    """
    if len(first) != len(second):
        raise FormatError(f"tracks disagree on length: {len(first)} and {len(second)} frames")
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    for a, b in both:
        if a.size != b.size:
            raise FormatError(f"tracks disagree on mask size: {a.size} and {b.size}")
    intersections = [coco.merge(as_coco(pair), intersect=True) for pair in both]
    intersection = float(coco.area(intersections).sum()) if intersections else 0.0
    total = sum(float(areas([r for r in track if r is not None]).sum()) for track in (first, second))
    union = total - intersection
    return intersection / union if union else 0.0


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
        # points far outside would cost time and memory in proportion to their distance
        reach = 4 * max(size)
        if not all(isinstance(v, int | float) and abs(v) <= reach for v in polygon):
            raise FormatError(f"{where}: polygon coordinates must be numbers near the frame, got {_short(polygon)}")
    merged = coco.merge(coco.frPyObjects(polygons, *size))
    return RLE(size, merged["counts"])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."
