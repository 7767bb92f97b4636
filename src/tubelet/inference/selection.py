"""Which objects a caller wants to see: those of some classes, within a region of the frame."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tubelet.core.arguments import class_labels
from tubelet.core.polygons import Points, centres, inside, polygon
from tubelet.core.types import Track


@dataclass(frozen=True, slots=True)
class Selection:
    """Chooses objects by class and by where they are; `selection_of` makes one.

    An object is in the region in the frames in which the centre of its box is.

    >>> from tubelet.inference.selection import selection_of
    >>> chosen = selection_of(["dog"], [(0, 0), (10, 0), (10, 10), (0, 10)], classes=("cat", "dog"))
    >>> chosen.has_class(0), chosen.in_region(np.array([[0, 0, 4, 4], [8, 8, 20, 20]])).tolist()
    (False, [True, False])
    """

    labels: frozenset[int] | None = None  # None: all classes
    region: np.ndarray | None = None  # corners (x, y) [k, 2]; None: the whole frame

    def has_class(self, label: int) -> bool:
        """Whether the class is chosen."""
        return self.labels is None or label in self.labels

    def in_region(self, boxes: np.ndarray) -> np.ndarray:
        """Which boxes (x1, y1, x2, y2) [N, 4] have their centre in the region, bool [N]."""
        if self.region is None:
            return np.ones(len(boxes), bool)
        return inside(centres(boxes), self.region)

    def tracks(self, tracks: Sequence[Track]) -> tuple[Track, ...]:
        """The chosen tracks, without the frames in which they are outside the region."""
        chosen = [track for track in tracks if self.has_class(track.label)]
        if self.region is not None:
            chosen = [self._cut(track) for track in chosen]
            chosen = [track for track in chosen if len(track.entries.frames)]
        return tuple(chosen)

    def _cut(self, track: Track) -> Track:
        return replace(track, rles=track.entries.where(self.in_region(track.boxes)))


def selection_of(names: Collection[str] | None, roi: Points | None, classes: tuple[str, ...]) -> Selection:
    """The selection of a list of class names and a polygon (x, y) in pixels; None chooses all.

    Raises ConfigError for an unknown class, with the nearest name, or for no polygon.

    >>> from tubelet.inference.selection import selection_of
    >>> selection_of(None, None, classes=("cat", "dog"))
    Selection(labels=None, region=None)
    """
    return Selection(
        labels=None if names is None else class_labels(names, classes),
        region=None if roi is None else polygon("roi", roi),
    )
