"""Turn exceptions into responses: a status and one line of JSON, never a traceback."""

from __future__ import annotations

import errno
import logging
import math
import sqlite3
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from tubelet.apps.web.jobs.refusals import FULL, RETRY_AFTER, Busy, Full, Spent, known
from tubelet.apps.web.jobs.store import Job, Store
from tubelet.apps.web.users import EVERYONE, User
from tubelet.core.errors import TubeletError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MISSING = "there is no such thing here, or it was removed"
INTERNAL = "something went wrong in the server"

log = logging.getLogger("tubelet.web")


class Refusal(Exception):
    """Raised by a route to refuse a request, with the response's status and its one line of text."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status
        self.line = line


def finished(store: Store, id: str, user: User = EVERYONE) -> Job:
    """The job of this id. Raises KeyError if there is none that `user` sees, Refusal if it has not finished."""
    job = known(store.job(id))
    if not user.sees(known(store.owner("jobs", id))):
        raise KeyError(id)
    if job.state != "done":
        raise Refusal(409, "this video is not finished")
    return job


def add(app: FastAPI) -> None:
    """Add a handler for each kind of exception that has a response of its own."""
    handlers: dict[type[Exception], Callable[[Any], Response]] = {
        Refusal: lambda error: _response(error.status, error.line),
        TubeletError: lambda error: _response(422, str(error)),
        Full: lambda error: _response(507, str(error)),
        OSError: _disk_error,
        sqlite3.Error: _database_error,
        Busy: lambda error: _response(503, str(error), {"Retry-After": str(RETRY_AFTER)}),
        Spent: lambda error: _response(429, str(error), {"Retry-After": str(math.ceil(error.seconds))}),
        KeyError: lambda error: _response(404, MISSING),
        RequestValidationError: lambda error: _response(422, "this request is not of the form that the page sends"),
        HTTPException: lambda error: _response(error.status_code, str(error.detail)),
        ClientDisconnect: lambda error: _response(499, "the sender has left"),
    }
    for kind, respond in handlers.items():

        async def handler(request: Request, error: Exception, respond: Callable[[Any], Response] = respond) -> Response:
            return respond(error)

        app.add_exception_handler(kind, handler)


def _response(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)


def _disk_error(error: OSError) -> Response:
    if error.errno in NO_SPACE:
        return _response(507, FULL)
    if isinstance(error, FileNotFoundError):
        return _response(404, MISSING)
    log.error("the disk refused", exc_info=error)
    return _response(500, INTERNAL)


def _database_error(error: sqlite3.Error) -> Response:
    if "full" in str(error):
        return _response(507, FULL)
    log.error("the list of jobs refused", exc_info=error)
    return _response(500, INTERNAL)
