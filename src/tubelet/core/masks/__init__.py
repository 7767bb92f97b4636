"""Masks at rest: run-length codes (`rle`), whole tracks packed (`packed`), and how much they share (`overlaps`)."""

from tubelet.core.masks.rle import (
    MAX_PIXELS,
    RLE,
    areas,
    as_coco,
    boxes,
    check_counts,
    decode,
    encode,
    from_json,
    runs,
    spatio_temporal_iou,
    to_json,
)

__all__ = [
    "MAX_PIXELS",
    "RLE",
    "areas",
    "as_coco",
    "boxes",
    "check_counts",
    "decode",
    "encode",
    "from_json",
    "runs",
    "spatio_temporal_iou",
    "to_json",
]
