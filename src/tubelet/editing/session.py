"""An `Editing`: a result, the edits done to it, and what can be undone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Literal

import msgspec
import numpy as np
from pydantic import Field

from tubelet.core import masks
from tubelet.core.atomic import replacing
from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, FormatError
from tubelet.core.masks import RLE
from tubelet.core.polygons import Points
from tubelet.core.records import AnyPrediction, Prediction
from tubelet.core.untrusted.documents import read_json
from tubelet.core.untrusted.files import is_file
from tubelet.editing.draft import Draft
from tubelet.editing.edits import (
    Add,
    Delete,
    DeleteAlike,
    Edit,
    Merge,
    Redraw,
    Rename,
    SplitTrack,
    Swap,
    outlined,
)

EDITS = "edits.json"
MOST_EDITS = 100_000


class EditsFile(Config):
    """What `Editing.save` writes: the edits, and of which result they are.

    Example:
        >>> from tubelet.editing.session import EditsFile
        >>> EditsFile(of="0" * 64, edits=[{"kind": "delete", "track": 3}]).edits[0].track
        3
    """

    format: Literal["tubelet edits 1"] = "tubelet edits 1"
    of: str = Field(pattern="[0-9a-f]{64}")  # `fingerprint` of the result
    edits: tuple[Edit, ...] = Field(default=(), max_length=MOST_EDITS)
    seen: tuple[int, ...] = ()  # frames that a person has looked at


class Editing(Generic[AnyPrediction]):
    """Edit a result step by step; `result` is what it has become, the result itself stays as it is.

    `prediction.edit()` makes one of what `tubelet.predict` returns.

    Args:
        prediction: The result; its ids are unique, its classes have names.

    Raises:
        ConfigError: if an edit does not fit, with one line that says why; nothing is changed then.

    Example:
        >>> mask, = tubelet.core.masks.encode(np.ones((1, 4, 6), bool))
        >>> first = tubelet.Track(id=3, label=0, score=0.9, rles=(mask, None))
        >>> later = tubelet.Track(id=7, label=0, score=0.8, rles=(None, mask))
        >>> prediction = tubelet.Prediction(
        ...     video="pets", size=(4, 6), length=2, tracks=(first, later), classes=("cat", "dog")
        ... )
        >>> editing = tubelet.Editing(prediction)
        >>> editing.merge(3, 7)
        >>> editing.rename(3, "dog")
        >>> editing.result.tracks
        (Track(id=3, label=1, score=0.9, frames=2 of 2),)
        >>> editing.undo()
        Rename(kind='rename', track=3, name='dog')
    """

    def __init__(self, prediction: AnyPrediction) -> None:
        self.original = prediction
        self.seen: frozenset[int] = frozenset()
        self._drafts = [Draft.of(prediction)]  # before and after each edit
        self._edits: list[Edit] = []
        self._undone: list[Edit] = []  # the last one is redone first
        self._next_id = max(prediction.ids, default=0) + 1

    # what it has become

    @property
    def draft(self) -> Draft:
        """The objects after all edits."""
        return self._drafts[-1]

    @property
    def result(self) -> AnyPrediction:
        """The edited result. Tracks that were not edited are the same objects as in the original."""
        if not self._edits:
            return self.original
        return replace(self.original, tracks=self.draft.tracks(), classes=self.draft.classes)

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits in the order in which they were done, without those that were undone."""
        return tuple(self._edits)

    @property
    def undone(self) -> tuple[Edit, ...]:
        """The edits that can be done again; the last one comes first."""
        return tuple(self._undone)

    @property
    def unedited(self) -> Draft:
        """The objects before all edits."""
        return self._drafts[0]

    @property
    def next_id(self) -> int:
        """The id of the next track that is made; no id is used twice, not even after `undo`."""
        return self._next_id

    # the verbs

    def delete(self, track: int, first: int = 0, last: int | None = None) -> None:
        """Delete a track, or its masks from frame `first` to `last`."""
        self.do(Delete(track=track, first=first, last=last))

    def delete_alike(self, track: int) -> None:
        """Delete a track and all of its class that rest at the same place."""
        self.do(DeleteAlike(track=track))

    def merge(self, track: int, other: int, *, prefer: int | None = None) -> None:
        """Make one object of two; `prefer` is the one whose masks stay where both are present."""
        self.do(Merge(track=track, other=other, prefer=prefer))

    def split(self, track: int, at: int) -> int:
        """Give the part of a track from frame `at` on an id of its own, which is returned."""
        return self._make(SplitTrack(track=track, at=at, new=self.next_id))

    def swap(self, track: int, other: int, first: int, last: int | None = None) -> None:
        """Exchange two identities from frame `first` on, or until frame `last`."""
        self.do(Swap(track=track, other=other, first=first, last=last))

    def rename(self, track: int, name: str) -> None:
        """Give a track another class, of the result or a new one."""
        self.do(Rename(track=track, name=name))

    def redraw(self, track: int, frame: int, mask: np.ndarray | RLE | Points) -> None:
        """Replace a mask: bool [H, W], an RLE, or the corners (x, y) of a polygon in pixels."""
        self.do(Redraw(track=track, frame=frame, mask=self._mask(mask)))

    def add(self, name: str, frame: int, mask: np.ndarray | RLE | Points) -> int:
        """Add an object that was missed, by its mask in one frame; returns its id."""
        return self._make(Add(new=self.next_id, name=name, frame=frame, mask=self._mask(mask)))

    # doing and undoing

    def do(self, *done: Edit) -> None:
        """Do edits, all or none; what was undone before cannot be redone any more."""
        drafts = self._after(done)
        self._drafts += drafts
        self._edits += done
        self._undone.clear()
        self._next_id = max([self._next_id, *(id + 1 for edit in done if (id := edit.made()) is not None)])

    def undo(self) -> Edit | None:
        """Undo the last edit, and return it; None if there is none."""
        if not self._edits:
            return None
        self._drafts.pop()
        self._undone.append(self._edits.pop())
        return self._undone[-1]

    def redo(self) -> Edit | None:
        """Do the edit again that was undone last, and return it; None if there is none."""
        if not self._undone:
            return None
        edit = self._undone.pop()
        self._drafts.append(edit.apply(self.draft))
        self._edits.append(edit)
        return edit

    def see(self, frames: Iterable[int]) -> None:
        """Note that a person has looked at these frames: only such frames are exported as labelled data by default."""
        self.seen |= {self.draft.frame(t) for t in frames}

    # files

    def save(self, path: str | Path) -> None:
        """Write the edits, whole or not at all."""
        document = EditsFile(of=fingerprint(self.original), edits=self.edits, seen=tuple(sorted(self.seen)))
        with replacing(path) as temporary:
            temporary.write_bytes(msgspec.json.encode(document.model_dump(mode="json")) + b"\n")

    def load(self, path: str | Path) -> None:
        """Do the edits of a file that `save` wrote.

        Raises InputError if it cannot be read, FormatError if it has another content or belongs to another result.
        """
        document = _document(read_json(path), path)
        if document.of != fingerprint(self.original):
            raise FormatError(f"{path}: the edits of another result than {self.original.video}")
        self.do(*document.edits)
        self.see(document.seen)

    def _make(self, edit: SplitTrack | Add) -> int:
        self.do(edit)
        return edit.new

    def _after(self, done: Sequence[Edit]) -> list[Draft]:
        drafts = [self.draft]
        for edit in done:
            drafts.append(edit.apply(drafts[-1]))
        return drafts[1:]

    def _mask(self, mask: np.ndarray | RLE | Points) -> RLE:
        size = self.original.size
        if isinstance(mask, RLE):
            return mask
        if isinstance(mask, np.ndarray) and mask.dtype == bool:
            if mask.shape != size:
                raise ConfigError(f"expected a mask of size {list(size)} (height, width), got {list(mask.shape)}")
            return masks.encode(mask[None])[0]

        return outlined(mask, size)


def seen_frames(folder: str | Path) -> tuple[int, ...]:
    """The frames that a person has looked at, by the edits.json in a folder; none without that file.

    Raises FormatError if it has another content.

    Example:
        >>> import tempfile
        >>> from tubelet.editing.session import seen_frames
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     seen_frames(folder)
        ()
    """
    path = Path(folder) / EDITS
    return _document(read_json(path), path).seen if is_file(path) else ()


def fingerprint(prediction: Prediction) -> str:
    """A name for the content of a result, 64 hexadecimal digits: its ids, classes and masks.

    Example:
        >>> from tubelet.editing.session import fingerprint
        >>> prediction = tubelet.Prediction(video="dog", size=(4, 6), length=2, tracks=(), classes=("dog",))
        >>> len(fingerprint(prediction))
        64
    """
    digest = hashlib.sha256(repr((prediction.size, prediction.length, prediction.classes)).encode())
    for track in prediction.tracks:
        digest.update(repr((track.id, track.label)).encode())
        for t, rle in track.entries.items():
            digest.update(b"%d:%s;" % (t, rle.counts))
    return digest.hexdigest()


def _document(tree: Any, path: str | Path) -> EditsFile:
    try:
        return EditsFile.from_tree(tree)
    except ConfigError as error:
        raise FormatError(f"{path}: {error}") from None
