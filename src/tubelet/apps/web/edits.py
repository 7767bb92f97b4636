"""Editing on the page: it sends an edit, the server does it and answers with what has changed.

Every request names the revision on the screen. If the result has another one by now, because of a second tab, nothing
is done: the answer is 409, and the page shows the result as it is.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from tubelet.apps.web import documents
from tubelet.apps.web.faults import Refusal, finished
from tubelet.apps.web.jobs.edited import Edited, EditedResults, Step
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.limits import BASE_THRESHOLD
from tubelet.editing.doubts import doubts
from tubelet.editing.draft import Draft
from tubelet.editing.edits import Edit

STALE = "this result was changed in another tab or window meanwhile; here it is as it is now"
MOST_DOUBTS = 1000


class SeenRequest(BaseModel):
    """The body of a request that notes frames as looked at: first and last frame of each run."""

    model_config = ConfigDict(extra="forbid")
    frames: list[tuple[int, int]] = Field(max_length=1000)


def add(app: FastAPI, jobs: Jobs, results: EditedResults) -> None:
    """Add the routes that edit a result, undo and redo, note what was seen, and say where to look."""
    store = jobs.store

    @app.get("/api/jobs/{id}/edits")
    def state(id: str) -> Response:
        with results.opened(finished(store, id)) as edited:
            return JSONResponse(described(edited, since=edited.editing.unedited))

    @app.post("/api/jobs/{id}/edits")
    def edit(id: str, revision: int, edit: dict[str, Any]) -> Response:
        return _do(results, jobs, id, revision, Edit.read(edit))

    @app.post("/api/jobs/{id}/undo")
    def undo(id: str, revision: int) -> Response:
        return _do(results, jobs, id, revision, "undo")

    @app.post("/api/jobs/{id}/redo")
    def redo(id: str, revision: int) -> Response:
        return _do(results, jobs, id, revision, "redo")

    @app.put("/api/jobs/{id}/seen")
    def see(id: str, body: SeenRequest) -> dict[str, Any]:
        with results.opened(finished(store, id)) as edited:
            edited.see(body.frames)
            return {"seen": edited.seen}

    @app.get("/api/jobs/{id}/doubts")
    def look(id: str, threshold: float = BASE_THRESHOLD) -> list[dict[str, Any]]:
        with results.opened(finished(store, id)) as edited:
            result = edited.editing.result
        places = doubts(result.above(threshold))  # outside of the block: it may take a while
        return [place._asdict() for place in places[:MOST_DOUBTS]]


def described(edited: Edited, since: Draft) -> dict[str, Any]:
    """A result's edits as JSON for the page, with the tracks that have changed since an earlier draft."""
    editing = edited.editing
    draft = editing.draft
    return {
        "revision": edited.revision,
        "next": editing.next_id,
        "edits": [str(edit) for edit in editing.edits],
        "redo": str(editing.undone[-1]) if editing.undone else None,
        "seen": edited.seen,
        "classes": draft.classes,
        "ids": list(draft.rows),
        "tracks": [_track_json(draft, id) for id in draft.changed(since)],
    }


def _do(results: EditedResults, jobs: Jobs, id: str, revision: int, step: Step) -> Response:
    with results.opened(finished(jobs.store, id)) as edited:
        if revision != edited.revision:
            raise Refusal(409, STALE)
        before = edited.editing.draft
        try:
            edited.do(step)
        except sqlite3.IntegrityError:
            raise Refusal(409, STALE) from None
        return JSONResponse(described(edited, since=before))


def _track_json(draft: Draft, id: int) -> dict[str, Any]:
    """A track as the document has it, with the frames in which a person drew it."""
    drawn = [t for t, entry in draft.row(id).entries.items() if entry.drawn]
    return {**documents.track_json(draft.track(id), draft.classes), "drawn": sorted(drawn)}
