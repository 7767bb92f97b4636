"""The web application: the page, uploads, jobs, progress, results. Knows no torch; what does lives in the worker."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
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
ERRAND_SECONDS = 1800.0
EVENT_SECONDS = 0.2
HEARTBEAT_SECONDS = 15.0


class Ask(BaseModel):
    """A job that the page wants."""

    model_config = ConfigDict(extra="forbid")
    video: str = Field(max_length=64)
    model: str = Field(max_length=1000)
    length: int | None = Field(default=None, ge=1, le=MAX_WINDOW)
    stride: int | None = Field(default=None, ge=1, le=MAX_WINDOW)

    @model_validator(mode="after")
    def _no_gaps(self) -> Ask:
        if (self.length is None) != (self.stride is None):
            raise ValueError("length and stride go together")
        if self.length is not None and self.stride is not None and self.stride > self.length:
            raise ValueError("a stride over the length leaves out frames")
        return self


class PointRequest(BaseModel):
    """Where attention is asked for."""

    model_config = ConfigDict(extra="forbid")
    model: str = Field(max_length=1000)
    frame: int = Field(ge=0)
    x: float = Field(ge=0, allow_inf_nan=False)
    y: float = Field(ge=0, allow_inf_nan=False)


def build(jobs: Jobs, access: Access, patience: Patience = PATIENCE) -> ASGIApp:
    """The whole application with what stands before it."""
    app = FastAPI(title="tubelet", docs_url=None, redoc_url=None, openapi_url=None)
    faults.add(app)
    assets.add(app)
    _add_lists(app, jobs)
    uploads.add(app, jobs)
    _add_jobs(app, jobs)
    _add_results(app, jobs)
    return Bodies(Guard(Shares(app, jobs.limits.requests_each), access), patience, unbounded=uploads.PATH)


def _add_lists(app: FastAPI, jobs: Jobs) -> None:
    @app.get("/api/about")
    def about() -> dict[str, Any]:
        limits = {**jobs.limits.described(), "threshold": BASE_THRESHOLD}
        return {"version": __version__, "models": jobs.models, "limits": limits, "example": EXAMPLE.is_file()}

    @app.get("/api/videos")
    def videos() -> list[dict[str, Any]]:
        listed = [_job(job, jobs) for job in jobs.store.jobs()]
        return [
            {**described_film(film), "jobs": [job for job in listed if job["video"] == film.id]}
            for film in jobs.store.videos()
        ]

    @app.delete("/api/videos/{id}", status_code=204)
    def remove(id: str) -> None:
        jobs.remove(known(jobs.store.video(id)))


def _add_jobs(app: FastAPI, jobs: Jobs) -> None:
    @app.post("/api/jobs", status_code=201)
    def submit(ask: Ask) -> dict[str, Any]:
        film = known(jobs.store.video(ask.video))
        if ask.model not in {model["name"] for model in jobs.models}:
            raise Refusal(422, "this server does not serve such a model")
        return _job(jobs.submit(film, ask.model, ask.length, ask.stride), jobs)

    @app.get("/api/jobs/{id}")
    def job(id: str) -> dict[str, Any]:
        return _job(known(jobs.store.job(id)), jobs)

    @app.delete("/api/jobs/{id}", status_code=204)
    def cancel(id: str) -> None:
        jobs.cancel(known(jobs.store.job(id)))

    @app.get("/api/jobs/{id}/events")
    def events(id: str) -> Response:
        known(jobs.store.job(id))
        return StreamingResponse(_events(jobs, id), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _events(jobs: Jobs, id: str) -> AsyncIterator[str]:
    """Server-sent events: the job each time it has changed, until it is over or gone."""
    last, told = "", time.monotonic()
    while not jobs.ending:
        now = await anyio.to_thread.run_sync(_state, jobs, id)  # it may wait for a lock, and all others for it
        line = json.dumps(now)
        if line != last:
            last, told = line, time.monotonic()
            yield f"data: {line}\n\n"
        elif time.monotonic() - told > HEARTBEAT_SECONDS:
            told = time.monotonic()
            yield ": still here\n\n"
        if now["state"] not in ("queued", "running"):
            return
        await asyncio.sleep(EVENT_SECONDS)


def _state(jobs: Jobs, id: str) -> dict[str, Any]:
    job = jobs.store.job(id)
    return {"id": id, "state": "gone"} if job is None else _job(job, jobs)


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
        path = _made(jobs, _finished(jobs, id), name, threshold, address(request))
        film = known(store.video(known(store.job(id)).video))
        return FileResponse(path, media_type=DOWNLOADS[name], filename=f"{_stem(film.name)}-{name}")

    @app.post("/api/jobs/{id}/files/{name}")
    def prepare(request: Request, id: str, name: str, threshold: float = 0.5) -> dict[str, int]:
        return {"bytes": _made(jobs, _finished(jobs, id), name, threshold, address(request)).stat().st_size}

    @app.post("/api/videos/{id}/attention")
    def attention(request: Request, id: str, point: PointRequest) -> dict[str, Any]:
        film = known(store.video(id))
        model = next((model for model in jobs.models if model["name"] == point.model), None)
        if model is None or not model["attends"]:
            raise Refusal(422, "this model has no attention modules to show")
        order = {"do": "attend", "source": str(jobs.source(film)), "name": film.name, **point.model_dump()}
        return {"maps": jobs.ask(order, ERRAND_SECONDS, address(request))["maps"]}


def _finished(jobs: Jobs, id: str) -> Job:
    job = known(jobs.store.job(id))
    if job.state != "done":
        raise Refusal(409, "this video is not finished")
    return job


def _made(jobs: Jobs, job: Job, name: str, threshold: float, asker: str) -> Path:
    """A download, made when it is first asked for; of each kind the newest threshold is kept."""
    if name not in DOWNLOADS or not BASE_THRESHOLD <= threshold <= 1:
        raise KeyError(name)
    folder, percent = jobs.store.job_folder(job.id), round(threshold * 100)
    path = folder / f"{percent:03d}-{name}"
    if path.is_file():
        return path
    film = known(jobs.store.video(job.video))
    with jobs.store.scratch() as scratch:
        files = {"source": str(jobs.source(film)), "result": str(folder / "result.json.gz"), "out": str(scratch)}
        order = {"do": "download", "file": name, "name": film.name, "threshold": percent / 100, **files}
        jobs.ask(order, ERRAND_SECONDS, asker)
        known(jobs.store.job(job.id))  # removed meanwhile: its folder must not come back
        for older in folder.glob(f"[0-9][0-9][0-9]-{name}"):
            older.unlink(missing_ok=True)
        (scratch / name).replace(path)
    return path


def _job(job: Job, jobs: Jobs) -> dict[str, Any]:
    return described(job, *jobs.progress(job), full=jobs.waits_for_space)


def _stem(name: str) -> str:
    """The start of a download's name: plain letters, so that no header and no disk stumbles over it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.rsplit(".", 1)[0]).strip("-.")[:60] or "video"
