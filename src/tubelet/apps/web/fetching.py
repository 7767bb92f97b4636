"""A video by its address: the server fetches it, says how far it is, and lists it as it does an upload.

The answer is a line of JSON now and then, {"done", "total"} in bytes; then {"video"} or {"error"}. If the browser
leaves, the fetching stops.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import anyio.to_thread
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from tubelet.apps.web.faults import Refusal
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.refusals import Busy, Full
from tubelet.apps.web.jobs.store import Film
from tubelet.apps.web.shares import address as address_of
from tubelet.apps.web.uploads import Slots, add_video, check_before, described_film, shown_name
from tubelet.apps.web.users import User
from tubelet.apps.web.visitors import Visitor
from tubelet.core.errors import TubeletError
from tubelet.core.untrusted.addresses import fetch, is_web_address

Fetched = Literal["public", "all", "none"]  # which addresses are fetched
LONGEST_ADDRESS = 4000
TELL_EVERY = 0.3  # seconds


class AddressRequest(BaseModel):
    """The body of a request for a video by its address."""

    model_config = ConfigDict(extra="forbid")
    address: str = Field(max_length=LONGEST_ADDRESS)


class _Stopped(Exception):
    """The browser has left."""


class _Fetching:
    """One video on its way: `fetched` runs in a thread, and the event loop looks at the rest."""

    def __init__(self, jobs: Jobs, address: str, public: bool, others: int, user: User) -> None:
        self.stop = threading.Event()
        self.done = 0
        self.total: int | None = None
        self._jobs = jobs
        self._address = address
        self._public = public
        self._others = others  # bytes that uploads under way have declared
        self._user = user

    def fetched(self, folder: Path) -> Film:
        """Fetch the video into a folder, probe it and list it."""
        largest = self._jobs.limits.bytes
        fetch(self._address, folder / "source", largest=largest, public=self._public, progress=self._progress)
        if self.stop.is_set():
            raise _Stopped
        return add_video(self._jobs, folder, shown_name(urlsplit(self._address).path), self.done, False, self._user)

    def _progress(self, done: int, total: int | None) -> None:
        if self.stop.is_set():
            raise _Stopped
        if not self.done and total is not None:
            check_before(self._jobs, total, self._others, self._user)  # now that its size is known
        self.done = done
        self.total = total


def add(app: FastAPI, jobs: Jobs, slots: Slots, allowed: Fetched) -> None:
    """Add the route that fetches a video."""

    @app.post("/api/addresses")
    async def fetch_video(request: Request, wish: AddressRequest, user: Visitor) -> Response:
        if allowed == "none":
            raise Refusal(403, "this server fetches no addresses; send the video itself")
        address = wish.address.strip()
        if not is_web_address(address):
            raise Refusal(422, "expected the address of a video, starting with http:// or https://")
        await anyio.to_thread.run_sync(check_before, jobs, 0, slots.expected, user)

        fetching = _Fetching(jobs, address, allowed == "public", slots.expected, user)
        lines = _lines(fetching, jobs, slots, address_of(request))
        return StreamingResponse(lines, media_type="application/x-ndjson")


async def _lines(fetching: _Fetching, jobs: Jobs, slots: Slots, client: str) -> AsyncIterator[str]:
    try:
        with slots.taken(client, 0), jobs.store.scratch() as folder:
            work = asyncio.ensure_future(asyncio.to_thread(fetching.fetched, folder))
            work.add_done_callback(lambda ended: ended.exception())  # heard even if the browser has left
            try:
                while not work.done():
                    yield _line(done=fetching.done, total=fetching.total)
                    await asyncio.wait([work], timeout=TELL_EVERY)
            finally:
                fetching.stop.set()  # the browser has left, if it is not the end
            yield _line(video=described_film(await work))
    except (TubeletError, Refusal, Busy, Full) as error:
        yield _line(error=str(error))


def _line(**values: Any) -> str:
    return json.dumps(values) + "\n"
