"""Label Studio: images with brushes and polygons, videos with boxes on a time line."""

from tubelet.formats.label_studio.reading import read

__all__ = ["read"]
