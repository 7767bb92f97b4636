"""A video by its address: what is fetched, what is refused, and that nothing stays of what was not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import web_models
from page_fixtures import serving_files, write_film
from tubelet.apps.web import fetching, server
from tubelet.apps.web.fetching import Fetched
from tubelet.apps.web.guard import Access
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.store import Store
from tubelet.apps.web.limits import Limits
from tubelet.apps.web.uploads import Slots
from tubelet.apps.web.users import EVERYONE


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a video, and what is none."""
    folder = tmp_path_factory.mktemp("files")
    write_film(folder / "my film.mp4", 3)
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    (folder / "page.mp4").write_text("<!DOCTYPE html><html>films</html>")
    (folder / "large.mp4").write_bytes(bytes(2_000_000))
    with serving_files(folder) as address:
        yield address


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    """Jobs without a worker: nothing is run."""
    store = Store(tmp_path / "data")
    yield Jobs(store, Limits(megabytes=1), web_models.open_model, ["toy"])
    assert list((store.root / "scratch").iterdir()) == []
    store.close()


def ask(jobs: Jobs, address: str, addresses: Fetched = "all") -> tuple[int, list[dict[str, Any]]]:
    """Status and lines of the answer."""
    client = TestClient(server.build(jobs, Access(), addresses=addresses), base_url="http://127.0.0.1")
    answer = client.post("/api/addresses", json={"address": address})
    return answer.status_code, [json.loads(line) for line in answer.text.splitlines()]


def test_a_video_is_fetched_and_listed(jobs: Jobs, files: str) -> None:
    status, lines = ask(jobs, f" {files}/my%20film.mp4 ")
    (film,) = jobs.store.videos()
    assert (status, lines[-1]["video"]["id"]) == (200, film.id)
    assert (film.name, film.frames, film.width) == ("my film.mp4", 3, 320)
    assert jobs.store.source(film).stat().st_size == film.bytes
    assert all(set(line) == {"done", "total"} for line in lines[:-1])


def test_this_machine_and_its_network_are_refused_unless_the_server_was_started_for_it(jobs: Jobs, files: str) -> None:
    _, lines = ask(jobs, f"{files}/my%20film.mp4", "public")
    refusal = "127.0.0.1: this address is of this machine or of a private network; only public addresses are fetched"
    assert lines[-1] == {"error": refusal}
    status, lines = ask(jobs, f"{files}/my%20film.mp4", "none")
    assert (status, lines) == (403, [{"error": "this server fetches no addresses; send the video itself"}])
    assert jobs.store.videos() == []


@pytest.mark.parametrize("address", ["file:///etc/passwd", "rtsp://camera/1", "film.mp4", "", "ftp://example.org/a"])
def test_only_the_web_is_fetched(jobs: Jobs, address: str) -> None:
    status, lines = ask(jobs, address)
    assert (status, "starting with http:// or https://" in lines[0]["error"]) == (422, True)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("text.mp4", "this file is not a video that can be read"),
        ("page.mp4", "{}: a page, not a video; give the address of the video file itself"),
        ("large.mp4", "{}: expected a file of at most 1000000 bytes, found 2000000"),
        ("endless", "{}: is still sending after 1"),
        ("nowhere.mp4", "{}: the server answers 404 (File not found)"),
    ],
)
def test_what_cannot_be_taken_is_one_line_and_leaves_nothing(jobs: Jobs, files: str, name: str, line: str) -> None:
    status, lines = ask(jobs, f"{files}/{name}")
    assert status == 200
    assert lines[-1]["error"].startswith(line.format(f"{files}/{name}"))
    assert jobs.store.videos() == []


def test_a_browser_that_leaves_ends_the_fetching(jobs: Jobs, files: str) -> None:
    jobs.limits = Limits(megabytes=4000)

    async def leave() -> None:
        begun = fetching._Fetching(jobs, f"{files}/endless", False, 0, EVERYONE)
        lines = fetching._lines(begun, jobs, Slots(jobs.limits), "somebody")
        while not begun.done:
            assert "error" not in json.loads(await anext(lines))
        await lines.aclose()
        assert begun.stop.is_set()  # which ends the thread, and asyncio.run waits for it

    asyncio.run(leave())
    assert jobs.store.videos() == []
