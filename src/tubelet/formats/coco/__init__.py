"""COCO: images as one-frame videos, and COCO with tracks."""

from tubelet.formats.coco.images import (
    Entry,
    read,
)

__all__ = [
    "Entry",
    "read",
]
