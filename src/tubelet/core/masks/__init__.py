"""Masks as run-length codes (`rle`), whole tracks (`sparse`, `packed`), and their intersections (`overlaps`)."""

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
    to_json,
)
from tubelet.core.masks.sparse import SparseMasks, spatio_temporal_iou

__all__ = [
    "MAX_PIXELS",
    "RLE",
    "SparseMasks",
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
