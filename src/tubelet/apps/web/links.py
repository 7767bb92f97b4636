"""Links that show one result to whoever has them, and nothing else: the film, and the result as it is edited now.

A link is a random word of 128 bits. It needs no token and gives none: its routes read one job, and neither its name,
its owner nor the other results of its video are told. Whoever made it can withdraw it, and it goes with its result.
"""

from __future__ import annotations

import gzip
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from tubelet.apps.web import documents
from tubelet.apps.web.assets import asset
from tubelet.apps.web.faults import Refusal, finished
from tubelet.apps.web.jobs.edited import EditedResults
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.refusals import known
from tubelet.apps.web.jobs.store import Job
from tubelet.apps.web.uploads import film_response

PAGE = "/shared/"
DATA = "/api/shared/"
SECRET = (PAGE, DATA)
PUBLIC = (*SECRET, "/page/")  # what these paths give needs no token; only reading is possible there


def add(app: FastAPI, jobs: Jobs, results: EditedResults) -> None:
    """Add the routes that make, show and withdraw a link, and those that it leads to."""
    links = jobs.store.links

    @app.get("/api/jobs/{id}/link")
    def link(id: str) -> dict[str, Any]:
        return {"address": _address(links.word_of(finished(jobs.store, id).id))}

    @app.post("/api/jobs/{id}/link", status_code=201)
    def share(id: str) -> dict[str, Any]:
        return {"address": _address(links.make(finished(jobs.store, id).id))}

    @app.delete("/api/jobs/{id}/link", status_code=204)
    def withdraw(id: str) -> None:
        links.withdraw(known(jobs.store.job(id)).id)

    @app.get("/shared/{word}")
    def page(word: str, request: Request) -> Response:
        _shared(jobs, word)
        return asset("shared.html", request)

    @app.get("/api/shared/{word}/result")
    def result(word: str, request: Request) -> Response:
        return _result(jobs, results, _shared(jobs, word), request)

    @app.get("/api/shared/{word}/film")
    def play(word: str) -> Response:
        return film_response(jobs, known(jobs.store.video(_shared(jobs, word).video)))


def _shared(jobs: Jobs, word: str) -> Job:
    """The job that a link shows. Raises Refusal if it is none, or was withdrawn."""
    id = jobs.store.links.job_of(word)
    job = None if id is None else jobs.store.job(id)
    if job is None:
        raise Refusal(404, "this link shows nothing, or was withdrawn")
    return job


def _result(jobs: Jobs, results: EditedResults, job: Job, request: Request) -> Response:
    """The result as it is edited now; the model's own where nobody has edited it."""
    path = jobs.store.job_folder(job.id) / documents.RESULT
    if not jobs.store.num_edits(job.id):
        content = path.read_bytes()
    else:
        with jobs.store.scratch() as scratch:
            with results.opened(job) as edited:
                edited.write(scratch / documents.RESULT)
            content = (scratch / documents.RESULT).read_bytes()

    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(content, media_type="application/json", headers={"Content-Encoding": "gzip"})
    return Response(gzip.decompress(content), media_type="application/json")


def _address(word: str | None) -> str | None:
    return None if word is None else f"{PAGE}{word}"
