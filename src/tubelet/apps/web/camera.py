"""The camera of a browser: it sends a picture, gets what was found in it, and only then sends the next one.

So a slow model slows the camera down, and nothing is queued. Pictures are not stored. A session's identities are in the
worker; a worker that was started anew begins with new ones.
"""

from __future__ import annotations

import base64
import time
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from tubelet.apps.web.faults import Refusal
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.refusals import Busy
from tubelet.apps.web.shares import address
from tubelet.apps.web.visitors import Visitor
from tubelet.core.arguments import class_labels

PATH = "/api/camera"
LARGEST = 1_000_000  # bytes of a picture
MOST = 2  # cameras at the same time
SILENCE = 10.0  # seconds without a picture after which a camera makes room for another one
LOOK_SECONDS = 60.0  # longest wait for the worker


class CameraRequest(BaseModel):
    """Whose picture it is, and how it is looked at. `session` is a random number that the browser has chosen."""

    model_config = ConfigDict(extra="forbid")
    session: str = Field(pattern="^[0-9a-f]{32}$")
    model: str = Field(max_length=1000)
    classes: list[Annotated[str, Field(max_length=200)]] = Field(default=[], max_length=1000)


def add(app: FastAPI, jobs: Jobs) -> None:
    """Add the routes that look at a picture and forget a camera."""
    heard: dict[str, float] = {}  # when each session sent its last picture

    @app.post(PATH)
    async def look(request: Request, wish: Annotated[CameraRequest, Query()], user: Visitor) -> dict[str, Any]:
        model = jobs.models.find(user, wish.model)
        if model is None:
            raise Refusal(422, "this server does not serve such a model")
        if model["window"] != {"length": 1, "stride": 1}:
            raise Refusal(422, "this model reads several frames at a time; a camera needs one that reads one by one")
        if wish.classes:
            class_labels(wish.classes, model["classes"])
        _take_place(heard, wish.session)

        order = {
            "do": "camera",
            "session": wish.session,
            "model": wish.model,
            "classes": wish.classes or None,
            "image": base64.b64encode(await _picture(request)).decode("ascii"),
        }
        answer = await anyio.to_thread.run_sync(jobs.ask, order, LOOK_SECONDS, address(request))
        return answer["result"]

    @app.delete(PATH, status_code=204)
    def end(session: Annotated[str, Query(pattern="^[0-9a-f]{32}$")]) -> None:
        if heard.pop(session, None) is not None:
            jobs.tell({"do": "leave", "key": session})


def _take_place(heard: dict[str, float], session: str) -> None:
    """Note a picture of a session. Raises Busy if it is a new one and all places are taken."""
    now = time.monotonic()
    for other in [other for other, last in heard.items() if now - last > SILENCE]:
        del heard[other]
    if session not in heard and len(heard) >= MOST:
        raise Busy(f"busy: {len(heard)} cameras are looked at already; try again in a while")
    heard[session] = now


async def _picture(request: Request) -> bytes:
    picture = bytearray()
    async for chunk in request.stream():
        picture += chunk
        if len(picture) > LARGEST:
            raise Refusal(413, f"this picture is too large: at most {LARGEST:,} bytes are taken")
    return bytes(picture)
