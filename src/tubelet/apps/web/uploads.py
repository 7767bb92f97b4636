"""Uploads: limits are checked before and during the transfer, a separate process probes the file, then it is listed."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio.to_thread
from fastapi import FastAPI, Request
from starlette.responses import Response

from tubelet.apps.demo import VIDEO as EXAMPLE
from tubelet.apps.web.faults import Refusal
from tubelet.apps.web.files import File
from tubelet.apps.web.jobs import quotas
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.refusals import Busy, Full, known
from tubelet.apps.web.jobs.store import Film, new_id
from tubelet.apps.web.limits import MEGABYTE, Limits
from tubelet.apps.web.probe import probe
from tubelet.apps.web.shares import address
from tubelet.apps.web.users import User
from tubelet.apps.web.visitors import Visitor

PATH = "/api/videos"
PROBING = threading.BoundedSemaphore(2)  # a hostile file may use one processor and 2 GB until its time is over
ADDING = threading.Lock()
SPARE_BYTES = 200 * MEGABYTE  # stay free on the disk
LONGEST_NAME = 120  # characters


def add(app: FastAPI, jobs: Jobs, slots: Slots) -> None:
    """Add the routes that upload a video, add the bundled example, and play a video."""
    limits = jobs.limits
    store = jobs.store
    example_lock = threading.Lock()

    @app.post(PATH, status_code=201)
    async def upload(request: Request, user: Visitor) -> dict[str, Any]:
        declared = declared_size(request)
        await anyio.to_thread.run_sync(check_before, jobs, declared, slots.expected, user)

        with slots.taken(address(request), declared), store.scratch() as folder:
            size = await receive(request, folder / "source", limits.bytes)
            name = shown_name(request.headers.get("x-name", ""))
            film = await anyio.to_thread.run_sync(add_video, jobs, folder, name, size, False, user)
            return described_film(film)

    @app.post("/api/example", status_code=201)
    def example(user: Visitor) -> dict[str, Any]:
        with example_lock:  # two requests at once add one video
            film = store.example(user.name)
            if film is None:
                size = EXAMPLE.stat().st_size
                check_before(jobs, size, slots.expected, user)
                with store.scratch() as folder:
                    shutil.copyfile(EXAMPLE, folder / "source")
                    film = add_video(jobs, folder, "example", size, True, user)
        return described_film(film)

    @app.get("/api/videos/{id}/film")
    def play(id: str) -> Response:
        return film_response(jobs, known(store.video(id)))


def film_response(jobs: Jobs, film: Film) -> Response:
    """Answer with the file that browsers play."""
    path = jobs.store.play_file(film)
    if not path.is_file():
        raise Refusal(409, "this video is still being prepared for browsers")
    is_webm = film.webm and path.name == "source"
    return File(path, media_type="video/webm" if is_webm else "video/mp4")


class Slots:
    """The uploads under way. Not thread-safe: only the event loop uses it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._addresses: Counter[str] = Counter()
        self.expected = 0  # sum of the sizes that they have declared, bytes

    @contextmanager
    def taken(self, address: str, declared: int) -> Iterator[None]:
        """Occupy a slot within the block. Raises Busy if all slots, or all of this address, are taken."""
        total = self._addresses.total()
        if total >= self._limits.uploads:
            raise Busy(f"busy: {total} uploads are under way; try again in a while")
        if self._addresses[address] >= self._limits.uploads_each:
            raise Busy(f"busy: {self._limits.uploads_each} of your uploads are under way; try again in a while")

        self._addresses[address] += 1
        self.expected += declared
        try:
            yield
        finally:
            self.expected -= declared
            self._addresses[address] -= 1
            self._addresses += Counter()  # drops those at 0


def check_before(jobs: Jobs, declared: int, others: int, user: User) -> None:
    """Refuse an upload before it is received, if it is too large, the queue is full or the disk nearly so.

    `declared` is its Content-Length, `others` the sum of those of the uploads under way.
    """
    limits = jobs.limits
    if declared > limits.bytes:
        raise Refusal(413, f"{declared / MEGABYTE:,.0f} MB are too many: at most {limits.megabytes} MB are taken")
    jobs.check_room(user)
    quotas.check_bytes(user, jobs.store, declared)

    needed = max(declared, MEGABYTE) + others + SPARE_BYTES
    if shutil.disk_usage(jobs.store.root).free < needed:
        raise Full("the server's disk is nearly full")


def declared_size(request: Request) -> int:
    """The Content-Length of a request, bytes; 0 where it does not say."""
    header = request.headers.get("content-length", "")
    return int(header) if header.isdecimal() else 0


async def receive(request: Request, path: Path, limit: int) -> int:
    """Write the body to a file as it arrives; returns its size in bytes."""
    size = 0
    with path.open("wb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise Refusal(413, f"this file is too large: at most {limit // MEGABYTE} MB are taken")
            await anyio.to_thread.run_sync(file.write, chunk)
    if size == 0:
        raise Refusal(422, "this file is empty")
    return size


def add_video(jobs: Jobs, folder: Path, name: str, size: int, example: bool, user: User) -> Film:
    """Probe the file `folder`/source and add it to the list."""
    with PROBING:
        probed = probe(folder / "source", jobs.limits.frames)

    film = Film(
        id=new_id(),
        name=name,
        example=example,
        bytes=size,
        width=probed.width,
        height=probed.height,
        frames=probed.frames,
        seconds=probed.seconds,
        playable=probed.playable,
        webm=probed.webm,
        created=time.time(),
        owner=user.name,
    )
    with ADDING:  # what was declared may be too little, and two uploads at once may be too much
        quotas.check_bytes(user, jobs.store, size)
        jobs.store.add_video(film, folder)
    jobs.make_room(user.name)
    return film


def described_film(film: Film) -> dict[str, Any]:
    """A video as JSON for the page."""
    return {key: value for key, value in asdict(film).items() if key not in ("playable", "webm", "owner")}


def shown_name(header: str) -> str:
    """The file name that a browser sent, to be shown: without folders, printable, at most LONGEST_NAME characters."""
    path = unquote(header, errors="replace").replace("\\", "/")
    name = path.rsplit("/", 1)[-1]
    printable = "".join(character if character.isprintable() else " " for character in name)
    return printable.strip()[:LONGEST_NAME] or "video"
