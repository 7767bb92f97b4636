"""COCO: images as videos of one frame, and COCO files with tracks."""

from tubelet.formats.coco.images import Entry, read

__all__ = ["Entry", "read"]
