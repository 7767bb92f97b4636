"""Trainings in the list: a model that learns from results, and where that stands.

    DIR/trainings/<id>/lessons.json     the videos, with the frames to learn from
    DIR/trainings/<id>/0.json.gz ...    their results, as they were when the training was asked for
    DIR/trainings/<id>/labels/          the same as labelled data
    DIR/trainings/<id>/run/             the folder of `tubelet train`: checkpoints, metrics.jsonl
    DIR/trainings/<id>/before-0.jpg ... frames held out, by the model before and after

Labels and checkpoints go when it is finished; the model goes to the page's own (own_models.py).
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tubelet.apps.web.jobs.joblist import JobList
from tubelet.core.errors import ConfigError

TrainingState = Literal["queued", "running", "stopped", "done", "failed"]
MAX_ATTEMPTS = 2  # after a crash
LESSONS = "lessons.json"
LABELS = "labels"
RUN = "run"
FEWEST_FRAMES = 5  # with an object: from fewer, a model forgets more than it learns


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One training."""

    id: str
    name: str  # of the new model
    model: str  # name of the one that it starts from
    videos: str  # ids, as a JSON list
    threshold: float  # score from which an object is learned
    steps: int
    state: TrainingState
    error: str | None  # one line for the user
    attempts: int
    summary: str | None  # what came of it, as JSON
    created: float  # seconds since 1970
    owner: str = ""  # name of the user who asked for it

    @property
    def video_ids(self) -> list[str]:
        """The ids of the videos that it learns from."""
        return [str(id) for id in json.loads(self.videos)]


class Trainings:
    """The trainings of a list, and their folders. Thread-safe."""

    def __init__(self, joblist: JobList, root: Path) -> None:
        self._list = joblist
        self._root = root

    def all(self, state: TrainingState | None = None) -> list[TrainingJob]:
        """All trainings, or those in this state, oldest first."""
        rows = self._list.read("SELECT * FROM trainings WHERE ? IS NULL OR state = ? ORDER BY created", state, state)
        return [_training(row) for row in rows]

    def get(self, id: str) -> TrainingJob | None:
        """The training of this id; None if there is none."""
        rows = self._list.read("SELECT * FROM trainings WHERE id = ?", id)
        return _training(rows[0]) if rows else None

    def add(self, training: TrainingJob, scratch: Path) -> None:
        """Add a training, and move the folder `scratch`, which holds what is learned from, to its place."""
        os.replace(scratch, self.folder(training.id))
        columns = asdict(training)
        placeholders = ", ".join("?" * len(columns))
        try:
            self._list.add(f"INSERT INTO trainings ({', '.join(columns)}) VALUES ({placeholders})", *columns.values())
        except sqlite3.Error:
            shutil.rmtree(self.folder(training.id), ignore_errors=True)
            raise

    def set_state(self, id: str, state: TrainingState, error: str | None = None) -> None:
        """Say where a training stands, and why it failed."""
        self._list.change("UPDATE trainings SET state = ?, error = ? WHERE id = ?", state, error, id)

    def start(self, id: str) -> None:
        """Mark a training as running and count the attempt."""
        self._list.change("UPDATE trainings SET state = 'running', attempts = attempts + 1 WHERE id = ?", id)

    def put_back(self, id: str) -> None:
        """Queue a running training again without counting the attempt: the server was stopped."""
        self._list.change("UPDATE trainings SET state = 'queued', attempts = attempts - 1 WHERE id = ?", id)

    def can_go_on(self, training: TrainingJob) -> bool:
        """Whether it was stopped, or failed after its first step: what failed before that would fail again."""
        begun = (self.folder(training.id) / RUN / "checkpoints").is_dir()
        return training.state == "stopped" or (training.state == "failed" and begun)

    def go_on(self, id: str) -> None:
        """Queue a training again that was stopped or has failed."""
        self._list.change("UPDATE trainings SET state = 'queued', error = NULL, attempts = 0 WHERE id = ?", id)

    def finish(self, id: str, summary: dict[str, Any]) -> None:
        """Mark a training as done, and remove what only a training needs."""
        text = json.dumps(summary)
        self._list.change("UPDATE trainings SET state = 'done', error = NULL, summary = ? WHERE id = ?", text, id)
        for part in (LABELS, f"{RUN}/checkpoints"):
            shutil.rmtree(self.folder(id) / part, ignore_errors=True)

    def remove(self, id: str) -> None:
        """Remove a training and its files; the model that it has made stays."""
        shutil.rmtree(self.folder(id), ignore_errors=True)
        self._list.change("DELETE FROM trainings WHERE id = ?", id)

    def folder(self, id: str) -> Path:
        """The folder of a training's files."""
        return self._root / "trainings" / id

    def recover(self) -> None:
        """After a crash, queue what was interrupted again, and forget trainings whose files are gone."""
        for training in self.all():
            if not self.folder(training.id).is_dir():
                self.remove(training.id)
        for training in self.all("running"):
            if training.attempts >= MAX_ATTEMPTS:
                self.set_state(training.id, "failed", "the server stopped twice while this ran")
            else:
                self.set_state(training.id, "queued")


def check_enough(num_frames: int) -> None:
    """Raise ConfigError where so many frames, of which a part is to be held out, are too few to learn from."""
    if num_frames <= FEWEST_FRAMES:
        raise ConfigError(f"{num_frames} frames are too few to learn from: look at more than {FEWEST_FRAMES}")


def _training(row: sqlite3.Row) -> TrainingJob:
    return TrainingJob(**dict(row))
