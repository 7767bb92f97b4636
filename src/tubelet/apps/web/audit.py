"""The audit log: a line of JSON for each request that changes something or is refused.

    {"time": "2026-11-29T19:05:00Z", "user": "anna", "address": "192.0.2.7", "action": "DELETE /api/jobs/{id}",
     "id": "0123456789abcdef", "status": 204}

The action is the route, never the address as it was sent: no token, no name of a file, no text of a stranger is in it.
Refusals of one address are written at most one a second in the long run, so that nobody fills the log with them.
"""

from __future__ import annotations

import json
import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tubelet.apps.web.guard import SAFE_METHODS
from tubelet.apps.web.jobs.store import ID
from tubelet.apps.web.rates import Buckets
from tubelet.apps.web.shares import address
from tubelet.apps.web.visitors import KEY

FILE = "audit.jsonl"
LARGEST = 10_000_000  # bytes; then it becomes audit.jsonl.1, and so on
EARLIER_FILES = 5
REFUSALS = 60  # of one address that are written at once
LARGEST_ANSWER = 100_000  # bytes in which the id of what was made is looked for
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
LOG_IN = "log in"

log = logging.getLogger("tubelet.web")


class AuditLog:
    """The file, which is rotated by its size. A disk that refuses is told once and hinders no request."""

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self._handler = _Handler(path, maxBytes=largest, backupCount=EARLIER_FILES, encoding="utf-8", delay=True)

    def write(self, entry: dict[str, Any]) -> None:
        """Add a line."""
        self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, json.dumps(entry), None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _Handler(RotatingFileHandler):
    is_refused = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.is_refused:
            log.error("the audit log cannot be written")
        self.is_refused = True


class Audit:
    """ASGI middleware that writes the audit log; `routes` are the application's."""

    def __init__(self, app: ASGIApp, audit_log: AuditLog, routes: list[BaseRoute]) -> None:
        self.app = app
        self._log = audit_log
        self._routes = routes
        self._refusals = Buckets(rate=1, burst=REFUSALS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        answer = _Answer(send)
        try:
            await self.app(scope, receive, answer.send)
        finally:
            self._note(scope, answer)

    def _note(self, scope: Scope, answer: _Answer) -> None:
        client = address(HTTPConnection(scope))
        is_refusal = answer.status >= 400
        is_log_in = scope["method"] == "GET" and answer.status == 303
        if not is_refusal and not is_log_in and scope["method"] in SAFE_METHODS:
            return
        if is_refusal and self._refusals.wait(client):
            return

        action, id = self._action(scope)
        user = scope.get(KEY)
        self._log.write(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "user": "" if user is None else user.name,
                "address": client,
                "action": LOG_IN if is_log_in else action,
                "id": answer.made() or id,
                "status": answer.status,
            }
        )

    def _action(self, scope: Scope) -> tuple[str, str | None]:
        """The method and route of a request, and the id in its address."""
        method = scope["method"] if scope["method"] in METHODS else "other"
        for route in self._routes:
            match, found = route.matches(scope)
            if match == Match.FULL:
                id = found["path_params"].get("id", "")
                return f"{method} {route.path}", id if ID.fullmatch(id) else None  # type: ignore[attr-defined]
        return f"{method} no route", None


class _Answer:
    """What of an answer is noted: its status, and the id of what was made."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._body = b""
        self.status = 499  # the sender left before there was an answer

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif self.status == 201 and len(self._body) < LARGEST_ANSWER:
            self._body += message.get("body", b"")
        await self._send(message)

    def made(self) -> str | None:
        """The id in the answer to a request that made something."""
        try:
            answer = json.loads(self._body)
        except ValueError:
            return None
        id = answer.get("id") if isinstance(answer, dict) else None
        return id if isinstance(id, str) and ID.fullmatch(id) else None
