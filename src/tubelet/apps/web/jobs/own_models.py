"""The page's own models, taught or uploaded: DIR/models/<id>/model.safetensors, with the name that a person gave."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from dataclasses import astuple, dataclass
from pathlib import Path

from tubelet.apps.web.jobs.joblist import JobList
from tubelet.core.errors import InputError

MOST = 20  # of one user
NAME = re.compile(r"\w[\w .-]{0,58}\w|\w")  # a word, as a name of a file could be
FILE = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnModel:
    """A model in the list."""

    id: str
    name: str
    bytes: int
    created: float  # seconds since 1970
    owner: str = ""  # name of its user, which its own name starts with


class OwnModels:
    """The models of a list, and their folders. Thread-safe."""

    def __init__(self, joblist: JobList, root: Path) -> None:
        self._list = joblist
        self._root = root

    def all(self) -> list[OwnModel]:
        """All of them, oldest first."""
        rows = self._list.read("SELECT * FROM models ORDER BY created")
        return [OwnModel(**dict(row)) for row in rows]

    def get(self, id: str) -> OwnModel | None:
        """The model of this id; None if there is none."""
        return next((model for model in self.all() if model.id == id), None)

    def add(self, model: OwnModel, path: Path) -> None:
        """Add a model, and move its file to its place. Raises sqlite3.Error if the disk is full."""
        self.folder(model.id).mkdir()
        os.replace(path, self.path(model.id))
        try:
            self._list.add("INSERT INTO models VALUES (?, ?, ?, ?, ?)", *astuple(model))
        except sqlite3.Error:
            shutil.rmtree(self.folder(model.id), ignore_errors=True)
            raise

    def remove(self, id: str) -> None:
        """Remove a model and its file."""
        shutil.rmtree(self.folder(id), ignore_errors=True)
        self._list.change("DELETE FROM models WHERE id = ?", id)

    def folder(self, id: str) -> Path:
        """The folder of a model."""
        return self._root / "models" / id

    def path(self, id: str) -> Path:
        """The file of a model."""
        return self.folder(id) / FILE

    def recover(self) -> None:
        """Forget models whose file is gone."""
        for model in self.all():
            if not self.path(model.id).is_file():
                self.remove(model.id)


def check_name(name: str, owner: str, taken: list[str]) -> None:
    """Raise InputError unless a new model of `owner` can have this name, which starts with that of the owner."""
    if not NAME.fullmatch(name.removeprefix(f"{owner}/") if owner else name):
        raise InputError("a model's name has 1 to 60 letters, digits, spaces, dots, hyphens or underscores")
    if name.casefold() in [other.casefold() for other in taken]:
        raise InputError(f"there is a model called {name!r} already; choose another name")
