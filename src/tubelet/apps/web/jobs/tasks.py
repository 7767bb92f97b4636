"""What the queue has the worker do, one at a time: segment a video, or teach a model.

A task tells the worker what to do, and settles in the list and in the folders how it ended.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tubelet.apps.web.jobs.own_models import FILE, OwnModel
from tubelet.apps.web.jobs.store import Job, Store, new_id
from tubelet.apps.web.jobs.trainings import TrainingJob

GRACE = 3.0  # seconds that a cancelled task has to stop before its process is killed
STOPPING = 60.0  # the same for a training that is to go on later: it ends its step and writes a checkpoint

Message = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """Progress of a running task."""

    stage: str = "starting"
    done: int = 0  # frames
    total: int = 0  # frames
    left: float | None = None  # seconds
    rate: float | None = None  # frames a second


class QueuedTask(Protocol):
    """One task of the queue."""

    @property
    def id(self) -> str:
        """The job's or training's."""

    @property
    def created(self) -> float:
        """When it was asked for, seconds since 1970: the order of the queue."""

    @property
    def videos(self) -> Sequence[str]:
        """Ids of the videos whose files it reads."""

    @property
    def grace(self) -> float:
        """Seconds that it has to stop after it was cancelled."""

    @property
    def is_bounded(self) -> bool:
        """Whether it may take `Limits.minutes` at most."""

    def start(self) -> Message:
        """Mark it as running; returns the order for the worker. Raises OSError if the disk refuses."""

    def hear(self, message: Message) -> None:
        """Take what the worker has ready before the end."""

    def finish(self, message: Message) -> None:
        """Keep what the worker has made."""

    def fail(self, line: str) -> None:
        """Note why it failed."""

    def cancel(self) -> None:
        """Settle that it was cancelled."""

    def put_back(self) -> None:
        """Queue it again, because the server is shutting down."""

    def clean(self) -> None:
        """Remove unfinished files."""


class Segmentation:
    """A model's run over one video."""

    is_bounded = True

    def __init__(self, store: Store, job: Job) -> None:
        self._store = store
        self._job = job
        self._scratch: Path | None = None
        self.id = job.id
        self.created = job.created
        self.videos = (job.video,)

    @property
    def grace(self) -> float:
        return GRACE

    def start(self) -> Message:
        job = self._job
        film = self._store.video(job.video)
        assert film is not None, "a video's jobs are removed with it"
        scratch = self._store.root / "scratch" / new_id()
        scratch.mkdir()
        self._scratch = scratch
        self._store.start(job.id)

        folder = self._store.video_folder(film.id)
        return {
            "do": "segment",
            "key": job.id,
            "model": job.model,
            "length": job.length,
            "stride": job.stride,
            "classes": job.class_names,
            "source": str(folder / "source"),
            "name": film.name,
            "playable": film.playable,
            "has_play": (folder / "play.mp4").is_file(),
            "out": str(scratch),
        }

    def hear(self, message: Message) -> None:
        assert self._scratch is not None
        os.replace(self._scratch / "play.mp4", self._store.video_folder(self._job.video) / "play.mp4")

    def finish(self, message: Message) -> None:
        assert self._scratch is not None
        os.replace(self._scratch, self._store.job_folder(self.id))
        self._store.finish(self.id, message["objects"], message["seconds"])

    def fail(self, line: str) -> None:
        self._store.fail(self.id, line)

    def cancel(self) -> None:
        self._store.remove_job(self.id)

    def put_back(self) -> None:
        self._store.put_back(self.id)

    def clean(self) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch = None


class Teaching:
    """A model that learns from results. Its files stay where it was stopped, so that it can go on."""

    is_bounded = False  # its steps are

    def __init__(self, store: Store, training: TrainingJob, init: str) -> None:
        self._store = store
        self._training = training
        self._init = init  # the weights that it starts from
        self.removed = False  # while it runs: nothing of it stays
        self.id = training.id
        self.created = training.created
        self.videos = training.video_ids

    @property
    def grace(self) -> float:
        return GRACE if self.removed else STOPPING

    def start(self) -> Message:
        training = self._training
        folder = self._store.trainings.folder(training.id)
        self._store.trainings.start(training.id)
        return {
            "do": "teach",
            "key": training.id,
            "name": training.name,
            "model": training.model,
            "init": self._init,
            "steps": training.steps,
            "threshold": training.threshold,
            "folder": str(folder),
        }

    def hear(self, message: Message) -> None:
        pass

    def finish(self, message: Message) -> None:
        trainings = self._store.trainings
        path = trainings.folder(self.id) / FILE
        if message["summary"]["gain"]:
            model = OwnModel(
                id=new_id(),
                name=self._training.name,
                bytes=path.stat().st_size,
                created=time.time(),
                owner=self._training.owner,
            )
            self._store.models.add(model, path)
        trainings.finish(self.id, message["summary"])

    def fail(self, line: str) -> None:
        self._store.trainings.set_state(self.id, "failed", line)

    def cancel(self) -> None:
        if self.removed:
            self._store.trainings.remove(self.id)
        else:
            self._store.trainings.set_state(self.id, "stopped")

    def put_back(self) -> None:
        self._store.trainings.put_back(self.id)

    def clean(self) -> None:
        """Nothing: what is there is where it goes on."""
