"""The page's own models: those that it has taught, and those that were uploaded."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request
from starlette.responses import Response

from tubelet.apps.web.exports import stem
from tubelet.apps.web.files import File
from tubelet.apps.web.jobs import quotas
from tubelet.apps.web.jobs.own_models import FILE, OwnModel
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.refusals import known
from tubelet.apps.web.jobs.store import new_id
from tubelet.apps.web.shares import address
from tubelet.apps.web.uploads import Slots, check_before, declared_size, receive, shown_name
from tubelet.apps.web.users import User
from tubelet.apps.web.visitors import Visitor

PATH = "/api/models"
LOADING_SECONDS = 300.0
LOADING = threading.Lock()  # one upload at a time is loaded, so that two of one name do not meet


def add(app: FastAPI, jobs: Jobs, slots: Slots) -> None:
    """Add the routes that list, upload, send and remove models."""
    models = jobs.store.models

    @app.get(PATH)
    def listed(user: Visitor) -> list[dict[str, Any]]:
        return [_described(model, jobs) for model in models.all() if user.sees(model.owner)]

    @app.post(PATH, status_code=201)
    async def upload(request: Request, user: Visitor) -> dict[str, Any]:
        name = user.qualified(shown_name(request.headers.get("x-name", "")).removesuffix(".safetensors"))
        declared = declared_size(request)
        await anyio.to_thread.run_sync(jobs.models.check_new, name, user)
        await anyio.to_thread.run_sync(check_before, jobs, declared, slots.expected, user)

        with slots.taken(address(request), declared), jobs.store.scratch() as scratch:
            await receive(request, scratch / FILE, jobs.limits.bytes)
            return await anyio.to_thread.run_sync(_add, jobs, scratch / FILE, name, address(request), user)

    @app.get("/api/models/{id}/file")
    def download(id: str) -> Response:
        model = known(models.get(id))
        media = "application/octet-stream"
        return File(models.path(model.id), media_type=media, filename=f"{stem(model.name)}.safetensors")

    @app.delete("/api/models/{id}", status_code=204)
    def remove(id: str) -> None:
        jobs.remove_model(known(models.get(id)))


def _add(jobs: Jobs, path: Path, name: str, client: str, user: User) -> dict[str, Any]:
    """Have the worker load a file as `tubelet.load` does, which unpickles nothing, and list it."""
    with LOADING:
        jobs.models.check_new(name, user)
        quotas.check_bytes(user, jobs.store, path.stat().st_size)
        answer = jobs.ask({"do": "load", "name": name, "source": str(path)}, LOADING_SECONDS, client)
        model = OwnModel(id=new_id(), name=name, bytes=path.stat().st_size, created=time.time(), owner=user.name)
        jobs.add_model(model, path, answer["model"], user)
    return _described(model, jobs)


def _described(model: OwnModel, jobs: Jobs) -> dict[str, Any]:
    loaded = any(other["name"] == model.name for other in jobs.models.described)
    return {"id": model.id, "name": model.name, "bytes": model.bytes, "loaded": loaded}
