"""A server with users, whose worker is never started: what it lists and refuses needs none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tubelet.apps.web import documents, server
from tubelet.apps.web.guard import Access
from tubelet.apps.web.jobs.own_models import OwnModel
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.store import Film, Job, Store, new_id
from tubelet.apps.web.jobs.trainings import TrainingJob
from tubelet.apps.web.limits import Limits
from tubelet.apps.web.users import User, hash_of

MODEL = {"name": "default", "classes": ["goat"], "attends": True, "follows": True, "learns": True}
DOCUMENT = {
    "size": [2, 3], "length": 6, "fps": 10.0, "times": [t / 10 for t in range(6)],
    "shots": [0], "classes": ["goat"],
    "tracks": [{"id": 1, "label": 0, "name": "goat", "score": 0.9, "colour": "#ff0000", "counts": ["06"] * 6}],
}  # fmt: skip


def token_of(name: str) -> str:
    return f"the token of {name}"


def user(name: str, **quotas: int) -> User:
    return User(name=name, sha256=hash_of(token_of(name)), **quotas)


class Page:
    """A server and its store."""

    def __init__(self, root: Path, users: tuple[User, ...], limits: Limits) -> None:
        self.store = Store(root)
        self.jobs = Jobs(self.store, limits, lambda name: None, ["default"])
        self.jobs.models.described = [MODEL]
        self.app: Any = server.build(self.jobs, Access(users=users))

    def client(self, name: str | None, address: str = "127.0.0.1") -> TestClient:
        headers = {} if name is None else {"Authorization": f"Bearer {token_of(name)}"}
        client = (address, 50000)
        return TestClient(self.app, base_url="http://127.0.0.1", headers=headers, follow_redirects=False, client=client)

    def add_film(self, owner: str, name: str = "goats.mp4") -> Film:
        film = Film(
            id=new_id(), name=name, example=False, bytes=9, width=3, height=2, frames=6, seconds=0.6, playable=True,
            webm=False, created=1.0, owner=owner,
        )  # fmt: skip
        with self.store.scratch() as folder:
            (folder / "source").write_bytes(b"not much.")
            self.store.add_video(film, folder)
        return film

    def add_result(self, film: Film) -> Job:
        job = self.store.add_job(film.id, "default", None, None)
        self.store.job_folder(job.id).mkdir()
        documents.write(self.store.job_folder(job.id) / documents.RESULT, DOCUMENT)
        self.store.finish(job.id, 1, 0.5)
        return job

    def add_training(self, owner: str) -> TrainingJob:
        training = TrainingJob(
            id=new_id(), name=f"{owner}/goats", model="default", videos="[]", threshold=0.5, steps=9, state="stopped",
            error=None, attempts=0, summary=None, created=2.0, owner=owner,
        )  # fmt: skip
        with self.store.scratch() as folder:
            self.store.trainings.add(training, folder)
        return training

    def add_model(self, owner: str) -> OwnModel:
        model = OwnModel(id=new_id(), name=f"{owner}/birds", bytes=3, created=3.0, owner=owner)
        with self.store.scratch() as folder:
            (folder / "file").write_bytes(b"abc")
            self.store.models.add(model, folder / "file")
        self.jobs.models.described.append({**MODEL, "name": model.name})
        return model


@contextmanager
def page(root: Path, *users: User, limits: Limits | None = None) -> Iterator[Page]:
    """A server with these users."""
    running = Page(root, users, limits or Limits())
    yield running
    running.store.close()
