"""The edits of a result, as values: what a person did, in a form that can be stored, done again and undone.

Frames are counted from 0; the spans of frames include both ends. Every edit raises ConfigError, and changes nothing, if
it does not fit the result: a track that is gone, a frame that the video has not, a mask of another size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from tubelet.core import masks
from tubelet.core.arguments import short
from tubelet.core.config import Config
from tubelet.core.errors import ConfigError
from tubelet.core.masks import RLE
from tubelet.core.plugs import PlugConfig
from tubelet.core.polygons import Points, polygon
from tubelet.core.records import Track
from tubelet.editing.draft import Draft, Entry, Row

ALIKE = 0.5  # overlap (IoU) of their usual places from which two tracks of a class show the same thing


def outlined(corners: Points, size: tuple[int, int]) -> RLE:
    """The mask of a polygon (x, y in pixels) in a frame of this size (height, width).

    Raises ConfigError for fewer than three points, FormatError for points far from the frame.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.editing.edits import outlined
        >>> int(masks.areas([outlined([(1, 1), (5, 1), (5, 3), (1, 3)], (4, 6))])[0])
        8
    """
    points = polygon("outline", corners)
    mask = masks.from_json([points.ravel().tolist()], size, "outline")
    if mask is None:
        raise ConfigError(f"outline: expected a polygon inside the frame, got {short(points.tolist())}")
    return mask


def _read_mask(value: Any) -> RLE:
    """A mask as JSON has it, {"size", "counts"} or {"size", "polygon"}; whether the size is right, the draft knows."""
    if isinstance(value, RLE):
        return value
    size = value.get("size") if isinstance(value, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise ValueError("expected a mask with size and counts, or with size and polygon")
    if "polygon" in value:
        return outlined(_corners(value["polygon"]), (size[0], size[1]))
    mask = masks.from_json(value, (size[0], size[1]), "mask")
    if mask is None:
        raise ValueError("expected a mask, got none")
    return mask


def _corners(value: Any) -> list[list[float]]:
    is_list = isinstance(value, list) and all(isinstance(corner, list) for corner in value)
    if not is_list or not all(type(side) in (int, float) for corner in value for side in corner):
        raise ValueError("expected a polygon as a list of points [x, y]")
    corners: list[list[float]] = value
    return corners


Mask = Annotated[RLE, BeforeValidator(_read_mask), PlainSerializer(masks.to_json)]
Name = Annotated[str, Field(min_length=1, max_length=100)]


class Edit(PlugConfig):
    """Base of all edits.

    Example:
        >>> from tubelet.editing import edits
        >>> sorted(edits.Edit.kinds())
        ['add', 'delete', 'delete_alike', 'fill', 'merge', 'redraw', 'rename', 'split', 'swap']
        >>> print(edits.Edit.read({"kind": "swap", "track": 3, "other": 7, "first": 120}))
        swap 3 and 7 from frame 120
    """

    @classmethod
    def read(cls, tree: Any) -> Edit:
        """The edit of a tree of JSON values, as `model_dump(mode="json")` gives it.

        Raises ConfigError for an unknown kind, or for a field that is missing or does not fit.
        """
        return _Single.from_tree({"edit": tree}).edit

    @abstractmethod
    def apply(self, draft: Draft) -> Draft:
        """The draft after this edit."""

    @abstractmethod
    def __str__(self) -> str:
        """What is done, in a few words for a list of edits."""

    def made(self) -> int | None:
        """The id of the track that this edit makes, if it makes one."""
        return None


class _Single(Config):
    edit: Edit


class SpanEdit(Edit):
    """Base of the edits of a span of frames; without ends, the whole video."""

    first: int = Field(default=0, ge=0)
    last: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last is not None and self.last < self.first:
            raise ValueError(f"the span ends at frame {self.last}, before it begins at {self.first}")
        return self

    def span(self, draft: Draft) -> tuple[int, int]:
        """First and last frame, both within the video."""
        last = draft.length - 1 if self.last is None else draft.frame(self.last)
        return draft.frame(self.first), last

    def where(self) -> str:
        """The span in words, after a space; nothing for the whole video."""
        if self.last is None:
            return f" from frame {self.first}" if self.first else ""
        return f" in frame {self.first}" if self.first == self.last else f" in frames {self.first} to {self.last}"


class Delete(SpanEdit):
    """Delete a track, or its masks in a span of frames."""

    kind: Literal["delete"] = "delete"
    track: int

    def __str__(self) -> str:
        return f"delete {self.track}{self.where()}"

    def apply(self, draft: Draft) -> Draft:
        row = draft.row(self.track)
        first, last = self.span(draft)
        return draft.with_rows({self.track: row._replace(entries=row.outside(first, last))})


class DeleteAlike(Edit):
    """Delete a track and all of its class that rest at the same place: a sign that is taken for a person."""

    kind: Literal["delete_alike"] = "delete_alike"
    track: int

    def __str__(self) -> str:
        return f"delete {self.track} and all alike"

    def apply(self, draft: Draft) -> Draft:
        wrong = draft.row(self.track)
        place = _usual_place(wrong)
        alike = [
            id
            for id, row in draft.rows.items()
            if row.label == wrong.label and _overlap(place, _usual_place(row)) >= ALIKE
        ]
        return draft.without([self.track, *alike])


class Merge(Edit):
    """Make one object of two tracks: it keeps id, class and score of the first.

    Where both are present, `prefer` says whose mask stays.
    """

    kind: Literal["merge"] = "merge"
    track: int
    other: int
    prefer: int | None = None

    def __str__(self) -> str:
        return f"merge {self.track} and {self.other}"

    def apply(self, draft: Draft) -> Draft:
        row = draft.row(self.track)
        other = draft.row(self.other)
        if self.track == self.other:
            raise ConfigError(f"expected two tracks to merge, got {self.track} twice")
        if self.prefer not in (None, self.track, self.other):
            raise ConfigError(f"prefer: expected {self.track} or {self.other}, got {self.prefer}")

        both = sorted(row.entries.keys() & other.entries.keys())
        if both and self.prefer is None:
            where = f"in {len(both)} frames (from {both[0]})"
            choice = f"say whose masks stay there: prefer={self.track} or prefer={self.other}"
            raise ConfigError(f"tracks {self.track} and {self.other} are both present {where}; {choice}")

        under, over = (row, other) if self.prefer == self.other else (other, row)
        merged = row._replace(entries={**under.entries, **over.entries})
        return draft.without([self.other]).with_rows({self.track: merged})


class SplitTrack(Edit):
    """Give the part of a track from frame `at` on an id of its own."""

    kind: Literal["split"] = "split"
    track: int
    at: int
    new: int

    def __str__(self) -> str:
        return f"split {self.track} at frame {self.at}"

    def apply(self, draft: Draft) -> Draft:
        row = draft.row(self.track)
        at = draft.frame(self.at)
        before = row.between(0, at - 1)
        after = row.outside(0, at - 1)
        if not before or not after:
            raise ConfigError(f"track {self.track} has masks on one side of frame {at} alone: nothing to split")
        _check_new(draft, self.new)
        return draft.with_rows({self.track: row._replace(entries=before), self.new: row._replace(entries=after)})

    def made(self) -> int:
        return self.new


class Swap(SpanEdit):
    """Exchange the masks of two tracks, from frame `first` on or in a span."""

    kind: Literal["swap"] = "swap"
    track: int
    other: int

    def __str__(self) -> str:
        return f"swap {self.track} and {self.other}{self.where()}"

    def apply(self, draft: Draft) -> Draft:
        row = draft.row(self.track)
        other = draft.row(self.other)
        if self.track == self.other:
            raise ConfigError(f"expected two tracks to swap, got {self.track} twice")

        first, last = self.span(draft)
        mine = {**row.outside(first, last), **other.between(first, last)}
        theirs = {**other.outside(first, last), **row.between(first, last)}
        return draft.with_rows({self.track: row._replace(entries=mine), self.other: other._replace(entries=theirs)})


class Rename(Edit):
    """Give a track another class; a name that the result does not know is added to its classes."""

    kind: Literal["rename"] = "rename"
    track: int
    name: Name

    def __str__(self) -> str:
        return f"rename {self.track} to {self.name}"

    def apply(self, draft: Draft) -> Draft:
        row = draft.row(self.track)
        draft, label = draft.labelled(self.name)
        return draft.with_rows({self.track: row._replace(label=label)})


class Redraw(Edit):
    """Replace a track's mask in one frame by one that a person drew."""

    kind: Literal["redraw"] = "redraw"
    track: int
    frame: int
    mask: Mask

    def __str__(self) -> str:
        return f"redraw {self.track} in frame {self.frame}"

    def apply(self, draft: Draft) -> Draft:
        row = draft.row(self.track)
        drawn = {draft.frame(self.frame): Entry(_checked(self.mask, draft), drawn=True)}
        return draft.with_rows({self.track: row._replace(entries={**row.entries, **drawn})})


class Add(Edit):
    """Add an object that was missed, by its mask in one frame; its score is 1."""

    kind: Literal["add"] = "add"
    new: int
    name: Name
    frame: int
    mask: Mask

    def __str__(self) -> str:
        return f"add {self.name} {self.new} in frame {self.frame}"

    def apply(self, draft: Draft) -> Draft:
        _check_new(draft, self.new)
        draft, label = draft.labelled(self.name)
        entries = {draft.frame(self.frame): Entry(_checked(self.mask, draft), drawn=True)}
        track = Track(id=self.new, label=label, score=1.0, rles=())
        return draft.with_rows({self.new: Row(track, label, entries)})

    def made(self) -> int:
        return self.new


class Fill(SpanEdit):
    """Replace a track's masks in a span by those that a model found from a drawn one; drawn masks stay.

    A frame of the span without a mask is one in which the model did not find the object.
    """

    kind: Literal["fill"] = "fill"
    track: int
    found: dict[int, Mask]

    def __str__(self) -> str:
        return f"follow {self.track}{self.where()}"

    def apply(self, draft: Draft) -> Draft:
        row = draft.row(self.track)
        first, last = self.span(draft)
        strays = [t for t in self.found if not first <= t <= last]
        if strays:
            raise ConfigError(f"a mask for frame {strays[0]}, outside the span from {first} to {last}")

        found = {t: Entry(_checked(mask, draft)) for t, mask in self.found.items()}
        drawn = {t: entry for t, entry in row.between(first, last).items() if entry.drawn}
        return draft.with_rows({self.track: row._replace(entries={**row.outside(first, last), **found, **drawn})})


def _check_new(draft: Draft, id: int) -> None:
    if id in draft.rows:
        raise ConfigError(f"the id {id} is taken")


def _checked(mask: RLE, draft: Draft) -> RLE:
    """The mask. Raises ConfigError if it is of another size, or empty."""
    if mask.size != draft.size:
        raise ConfigError(f"expected a mask of size {list(draft.size)} (height, width), got {list(mask.size)}")
    if masks.areas([mask])[0] == 0:
        raise ConfigError("expected a mask with pixels inside the frame, got an empty one")
    return mask


def _usual_place(row: Row) -> np.ndarray:
    """The median of each side of the boxes of an object, float64 [4]."""
    entries: Mapping[int, Entry] = row.entries
    boxes = masks.boxes([entry.mask for entry in entries.values()])
    place: np.ndarray = np.median(boxes, axis=0)
    return place


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(np.prod(sides.clip(min=0)))
    areas = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]))
    return shared / max(areas - shared, 1.0)
