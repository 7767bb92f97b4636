"""Follow an object from the mask of one frame by the model: masks are told as they are found, and become one edit.

The answer is a line of JSON a frame, {"frame", "counts", "done", "total"}, then {"state"} or {"error"}.
Where it is stopped, or the browser is closed, what was found so far is the edit.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from tubelet.apps.web import documents
from tubelet.apps.web.edits import STALE, described
from tubelet.apps.web.exports import ERRAND_SECONDS
from tubelet.apps.web.faults import Refusal, finished
from tubelet.apps.web.jobs.edited import Edited, EditedResults
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.refusals import Busy, known
from tubelet.apps.web.jobs.store import Job
from tubelet.apps.web.shares import address
from tubelet.core.errors import ConfigError, TubeletError
from tubelet.core.masks import RLE
from tubelet.editing.draft import reach
from tubelet.editing.edits import Fill

Line = dict[str, Any]


class FollowRequest(BaseModel):
    """The body of a request to follow a track from a frame, to the ends of the shot or the next frame drawn by hand."""

    model_config = ConfigDict(extra="forbid")
    revision: int
    track: int
    frame: int = Field(ge=0)
    ways: Literal["both", "on", "back"] = "both"


def add(app: FastAPI, jobs: Jobs, results: EditedResults) -> None:
    """Add the routes that follow an object and stop that."""
    stops: dict[str, threading.Event] = {}  # by job

    @app.post("/api/jobs/{id}/follow")
    def follow(request: Request, id: str, wish: FollowRequest) -> Response:
        job = finished(jobs.store, id)
        model = next((model for model in jobs.models.described if model["name"] == job.model), None)
        if model is None or not model["follows"]:
            raise Refusal(422, "this model cannot follow an object that is given")
        with results.opened(job) as edited:
            ends = _ends(edited, wish)
        stop = threading.Event()
        if stops.setdefault(id, stop) is not stop:
            raise Refusal(409, "an object of this result is being followed already")

        def work(tell: Callable[[Line], None]) -> Line:
            return {"state": _followed(jobs, results, job, wish, ends, address(request), tell, stop)}

        unbuffered = {"X-Accel-Buffering": "no"}  # by a proxy
        return StreamingResponse(_lines(work, stops, id), media_type="application/x-ndjson", headers=unbuffered)

    @app.delete("/api/jobs/{id}/follow", status_code=204)
    def stop(id: str) -> None:
        known(stops.get(id)).set()


def _ends(edited: Edited, wish: FollowRequest) -> list[int]:
    """To which frames the object is followed. Raises Refusal or ConfigError if it cannot be."""
    if wish.revision != edited.revision:
        raise Refusal(409, STALE)
    editing = edited.editing
    if editing.draft.frame(wish.frame) not in editing.draft.row(wish.track).entries:
        raise ConfigError(f"track {wish.track} has no mask in frame {wish.frame} to start from")

    first, last = reach(editing.draft, editing.original.shots, wish.track, wish.frame)
    ends = {"both": [last, first], "on": [last], "back": [first]}[wish.ways]
    if all(end == wish.frame for end in ends):
        raise ConfigError(f"there is no frame to follow to: {wish.frame} ends the shot, or a drawn frame is next to it")
    return [end for end in ends if end != wish.frame]


def _followed(
    jobs: Jobs,
    results: EditedResults,
    job: Job,
    wish: FollowRequest,
    ends: list[int],
    client: str,
    tell: Callable[[Line], None],
    stop: threading.Event,
) -> Line:
    """Have the worker follow the object, then do the edit; the result's edits as JSON."""
    film = known(jobs.store.video(job.video))
    found: dict[int, str] = {}

    def hear(progress: Line) -> None:
        if progress["counts"] is not None:
            found[progress["frame"]] = progress["counts"]
        tell({name: progress[name] for name in ("frame", "counts", "done", "total")})

    with jobs.store.scratch() as scratch:
        with results.opened(job) as edited:
            edited.write(scratch / documents.RESULT)
        order = {
            "do": "follow",
            "model": job.model,
            "track": wish.track,
            "start": wish.frame,
            "ends": ends,
            "source": str(jobs.store.source(film)),
            "name": film.name,
            "result": str(scratch / documents.RESULT),
        }
        span = jobs.ask(order, ERRAND_SECONDS, client, hear, stop)

    with results.opened(finished(jobs.store, job.id)) as edited:
        if wish.revision != edited.revision:
            raise Refusal(409, STALE)
        before = edited.editing.draft
        masks = {t: RLE(before.size, counts.encode("ascii")) for t, counts in found.items()}
        masks[wish.frame] = before.row(wish.track).entries[wish.frame].mask
        edited.do(Fill(track=wish.track, first=span["first"], last=span["last"], found=masks))
        return described(edited, since=before)


def _lines(work: Callable[[Callable[[Line], None]], Line], stops: dict[str, threading.Event], id: str) -> Iterator[str]:
    """Start the work in a thread; the lines are what it tells, then its result or its error."""
    told: queue.Queue[Line] = queue.Queue()

    def run() -> None:
        try:
            last = work(told.put)
        except (TubeletError, Refusal, Busy) as error:
            last = {"error": str(error)}
        except KeyError:
            last = {"error": "the video was removed meanwhile"}
        except Exception:
            last = {"error": "something went wrong in the server"}
            raise
        finally:
            stops.pop(id, None)
            told.put(last)

    def lines() -> Iterator[str]:
        try:
            while True:
                line = told.get()
                yield json.dumps(line) + "\n"
                if "done" not in line:
                    return
        finally:
            stop.set()  # the browser has left, if it is not the end

    stop = stops[id]
    threading.Thread(target=run, name="follow", daemon=True).start()
    return lines()
