"""Downloads: files of a result as it was edited, which the worker makes at the first request.

Only the file of the last wish is stored: of the last threshold, and the last edit.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, Field, field_validator
from starlette.responses import Response

from tubelet.apps.web import documents
from tubelet.apps.web.faults import finished
from tubelet.apps.web.files import File
from tubelet.apps.web.jobs.edited import EditedResults
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.refusals import known
from tubelet.apps.web.jobs.store import Job
from tubelet.apps.web.limits import BASE_THRESHOLD
from tubelet.apps.web.shares import address

LABELS = "labels.zip"
DOWNLOADS = {
    "overlay.mp4": "video/mp4",
    "predictions.json": "application/json",
    "davis.zip": "application/zip",
    "tracks.csv": "text/csv; charset=utf-8",
    LABELS: "application/zip",
}
LABEL_FORMS = {  # as `tubelet data convert` names them
    "ytvis": "YouTube-VIS",
    "coco-video": "COCO with track ids",
    "davis": "DAVIS",
    "mots-png": "MOTS",
    "cvat": "CVAT",
    "yolo-seg": "YOLO polygons",
    "labelme": "labelme",
    "png": "PNG folders",
}
ERRAND_SECONDS = 1800.0  # longest wait for the worker


class Wish(BaseModel):
    """What a download holds: tracks that reach the threshold; labels in a form, of the frames that were seen or all."""

    threshold: float = Field(default=0.5, ge=BASE_THRESHOLD, le=1)
    form: str = "ytvis"
    frames: Literal["seen", "all"] = "seen"

    @field_validator("form")
    @classmethod
    def _known(cls, form: str) -> str:
        if form not in LABEL_FORMS:
            raise ValueError("no such form")
        return form

    @property
    def percent(self) -> int:
        """The threshold in whole percent."""
        return round(self.threshold * 100)

    def stored_as(self, name: str, revision: int, num_seen: int) -> str:
        """The name of the file beside the result, with all that its content depends on."""
        labels = f"-{self.form}-{num_seen if self.frames == 'seen' else 'all'}" if name == LABELS else ""
        return f"{self.percent:03d}-{revision}{labels}-{name}"


def add(app: FastAPI, jobs: Jobs, results: EditedResults) -> None:
    """Add the routes that prepare a file and send it."""

    @app.get("/api/jobs/{id}/files/{name}")
    def download(request: Request, id: str, name: str, wish: Annotated[Wish, Query()]) -> Response:
        path = _file(jobs, results, finished(jobs.store, id), name, wish, address(request))
        film = known(jobs.store.video(known(jobs.store.job(id)).video))
        return File(path, media_type=DOWNLOADS[name], filename=f"{stem(film.name)}-{name}")

    @app.post("/api/jobs/{id}/files/{name}")
    def prepare(request: Request, id: str, name: str, wish: Annotated[Wish, Query()]) -> dict[str, int]:
        path = _file(jobs, results, finished(jobs.store, id), name, wish, address(request))
        return {"bytes": path.stat().st_size}


def _file(jobs: Jobs, results: EditedResults, job: Job, name: str, wish: Wish, client: str) -> Path:
    """The path of a file, which the worker makes at the first request. Raises KeyError for an unknown name."""
    if name not in DOWNLOADS:
        raise KeyError(name)

    folder = jobs.store.job_folder(job.id)
    film = known(jobs.store.video(job.video))

    with jobs.store.scratch() as scratch:
        with results.opened(job) as edited:
            path = folder / wish.stored_as(name, edited.revision, len(edited.editing.seen))
            if path.is_file():
                return path
            edited.write(scratch / documents.RESULT)
            seen = sorted(edited.editing.seen)

        order: dict[str, Any] = {
            "do": "download",
            "file": name,
            "name": film.name,
            "threshold": wish.percent / 100,
            "form": wish.form if name == LABELS else None,
            "frames": seen if wish.frames == "seen" else None,
            "source": str(jobs.store.source(film)),
            "result": str(scratch / documents.RESULT),
            "out": str(scratch),
        }
        jobs.ask(order, ERRAND_SECONDS, client)
        known(jobs.store.job(job.id))  # if it was removed meanwhile, its folder must not come back

        for older in folder.glob(f"[0-9][0-9][0-9]-*{name}"):
            older.unlink(missing_ok=True)
        (scratch / name).replace(path)
    return path


def stem(name: str) -> str:
    """A video's name without suffix, for the name of a download; at most 60 ASCII letters, digits and ._-"""
    stem = name.rsplit(".", 1)[0]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem)
    return plain.strip("-.")[:60] or "video"
