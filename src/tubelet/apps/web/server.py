"""The web application: the page, uploads, jobs, progress, results. It does not import torch; only the worker does."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.types import ASGIApp

from tubelet import __version__
from tubelet.apps.demo import VIDEO as EXAMPLE
from tubelet.apps.web import assets, faults, uploads
from tubelet.apps.web.bodies import Bodies
from tubelet.apps.web.faults import Refusal
from tubelet.apps.web.guard import Access, Guard
from tubelet.apps.web.jobs.queue import Jobs, described, known
from tubelet.apps.web.jobs.store import Job
from tubelet.apps.web.limits import BASE_THRESHOLD, MAX_WINDOW, PATIENCE, Patience
from tubelet.apps.web.shares import Shares, address
from tubelet.apps.web.uploads import described_film

DOWNLOADS = {
    "overlay.mp4": "video/mp4",
    "predictions.json": "application/json",
    "davis.zip": "application/zip",
    "tracks.csv": "text/csv; charset=utf-8",
}
ERRAND_SECONDS = 1800.0  # longest wait for a download or attention maps
EVENT_SECONDS = 0.2  # between two looks at a job's state
HEARTBEAT_SECONDS = 15.0  # without an event, before a comment is sent


class JobRequest(BaseModel):
    """The body of a request for a job; length and stride replace the model's own window."""

    model_config = ConfigDict(extra="forbid")
    video: str = Field(max_length=64)
    model: str = Field(max_length=1000)
    length: int | None = Field(default=None, ge=1, le=MAX_WINDOW)
    stride: int | None = Field(default=None, ge=1, le=MAX_WINDOW)

    @model_validator(mode="after")
    def _no_gaps(self) -> JobRequest:
        if (self.length is None) != (self.stride is None):
            raise ValueError("length and stride go together")
        if self.length is not None and self.stride is not None and self.stride > self.length:
            raise ValueError("a stride over the length leaves out frames")
        return self


class PointRequest(BaseModel):
    """The body of a request for attention maps: a point in pixels of a frame."""

    model_config = ConfigDict(extra="forbid")
    model: str = Field(max_length=1000)
    frame: int = Field(ge=0)
    x: float = Field(ge=0, allow_inf_nan=False)
    y: float = Field(ge=0, allow_inf_nan=False)


def build(jobs: Jobs, access: Access, patience: Patience = PATIENCE) -> ASGIApp:
    """Build the application with all its routes, behind the middleware that limits and checks requests."""
    app = FastAPI(title="tubelet", docs_url=None, redoc_url=None, openapi_url=None)
    faults.add(app)
    assets.add(app)
    _add_lists(app, jobs)
    uploads.add(app, jobs)
    _add_jobs(app, jobs)
    _add_results(app, jobs)

    guarded = Guard(Shares(app, jobs.limits.requests_each), access)
    return Bodies(guarded, patience, unbounded=uploads.PATH)


def _add_lists(app: FastAPI, jobs: Jobs) -> None:
    @app.get("/api/about")
    def about() -> dict[str, Any]:
        limits = {**jobs.limits.described(), "threshold": BASE_THRESHOLD}
        return {"version": __version__, "models": jobs.models, "limits": limits, "example": EXAMPLE.is_file()}

    @app.get("/api/videos")
    def videos() -> list[dict[str, Any]]:
        jobs_of_video = defaultdict(list)
        for job in jobs.store.jobs():
            jobs_of_video[job.video].append(_job_json(job, jobs))
        return [{**described_film(film), "jobs": jobs_of_video[film.id]} for film in jobs.store.videos()]

    @app.delete("/api/videos/{id}", status_code=204)
    def remove(id: str) -> None:
        jobs.remove(known(jobs.store.video(id)))


def _add_jobs(app: FastAPI, jobs: Jobs) -> None:
    @app.post("/api/jobs", status_code=201)
    def submit(body: JobRequest) -> dict[str, Any]:
        film = known(jobs.store.video(body.video))
        if body.model not in {model["name"] for model in jobs.models}:
            raise Refusal(422, "this server does not serve such a model")
        job = jobs.submit(film, body.model, body.length, body.stride)
        return _job_json(job, jobs)

    @app.get("/api/jobs/{id}")
    def job(id: str) -> dict[str, Any]:
        return _job_json(known(jobs.store.job(id)), jobs)

    @app.delete("/api/jobs/{id}", status_code=204)
    def cancel(id: str) -> None:
        jobs.cancel(known(jobs.store.job(id)))

    @app.get("/api/jobs/{id}/events")
    def events(id: str) -> Response:
        known(jobs.store.job(id))
        return StreamingResponse(_events(jobs, id), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _events(jobs: Jobs, id: str) -> AsyncIterator[str]:
    """Yield server-sent events: the job each time it has changed, until it has ended or was removed."""
    last_line = ""
    last_sent = time.monotonic()
    while not jobs.ending:
        state = await anyio.to_thread.run_sync(_state, jobs, id)  # in a thread, because it may wait for a lock
        line = json.dumps(state)
        if line != last_line:
            last_line = line
            last_sent = time.monotonic()
            yield f"data: {line}\n\n"
        elif time.monotonic() - last_sent > HEARTBEAT_SECONDS:
            last_sent = time.monotonic()
            yield ": still here\n\n"

        if state["state"] not in ("queued", "running"):
            return
        await asyncio.sleep(EVENT_SECONDS)


def _state(jobs: Jobs, id: str) -> dict[str, Any]:
    job = jobs.store.job(id)
    if job is None:
        return {"id": id, "state": "gone"}
    return _job_json(job, jobs)


def _add_results(app: FastAPI, jobs: Jobs) -> None:
    store = jobs.store

    @app.get("/api/jobs/{id}/result")
    def result(id: str, request: Request) -> Response:
        path = store.job_folder(_finished(jobs, id).id) / "result.json.gz"
        if "gzip" in request.headers.get("accept-encoding", ""):
            return FileResponse(path, media_type="application/json", headers={"Content-Encoding": "gzip"})
        return Response(gzip.decompress(path.read_bytes()), media_type="application/json")

    @app.get("/api/jobs/{id}/files/{name}")
    def download(request: Request, id: str, name: str, threshold: float = 0.5) -> Response:
        path = _download_file(jobs, _finished(jobs, id), name, threshold, address(request))
        film = known(store.video(known(store.job(id)).video))
        return FileResponse(path, media_type=DOWNLOADS[name], filename=f"{_stem(film.name)}-{name}")

    @app.post("/api/jobs/{id}/files/{name}")
    def prepare(request: Request, id: str, name: str, threshold: float = 0.5) -> dict[str, int]:
        path = _download_file(jobs, _finished(jobs, id), name, threshold, address(request))
        return {"bytes": path.stat().st_size}

    @app.post("/api/videos/{id}/attention")
    def attention(request: Request, id: str, point: PointRequest) -> dict[str, Any]:
        film = known(store.video(id))
        model = next((model for model in jobs.models if model["name"] == point.model), None)
        if model is None or not model["attends"]:
            raise Refusal(422, "this model has no attention modules to show")

        order = {"do": "attend", "source": str(jobs.source(film)), "name": film.name, **point.model_dump()}
        answer = jobs.ask(order, ERRAND_SECONDS, address(request))
        return {"maps": answer["maps"]}


def _finished(jobs: Jobs, id: str) -> Job:
    """The job of this id; refuses the request if it has not finished."""
    job = known(jobs.store.job(id))
    if job.state != "done":
        raise Refusal(409, "this video is not finished")
    return job


def _download_file(jobs: Jobs, job: Job, name: str, threshold: float, client: str) -> Path:
    """The path of a download, which the worker makes at the first request.

    Only the file of the last threshold is stored. Raises KeyError for an unknown name or a threshold out of range.
    """
    if name not in DOWNLOADS or not BASE_THRESHOLD <= threshold <= 1:
        raise KeyError(name)

    folder = jobs.store.job_folder(job.id)
    percent = round(threshold * 100)
    path = folder / f"{percent:03d}-{name}"
    if path.is_file():
        return path

    film = known(jobs.store.video(job.video))
    with jobs.store.scratch() as scratch:
        order = {
            "do": "download",
            "file": name,
            "name": film.name,
            "threshold": percent / 100,
            "source": str(jobs.source(film)),
            "result": str(folder / "result.json.gz"),
            "out": str(scratch),
        }
        jobs.ask(order, ERRAND_SECONDS, client)
        known(jobs.store.job(job.id))  # if it was removed meanwhile, its folder must not come back

        for older in folder.glob(f"[0-9][0-9][0-9]-{name}"):
            older.unlink(missing_ok=True)
        (scratch / name).replace(path)
    return path


def _job_json(job: Job, jobs: Jobs) -> dict[str, Any]:
    progress, ahead = jobs.progress(job)
    return described(job, progress, ahead, full=jobs.waits_for_space)


def _stem(name: str) -> str:
    """A video's name without suffix, for the name of a download; at most 60 ASCII letters, digits and ._-"""
    stem = name.rsplit(".", 1)[0]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem)
    return plain.strip("-.")[:60] or "video"
