"""What goes wrong as an answer: a status and one line of JSON, never a trace."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from tubelet.apps.web.jobs.queue import FULL, RETRY_AFTER, Busy, Full
from tubelet.core.errors import InputError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

log = logging.getLogger("tubelet.web")


class Refusal(Exception):
    """An answer other than the wanted one: a status and one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line


def add(app: FastAPI) -> None:
    """Handlers for all faults that have an answer of their own."""

    def line(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse({"error": text}, status, headers)

    handlers: dict[type[Exception], Callable[[Any], Response]] = {
        Refusal: lambda error: line(error.status, error.line),
        InputError: lambda error: line(422, str(error)),
        Full: lambda error: line(507, str(error)),
        OSError: lambda error: line(*_of_the_disk(error)),
        sqlite3.Error: lambda error: line(*_of_the_list(error)),
        Busy: lambda error: line(503, str(error), {"Retry-After": str(RETRY_AFTER)}),
        KeyError: lambda error: line(404, "there is no such thing here, or it was removed"),
        RequestValidationError: lambda error: line(422, "this request is not of the form that the page sends"),
        HTTPException: lambda error: line(error.status_code, str(error.detail)),
        ClientDisconnect: lambda error: line(499, "the sender has left"),
    }
    for kind, answer in handlers.items():

        async def handler(request: Request, error: Exception, answer: Callable[[Any], Response] = answer) -> Response:
            return answer(error)

        app.add_exception_handler(kind, handler)


def _of_the_disk(error: OSError) -> tuple[int, str]:
    if error.errno in NO_SPACE:
        return 507, FULL
    if isinstance(error, FileNotFoundError):
        return 404, "there is no such thing here, or it was removed"
    log.error("the disk refused", exc_info=error)
    return 500, "something went wrong in the server"


def _of_the_list(error: sqlite3.Error) -> tuple[int, str]:
    if "full" in str(error):
        return 507, FULL
    log.error("the list of jobs refused", exc_info=error)
    return 500, "something went wrong in the server"
