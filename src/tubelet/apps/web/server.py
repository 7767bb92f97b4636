"""The web application: the page, uploads, jobs, progress, results. It does not import torch; only the worker does."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp

from tubelet import __version__
from tubelet.apps.demo import VIDEO as EXAMPLE
from tubelet.apps.web import (
    assets,
    audit,
    camera,
    documents,
    edits,
    exports,
    faults,
    fetching,
    following,
    links,
    own_models,
    trainings,
    uploads,
)
from tubelet.apps.web.audit import Audit, AuditLog
from tubelet.apps.web.bodies import Bodies
from tubelet.apps.web.exports import ERRAND_SECONDS, LABEL_FORMS
from tubelet.apps.web.faults import Refusal, finished
from tubelet.apps.web.fetching import Fetched
from tubelet.apps.web.files import File
from tubelet.apps.web.guard import Access, Guard
from tubelet.apps.web.jobs.edited import EditedResults
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.refusals import known
from tubelet.apps.web.jobs.store import Job
from tubelet.apps.web.limits import BASE_THRESHOLD, MAX_WINDOW, PATIENCE, Patience
from tubelet.apps.web.rates import Rates
from tubelet.apps.web.shares import Shares, address
from tubelet.apps.web.uploads import Slots, described_film
from tubelet.apps.web.visitors import Ownership, Visitor
from tubelet.core.arguments import class_labels

EVENT_SECONDS = 0.2  # between two looks at a job's state
HEARTBEAT_SECONDS = 15.0  # without an event, before a comment is sent


class JobRequest(BaseModel):
    """The body of a request for a job; length and stride replace the model's own window, classes are those to keep."""

    model_config = ConfigDict(extra="forbid")
    video: str = Field(max_length=64)
    model: str = Field(max_length=1000)
    length: int | None = Field(default=None, ge=1, le=MAX_WINDOW)
    stride: int | None = Field(default=None, ge=1, le=MAX_WINDOW)
    classes: list[Annotated[str, Field(max_length=200)]] | None = Field(default=None, min_length=1, max_length=1000)

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


def build(jobs: Jobs, access: Access, patience: Patience = PATIENCE, addresses: Fetched = "public") -> ASGIApp:
    """Build the application with all its routes, behind the middleware that limits and checks requests.

    `addresses` says of which the server fetches videos.
    """
    app = FastAPI(title="tubelet", docs_url=None, redoc_url=None, openapi_url=None)
    faults.add(app)
    assets.add(app)
    _add_lists(app, jobs, addresses)
    slots = Slots(jobs.limits)
    uploads.add(app, jobs, slots)
    fetching.add(app, jobs, slots, addresses)
    _add_jobs(app, jobs)
    _add_results(app, jobs)
    edited = EditedResults(jobs.store)
    edits.add(app, jobs, edited)
    exports.add(app, jobs, edited)
    links.add(app, jobs, edited)
    following.add(app, jobs, edited)
    trainings.add(app, jobs, edited, partial(_stream, jobs))
    own_models.add(app, jobs, slots)
    camera.add(app, jobs)

    owned = Ownership(app, jobs.store)
    rates = Rates(jobs.limits.rate, jobs.limits.guesses)
    guarded = Guard(Shares(owned, jobs.limits.requests_each), access, rates, public=links.PUBLIC, secret=links.SECRET)
    audited = Audit(guarded, AuditLog(jobs.store.root / audit.FILE), app.routes)
    return Bodies(audited, patience, unbounded=(uploads.PATH, own_models.PATH, camera.PATH))


def _add_lists(app: FastAPI, jobs: Jobs, addresses: Fetched) -> None:
    @app.get("/api/about")
    def about(user: Visitor) -> dict[str, Any]:
        limits = {**jobs.limits.described(), "threshold": BASE_THRESHOLD}
        return {
            "version": __version__,
            "user": user.name,
            "models": jobs.models.of(user),
            "limits": limits,
            "example": EXAMPLE.is_file(),
            "forms": LABEL_FORMS,
            "addresses": addresses != "none",
        }

    @app.get("/api/videos")
    def videos(user: Visitor) -> list[dict[str, Any]]:
        jobs_of_video = defaultdict(list)
        for job in jobs.store.jobs():
            jobs_of_video[job.video].append(_job_json(job, jobs))
        films = [film for film in jobs.store.videos() if user.sees(film.owner)]
        return [{**described_film(film), "jobs": jobs_of_video[film.id]} for film in films]

    @app.delete("/api/videos/{id}", status_code=204)
    def remove(id: str) -> None:
        jobs.remove(known(jobs.store.video(id)))


def _add_jobs(app: FastAPI, jobs: Jobs) -> None:
    @app.post("/api/jobs", status_code=201)
    def submit(body: JobRequest, user: Visitor) -> dict[str, Any]:
        film = known(jobs.store.video(body.video))
        if not user.sees(film.owner):
            raise KeyError(body.video)
        model = jobs.models.find(user, body.model)
        if model is None:
            raise Refusal(422, "this server does not serve such a model")
        if body.classes is not None:
            class_labels(body.classes, model["classes"])  # names the nearest class
        job = jobs.submit(film, body.model, body.length, body.stride, body.classes, user)
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
        return _stream(jobs, partial(_state, jobs, id))


def _stream(jobs: Jobs, look: Callable[[], dict[str, Any]]) -> Response:
    """Server-sent events of a job or training, of which `look` gives the state."""
    events = _events(jobs, look)
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _events(jobs: Jobs, look: Callable[[], dict[str, Any]]) -> AsyncIterator[str]:
    """Yield the state each time it has changed, until the job has ended or was removed."""
    last_line = ""
    last_sent = time.monotonic()
    while not jobs.ending:
        state = await anyio.to_thread.run_sync(look)  # in a thread, because it may wait for a lock
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
        path = store.job_folder(finished(store, id).id) / documents.RESULT
        if "gzip" in request.headers.get("accept-encoding", ""):
            return File(path, media_type="application/json", headers={"Content-Encoding": "gzip"})
        return Response(gzip.decompress(path.read_bytes()), media_type="application/json")

    @app.post("/api/videos/{id}/attention")
    def attention(request: Request, id: str, point: PointRequest, user: Visitor) -> dict[str, Any]:
        film = known(store.video(id))
        model = jobs.models.find(user, point.model)
        if model is None or not model["attends"]:
            raise Refusal(422, "this model has no attention modules to show")

        order = {"do": "attend", "source": str(jobs.store.source(film)), "name": film.name, **point.model_dump()}
        answer = jobs.ask(order, ERRAND_SECONDS, address(request))
        return {"maps": answer["maps"]}


def _job_json(job: Job, jobs: Jobs) -> dict[str, Any]:
    """A job as JSON for the page."""
    progress, ahead = jobs.progress(job)
    description: dict[str, Any] = {
        "id": job.id,
        "video": job.video,
        "model": job.model,
        "length": job.length,
        "stride": job.stride,
        "classes": job.class_names,
        "state": job.state,
        "error": job.error,
        "objects": job.objects,
        "seconds": job.seconds,
    }
    if job.state == "queued":
        description |= {"ahead": ahead, "full": jobs.waits_for_space}
    if progress is not None:
        description |= asdict(progress)
    if job.state == "done":
        description["edits"] = jobs.store.num_edits(job.id)
        description["seen"] = sum(last - first + 1 for first, last in jobs.store.seen(job.id))
    return description
