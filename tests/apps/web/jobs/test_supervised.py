"""No error ends a thread that others wait for, and no job stays for ever."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import web_models
from toy import moving_patches
from tubelet.apps.web import server
from tubelet.apps.web.guard import Access
from tubelet.apps.web.jobs import errands, restarts, supervised, tasks
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.refusals import Busy
from tubelet.apps.web.jobs.store import Store
from tubelet.apps.web.limits import Limits
from tubelet.core.errors import InputError
from tubelet.video.writer import VideoWriter

WAIT = 60.0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    store = Store(tmp_path_factory.mktemp("supervised"))
    running = Jobs(store, Limits(), web_models.open_model, ["toy", "slow", "stuck"])
    running.open()
    yield running
    running.close()
    store.close()


@pytest.fixture(scope="module")
def asking(jobs: Jobs) -> TestClient:
    return TestClient(server.build(jobs, Access()), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with VideoWriter(path, (48, 64), 10) as writer:
        for frame in moving_patches(8):
            writer.write(frame)
    return path.read_bytes()


@pytest.fixture
def video(asking: TestClient, film: bytes) -> str:
    return upload(asking, film)


def upload(asking: TestClient, film: bytes) -> str:
    return asking.post("/api/videos", content=film).json()["id"]


def submit(asking: TestClient, video: str, model: str = "toy") -> str:
    answer = asking.post("/api/jobs", json={"video": video, "model": model})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def state(asking: TestClient, job: str) -> str:
    return asking.get(f"/api/jobs/{job}").json()["state"]


def finished(asking: TestClient, job: str) -> dict[str, Any]:
    until(lambda: state(asking, job) not in ("queued", "running"))
    return asking.get(f"/api/jobs/{job}").json()


def finished_in_silence(jobs: Jobs, asking: TestClient, job: str) -> dict[str, Any]:
    """A job when it is over, as if it had been silent for long at every look."""

    def is_over() -> bool:
        if jobs._current is not None and jobs._current.id == job:
            jobs._deadlines.last_message -= jobs.limits.silence
        return state(asking, job) not in ("queued", "running")

    until(is_over)
    jobs._deadlines.last_message = time.monotonic()  # the next worker has its time
    return asking.get(f"/api/jobs/{job}").json()


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_step_that_fails_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "PAUSE", 0)
    steps = iter([ValueError("a"), sqlite3.OperationalError("b"), True, MemoryError(), False, True])

    def step() -> bool:
        now = next(steps)
        if isinstance(now, Exception):
            raise now
        return now

    supervised.repeat(step, "a test").join(WAIT)
    assert list(steps) == [True]


def test_the_same_error_again_and_again_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervised, "PAUSE", 0)
    left = list(range(100))

    def step() -> bool:
        if not left:
            return False
        left.pop()
        raise OSError("the disk is full")

    supervised.repeat(step, "a test").join(WAIT)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("error", [no_space, lambda *_: 1 / 0], ids=["full disk", "our fault"])
def test_a_result_that_cannot_be_kept_fails_its_job_and_the_next_one_runs(
    jobs: Jobs, asking: TestClient, film: bytes, monkeypatch: pytest.MonkeyPatch, error: Callable[..., None]
) -> None:
    video = upload(asking, film)
    with monkeypatch.context() as patch:
        patch.setattr(tasks.os, "replace", error)
        job = finished(asking, submit(asking, video))
    assert (job["state"], "could not be kept" in job["error"]) == ("failed", True)
    assert not any((jobs.store.root / "scratch").iterdir())
    assert finished(asking, submit(asking, upload(asking, film)))["state"] == "done"


def test_a_list_that_the_disk_refuses_keeps_the_listener_and_the_states(
    jobs: Jobs, asking: TestClient, video: str
) -> None:
    class Broken:
        """A file that takes nothing."""

        def execute(self, *_: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

    job = submit(asking, video, "slow")
    file = jobs.store._list._file
    jobs.store._list._file = Broken()  # type: ignore[assignment]
    assert finished(asking, job)["state"] == "done"
    refused = asking.post("/api/jobs", json={"video": video, "model": "toy"})
    assert (refused.status_code, refused.json()) == (507, {"error": "the server's disk is full"})
    jobs.store._list._file = file
    until(jobs.store.catch_up)
    assert finished(asking, submit(asking, video))["state"] == "done"
    assert file.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone() == ("done",)


def test_on_a_full_disk_jobs_wait_and_run_when_there_is_space(
    jobs: Jobs, asking: TestClient, video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Jobs, "disk_is_full", lambda jobs: True)
        job = jobs.store.add_job(video, "toy", None, None).id  # from before the disk was full
        until(lambda: jobs.waits_for_space)
        waiting = asking.get(f"/api/jobs/{job}").json()
        assert (waiting["state"], waiting["full"]) == ("queued", True)
        refused = asking.post("/api/jobs", json={"video": video, "model": "stuck"})
        assert (refused.status_code, refused.json()) == (507, {"error": "the server's disk is full"})
    assert finished(asking, job)["state"] == "done"


def test_a_folder_that_cannot_be_made_keeps_a_job_waiting(
    jobs: Jobs, asking: TestClient, video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", no_space)
        job = submit(asking, video)
        assert state(asking, job) == "queued"
        assert asking.post("/api/videos", content=b"x").status_code == 507
    assert finished(asking, job)["state"] == "done"


def test_a_job_of_which_nothing_is_heard_is_given_up_and_the_next_one_runs(
    jobs: Jobs, asking: TestClient, video: str
) -> None:
    worker = jobs.worker_pid
    job = submit(asking, video, "stuck")
    following = submit(asking, video)
    until(lambda: asking.get(f"/api/jobs/{job}").json().get("total", 0) > 0)
    given_up = finished_in_silence(jobs, asking, job)
    assert (given_up["state"], "too long" in given_up["error"]) == ("failed", True)
    assert finished(asking, following)["state"] == "done"
    assert jobs.worker_pid != worker


def test_errands_do_not_make_a_stuck_job_look_alive(jobs: Jobs, asking: TestClient, film: bytes) -> None:
    until(lambda: jobs._worker.is_ready)
    video = upload(asking, film)
    done = submit(asking, video)
    finished(asking, done)
    stuck = submit(asking, video, "stuck")
    until(lambda: asking.get(f"/api/jobs/{stuck}").json().get("total", 0) > 0)
    before = jobs._deadlines.last_message
    assert asking.get(f"/api/jobs/{done}/files/tracks.csv").status_code == 200
    assert jobs._deadlines.last_message == before
    finished_in_silence(jobs, asking, stuck)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_worker_that_is_halted_is_given_up(jobs: Jobs, asking: TestClient, film: bytes) -> None:
    until(lambda: jobs._worker.is_ready)
    job = submit(asking, upload(asking, film), "slow")
    assert jobs.worker_pid is not None
    os.kill(jobs.worker_pid, signal.SIGSTOP)
    assert finished_in_silence(jobs, asking, job)["state"] in ("failed", "done")
    assert finished(asking, submit(asking, upload(asking, film)))["state"] == "done"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_answer_that_the_server_does_not_understand_ends_only_its_job(
    jobs: Jobs, asking: TestClient, film: bytes
) -> None:
    job = submit(asking, upload(asking, film), "stuck")
    until(lambda: asking.get(f"/api/jobs/{job}").json().get("total", 0) > 0)
    with jobs._lock:
        jobs._on_message({"say": "done", "key": job})  # without what belongs to it
    assert finished(asking, job)["state"] == "failed"
    assert jobs.worker_pid is not None
    os.kill(jobs.worker_pid, signal.SIGSTOP)  # however slow this machine is, the worker is still at the other one
    following = submit(asking, upload(asking, film))
    assert finished_in_silence(jobs, asking, following)["state"] == "failed"
    assert finished(asking, submit(asking, upload(asking, film)))["state"] == "done"


def test_ending_on_a_full_disk_is_no_error_and_the_job_runs_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    running = Jobs(store, Limits(), web_models.open_model, ["stuck"])
    running.open()
    asking = TestClient(server.build(running, Access()), base_url="http://127.0.0.1")
    job = submit(asking, asking.post("/api/example").json()["id"], "stuck")
    (pages,) = store._list._file.execute("PRAGMA page_count").fetchone()
    store._list._file.execute(f"PRAGMA max_page_count = {pages}")
    running.close()
    store.close()
    store = Store(tmp_path / "data")
    assert [(left.id, left.state) for left in store.jobs()] == [(job, "queued")]
    store.close()


def test_an_address_cannot_take_all_errands(jobs: Jobs, asking: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_send", lambda message: None)  # the worker never hears of them

    def errand(address: str) -> None:
        with pytest.raises(InputError):
            jobs.ask({"do": "attend"}, WAIT, address)

    def waiting() -> int:
        return len(jobs._errands._waiting)

    until(lambda: jobs._worker.is_ready)
    threads = []
    for number, address in enumerate(["a"] * (errands.MOST // 2) + ["b"], start=1):
        threads.append(threading.Thread(target=errand, args=(address,)))
        threads[-1].start()
        until(lambda number=number: waiting() == number)  # type: ignore[misc]
    with pytest.raises(Busy, match="you are waiting"):
        jobs.ask({"do": "attend"}, WAIT, "a")
    with jobs._lock:
        jobs._errands.fail()
    for thread in threads:
        thread.join(WAIT)
    until(lambda: waiting() == 0)


def test_after_some_workers_that_did_not_come_up_the_next_one_is_started_after_a_pause_and_not_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    jobs = Jobs(store, Limits(), web_models.open_model, ["toy"])
    started: list[int] = []
    monkeypatch.setattr(jobs, "_start_worker", lambda: started.append(1))
    jobs._worker._opened = True
    for _ in range(restarts.MAX_FALSE_STARTS):
        jobs._on_message(None)
    jobs._replace_worker()
    assert started == []
    with pytest.raises(Busy, match="cannot be loaded now"):
        jobs.check_room()

    jobs._worker._last_false_start -= restarts.PAUSE
    jobs._replace_worker()
    assert started == [1]
    store.close()
