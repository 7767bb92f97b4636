"""Results as people have edited them: each step is stored as it happens, and what the model found stays beside it.

The steps of a result are one list that only grows: an edit, "undo" or "redo" each. So one row is one step, written
whole or not at all; doing them again gives the result, and all that can be undone and redone, after a restart too. The
number of steps is the result's revision: whoever edits says which one is on the screen.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Literal

from tubelet.apps.web import documents
from tubelet.apps.web.jobs.refusals import known
from tubelet.apps.web.jobs.store import Job, Store
from tubelet.core.errors import ConfigError
from tubelet.core.records import Prediction
from tubelet.editing.edits import Edit
from tubelet.editing.session import Editing

MOST_STEPS = 5000  # of one result
MOST_BYTES = 16_000_000  # of the steps of one result
MOST_OPEN = 4  # results in memory

Step = Edit | Literal["undo", "redo"]
Spans = list[tuple[int, int]]  # first and last frame of each


class Edited:
    """One result with its edits. Not thread-safe.

    Raises ConfigError if the result cannot be edited: its classes have no names, or two of its tracks have one id.
    """

    def __init__(self, store: Store, job: Job) -> None:
        self._store = store
        self._job = job.id
        self._bytes = 0
        self.revision = 0

        self.document = documents.read(store.job_folder(job.id) / documents.RESULT)
        name = known(store.video(job.video)).name
        self.editing: Editing[Prediction] = Editing(documents.prediction_of(self.document, name))
        for text in store.steps(job.id):
            self._apply(_read(text))
            self._count(text)
        self.editing.see(_frames(store.seen(job.id)))

    def do(self, step: Step) -> None:
        """Do an edit, undo the last one or redo it, and store that.

        Raises ConfigError if it does not fit or there were too many, sqlite3.Error if the disk is full.
        """
        text = _written(step)
        if self.revision >= MOST_STEPS or self._bytes + len(text) > MOST_BYTES:
            raise ConfigError("this result has been edited as often as is possible here; download it and go on there")
        self._apply(step)
        self._store.add_step(self._job, self.revision, text)
        self._count(text)

    def see(self, spans: Spans) -> None:
        """Note and store that a person has looked at these frames.

        Raises ConfigError if the video has no such frame.
        """
        for span in spans:
            for t in span:
                self.editing.draft.frame(t)
        self.editing.see(_frames(spans))
        self._store.set_seen(self._job, self.seen)

    @property
    def seen(self) -> Spans:
        """The frames that a person has looked at."""
        return _spans(sorted(self.editing.seen))

    def write(self, path: Path) -> None:
        """Write the edited result in the form of the model's own."""
        draft = self.editing.draft
        tracks = [documents.track_json(track, draft.classes) for track in draft.tracks()]
        documents.write(path, {**self.document, "classes": list(draft.classes), "tracks": tracks})

    def _apply(self, step: Step) -> None:
        if isinstance(step, Edit):
            self.editing.do(step)
        elif (self.editing.undo if step == "undo" else self.editing.redo)() is None:
            raise ConfigError(f"there is nothing to {step}")

    def _count(self, text: str) -> None:
        self.revision += 1
        self._bytes += len(text)


class EditedResults:
    """The results that are being edited, each behind a lock of its own; the latest few stay in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()

    @contextmanager
    def opened(self, job: Job) -> Iterator[Edited]:
        """The result of a job, for one block at a time. After an error that is not the user's it is read again."""
        slot = self._slot(job.id)
        with slot.lock:
            edited = slot.edited or Edited(self._store, job)
            slot.edited = None
            try:
                yield edited
            except ConfigError:
                slot.edited = edited  # nothing was changed
                raise
            slot.edited = edited

    def _slot(self, id: str) -> _Slot:
        with self._lock:
            slot = self._slots.setdefault(id, _Slot())
            self._slots.move_to_end(id)
            idle = [other for other, old in self._slots.items() if other != id and not old.lock.locked()]
            for other in idle[: len(self._slots) - MOST_OPEN]:
                del self._slots[other]
            return slot


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.edited: Edited | None = None


def _written(step: Step) -> str:
    return json.dumps(step.model_dump(mode="json") if isinstance(step, Edit) else step, separators=(",", ":"))


def _read(text: str) -> Step:
    tree = json.loads(text)
    return tree if tree in ("undo", "redo") else Edit.read(tree)


def _frames(spans: Spans) -> Iterator[int]:
    for first, last in spans:
        yield from range(first, last + 1)


def _spans(frames: list[int]) -> Spans:
    """Runs of frames, each as its first and its last.

    >>> _spans([0, 1, 2, 7])
    [(0, 2), (7, 7)]
    """
    if not frames:
        return []
    breaks = [(before, after) for before, after in pairwise(frames) if after - before > 1]
    firsts = [frames[0], *(after for _, after in breaks)]
    lasts = [*(before for before, _ in breaks), frames[-1]]
    return list(zip(firsts, lasts, strict=True))
