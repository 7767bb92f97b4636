"""How videos come in: bounded before and while they travel, looked at by a process of their own, then listed."""

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
from starlette.responses import FileResponse, Response

from tubelet.apps.demo import VIDEO as EXAMPLE
from tubelet.apps.web.faults import Refusal
from tubelet.apps.web.jobs.queue import Busy, Full, Jobs, known
from tubelet.apps.web.jobs.store import Film, new_id
from tubelet.apps.web.limits import MEGABYTE, Limits
from tubelet.apps.web.probe import probe
from tubelet.apps.web.shares import address

PATH = "/api/videos"
PROBING = threading.BoundedSemaphore(2)  # a file from outside may take a processor and 2 GB until it is given up
SPARE_BYTES = 200 * MEGABYTE  # that stay free on the disk
LONGEST_NAME = 120


def add(app: FastAPI, jobs: Jobs) -> None:
    """Routes of uploads, the example and films."""
    limits, store = jobs.limits, jobs.store
    slots = Slots(limits)
    one_example = threading.Lock()

    @app.post(PATH, status_code=201)
    async def upload(request: Request) -> dict[str, Any]:
        header = request.headers.get("content-length", "")
        declared = int(header) if header.isdecimal() else 0
        await anyio.to_thread.run_sync(_check_before, jobs, declared, slots.expected)
        with slots.taken(address(request), declared), store.scratch() as folder:
            size = await _receive(request, folder / "source", limits.bytes)
            name = _shown_name(request.headers.get("x-name", ""))
            return described_film(await anyio.to_thread.run_sync(_take_in, jobs, folder, name, size, False))

    @app.post("/api/example", status_code=201)
    def example() -> dict[str, Any]:
        with one_example:
            film = store.example()
            if film is None:
                _check_before(jobs, EXAMPLE.stat().st_size, slots.expected)
                with store.scratch() as folder:
                    shutil.copyfile(EXAMPLE, folder / "source")
                    film = _take_in(jobs, folder, "example", EXAMPLE.stat().st_size, True)
        return described_film(film)

    @app.get("/api/videos/{id}/film")
    def film(id: str) -> Response:
        found = known(store.video(id))
        path = jobs.play_file(found)
        if not path.is_file():
            raise Refusal(409, "this video is still being prepared for browsers")
        is_webm = found.webm and path.name == "source"
        return FileResponse(path, media_type="video/webm" if is_webm else "video/mp4")


class Slots:
    """Uploads that are under way; used by the event loop alone."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._addresses: Counter[str] = Counter()
        self.expected = 0  # bytes that were declared by all of them

    @contextmanager
    def taken(self, address: str, declared: int) -> Iterator[None]:
        """One of the slots; raises Busy where none is left, or none for this address."""
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


def _check_before(jobs: Jobs, declared: int, others: int) -> None:
    """Refuse an upload before its bytes travel; `others` are the bytes that uploads under way have declared."""
    limits = jobs.limits
    if declared > limits.bytes:
        raise Refusal(413, f"{declared / MEGABYTE:,.0f} MB are too many: at most {limits.megabytes} MB are taken")
    jobs.check_room()
    if shutil.disk_usage(jobs.store.root).free < max(declared, MEGABYTE) + others + SPARE_BYTES:
        raise Full("the server's disk is nearly full")


async def _receive(request: Request, path: Path, limit: int) -> int:
    """Write the body to a file as it comes; how many bytes."""
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


def _take_in(jobs: Jobs, folder: Path, name: str, size: int, example: bool) -> Film:
    with PROBING:
        facts = probe(folder / "source", jobs.limits.frames)
    film = Film(
        id=new_id(), name=name, example=example, bytes=size, width=facts.width, height=facts.height,
        frames=facts.frames, seconds=facts.seconds, playable=facts.playable, webm=facts.webm, created=time.time(),
    )  # fmt: skip
    jobs.store.add_video(film, folder)
    jobs.make_room()
    return film


def described_film(film: Film) -> dict[str, Any]:
    """A video as the page takes it."""
    return {key: value for key, value in asdict(film).items() if key not in ("playable", "webm")}


def _shown_name(header: str) -> str:
    """What a browser calls its file, as a text to show: one line, no path, not too long."""
    name = unquote(header, errors="replace").replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(character if character.isprintable() else " " for character in name).strip()
    return name[:LONGEST_NAME] or "video"
