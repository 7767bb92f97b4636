"""A result as an editor needs it: for every object its masks by frame, and which of them a person drew.

A `Draft` is a value: an edit makes a new one and shares all that did not change, so that undo costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tubelet.core.arguments import short, whole_between
from tubelet.core.errors import ConfigError
from tubelet.core.masks import RLE
from tubelet.core.masks.sparse import FRAME, SparseMasks
from tubelet.core.records import Prediction, Track


class Entry(NamedTuple):
    """A mask, and whether a person drew it."""

    mask: RLE
    drawn: bool = False


class Row(NamedTuple):
    """One object: its class, its score, and its masks by frame, in any order."""

    track: Track  # of the result, for all that is not edited
    label: int
    entries: Mapping[int, Entry]

    def between(self, first: int, last: int) -> dict[int, Entry]:
        """The masks of the frames from `first` to `last`, both included."""
        return {t: entry for t, entry in self.entries.items() if first <= t <= last}

    def outside(self, first: int, last: int) -> dict[int, Entry]:
        """The masks of all other frames."""
        return {t: entry for t, entry in self.entries.items() if not first <= t <= last}


@dataclass(frozen=True)
class Draft:
    """All objects of a video by id, in the order in which they are listed.

    Example:
        >>> from tubelet.editing.draft import Draft
        >>> mask, = tubelet.core.masks.encode(np.ones((1, 4, 6), bool))
        >>> track = tubelet.Track(id=3, label=0, score=0.9, rles=(mask, None))
        >>> prediction = tubelet.Prediction(video="dog", size=(4, 6), length=2, tracks=(track,), classes=("dog",))
        >>> draft = Draft.of(prediction)
        >>> list(draft.rows), list(draft.row(3).entries)
        ([3], [0])
        >>> draft.tracks() == prediction.tracks
        True
        >>> draft.without([3]).changed(draft), draft.changed(draft.without([3]))
        ([], [3])
    """

    size: tuple[int, int]  # height, width
    length: int  # frames
    classes: tuple[str, ...]
    rows: Mapping[int, Row]

    @classmethod
    def of(cls, prediction: Prediction) -> Draft:
        """The draft of a result.

        Raises ConfigError if two of its tracks have one id, or if its classes have no names.
        """
        if len(set(prediction.ids)) < len(prediction.ids):
            raise ConfigError(f"{prediction.video}: two tracks have one id; edit a result whose ids are unique")
        if not prediction.classes:
            raise ConfigError(f"{prediction.video}: the classes of this result have no names")
        rows = {track.id: _row(track) for track in prediction.tracks}
        return cls(prediction.size, prediction.length, prediction.classes, rows)

    def row(self, id: int) -> Row:
        """The object with this id. Raises ConfigError if there is none (any more)."""
        if id not in self.rows:
            raise ConfigError(f"no track with the id {short(id)}; ids: {short(list(self.rows))}")
        return self.rows[id]

    def frame(self, t: int) -> int:
        """The number of a frame. Raises ConfigError if the video has no such frame."""
        return whole_between("a frame", t, 0, self.length - 1)

    def with_rows(self, changed: Mapping[int, Row]) -> Draft:
        """A copy with these objects added or replaced; an object without any mask is left out."""
        rows = {**self.rows, **changed}
        return replace(self, rows={id: row for id, row in rows.items() if row.entries})

    def without(self, ids: Collection[int]) -> Draft:
        """A copy without these objects."""
        return replace(self, rows={id: row for id, row in self.rows.items() if id not in ids})

    def labelled(self, name: str) -> tuple[Draft, int]:
        """A draft that knows the class `name`, and its position; a new name is added to the classes."""
        if name in self.classes:
            return self, self.classes.index(name)
        return replace(self, classes=(*self.classes, name)), len(self.classes)

    def changed(self, earlier: Draft) -> list[int]:
        """Ids of the objects that are new or different since an earlier draft of the same result."""
        return [id for id, row in self.rows.items() if earlier.rows.get(id) is not row]

    def track(self, id: int) -> Track:
        """The object with this id as a track. Raises ConfigError if there is none."""
        return _track(id, self.row(id), self.length)

    def tracks(self) -> tuple[Track, ...]:
        """The objects as tracks; one that was not edited is the very track of the result."""
        return tuple(_track(id, row, self.length) for id, row in self.rows.items())


def reach(draft: Draft, shots: tuple[int, ...], track: int, start: int) -> tuple[int, int]:
    """How far to follow a track from frame `start`, backwards and forwards: first and last frame.

    To the ends of the shot, but not beyond the next frame in which a person drew the object.

    Example:
        >>> from tubelet.editing.draft import Draft, reach
        >>> mask, = tubelet.core.masks.encode(np.ones((1, 4, 6), bool))
        >>> track = tubelet.Track(id=3, label=0, score=0.9, rles=(mask,) * 9)
        >>> draft = Draft.of(
        ...     tubelet.Prediction(video="dog", size=(4, 6), length=9, tracks=(track,), classes=("dog",))
        ... )
        >>> reach(draft, (0, 6), 3, start=2)
        (0, 5)
    """
    first = max([t for t in shots if t <= start], default=0)
    last = min([t for t in shots if t > start], default=draft.length) - 1
    drawn = [t for t, entry in draft.row(track).entries.items() if entry.drawn]
    first = max([first, *(t + 1 for t in drawn if t < start)])
    last = min([last, *(t - 1 for t in drawn if t > start)])
    return first, last


def _row(track: Track) -> Row:
    entries = {t: Entry(rle) for t, rle in track.entries.items()}
    return Row(track, track.label, entries)


def _track(id: int, row: Row, length: int) -> Track:
    frames = sorted(row.entries)
    rles = SparseMasks(length, np.array(frames, FRAME), tuple(row.entries[t].mask for t in frames))
    if (id, row.label) == (row.track.id, row.track.label) and rles == row.track.rles:
        return row.track
    return replace(row.track, id=id, label=row.label, rles=rles, name="", area=None)
