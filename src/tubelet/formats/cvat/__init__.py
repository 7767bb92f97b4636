"""CVAT's XML 1.1: tasks of videos with tracks, tasks of images."""

from tubelet.formats.cvat.reading import read
from tubelet.formats.cvat.writing import write

__all__ = ["read", "write"]
