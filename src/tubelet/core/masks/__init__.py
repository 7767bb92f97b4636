"""Masks as run-length codes (`rle`), whole packed tracks (`packed`), and their intersections (`overlaps`)."""

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
