"""A job of the page, in one process: a video is uploaded, copied for browsers, segmented, and its result kept."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.scenarios import Scenario


@dataclass(frozen=True)
class PageJob(Scenario):
    """What the server and its worker do for a job. After a fault the server starts again, and repeats failed jobs."""

    def command(self, *, again: bool = False) -> Callable[[], int]:
        return lambda: told(do_job)


def told(work: Callable[[], None]) -> int:
    """Run it; errors that the server would answer with are one line and exit code 2."""
    from tubelet.core.errors import TubeletError

    try:
        work()
    except (TubeletError, OSError, sqlite3.Error) as error:
        print(f"tubelet: {error}", file=sys.stderr)
        return 2
    return 0


def do_job() -> None:
    from tubelet.apps.web.jobs import work
    from tubelet.apps.web.jobs.store import Store
    from tubelet.apps.web.jobs.tasks import Segmentation
    from tubelet.core.errors import InputError
    from tubelet.models import weights

    store = Store(Path("web"))
    try:
        for job in store.jobs("failed"):
            store.remove_job(job.id)
        video = upload(store)
        if not store.jobs():
            store.add_job(video, "default", None, None)
        for job in store.jobs("queued"):
            task = Segmentation(store, job)
            try:
                order = task.start()

                def send(message: dict[str, Any], task: Segmentation = task) -> None:
                    if message["say"] == "prepared":
                        task.hear(message)

                model = weights.load("default", device="cpu")
                task.finish(work.segment(model, order, lambda: None, send))
            except Exception as error:  # as the worker's answer to an order
                line = work.line_of(error, {})
                task.fail(line)
                raise InputError(line) from None
            finally:
                task.clean()
    finally:
        store.close()


def upload(store: Any) -> str:
    """The id of the video, which is added if it is not there."""
    from tubelet.apps.web.jobs.store import Film, new_id

    for film in store.videos():
        return str(film.id)
    film = Film(
        id=new_id(), name="clip.mp4", example=False, bytes=1, width=64, height=48, frames=4, seconds=0.4,
        playable=False, webm=False, created=0.0,
    )  # fmt: skip
    with store.scratch() as folder:
        shutil.copyfile("clip.mp4", folder / "source")
        store.add_video(film, folder)
    return film.id
