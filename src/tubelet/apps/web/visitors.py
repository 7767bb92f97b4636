"""Who asks: every request has its user, and what belongs to another user is not found.

An address with the id of a video, job, training or model passes one gate, whatever its route. What a request names in
its body, and what a list shows, is the route's to check: it asks for a `Visitor`.
"""

from __future__ import annotations

import re
from typing import Annotated

import anyio.to_thread
from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tubelet.apps.web.faults import MISSING
from tubelet.apps.web.jobs.store import Store
from tubelet.apps.web.users import User

KEY = "tubelet.user"  # in the scope of a request, where the guard has put the user
ITEM = re.compile(r"/api/(videos|jobs|trainings|models)/([^/]+)")


def visitor(request: HTTPConnection) -> User:
    """The user who asks."""
    user: User = request.scope[KEY]
    return user


Visitor = Annotated[User, Depends(visitor)]


class Ownership:
    """ASGI middleware that answers 404 to an address with an id that belongs to another user."""

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self.app = app
        self.store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        item = ITEM.match(scope["path"]) if scope["type"] == "http" else None
        if item is not None and scope[KEY].name:
            # in a thread, because it may wait for a lock
            owner = await anyio.to_thread.run_sync(self.store.owner, item[1], item[2])
            if owner is None or not scope[KEY].sees(owner):
                await JSONResponse({"error": MISSING}, 404)(scope, receive, send)
                return
        await self.app(scope, receive, send)
