"""The server as a browser meets it, with a worker process of its own and models that need no training."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import web_models
from toy import moving_patches
from tubelet.apps import cli
from tubelet.apps.web import assets, sandbox, server
from tubelet.apps.web.guard import Access
from tubelet.apps.web.jobs import tasks
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.room import room_for
from tubelet.apps.web.jobs.store import Film, Store, new_id
from tubelet.apps.web.limits import Limits
from tubelet.core import masks
from tubelet.core.errors import InputError
from tubelet.video.reader import open_video
from tubelet.video.writer import VideoWriter

LENGTH, SIZE = 8, (48, 64)
LIMITS = Limits(megabytes=1, frames=400, waiting=3, kept=30)
WAIT = 60.0


class Served:
    """A running server and what tests do with it."""

    def __init__(self, root: Path, limits: Limits = LIMITS) -> None:
        self.store = Store(root)
        self.jobs = Jobs(self.store, limits, web_models.open_model, list(web_models.MODELS), room_for(root, limits, ()))
        self.jobs.open()
        self.client = TestClient(server.build(self.jobs, Access()), base_url="http://127.0.0.1")

    def close(self) -> None:
        self.jobs.close()
        self.store.close()

    def upload(self, data: bytes, name: str = "patches.mp4") -> dict[str, Any]:
        answer = self.client.post("/api/videos", content=data, headers={"X-Name": name})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def submit(self, video: str, model: str = "toy", **window: Any) -> dict[str, Any]:
        answer = self.client.post("/api/jobs", json={"video": video, "model": model, **window})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def events(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """All events of a job, from now to its end."""
        answer = self.client.get(f"/api/jobs/{job['id']}/events")
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]

    def finish(self, job: dict[str, Any]) -> dict[str, Any]:
        """A job when it is over."""
        return self.events(job)[-1]

    def files(self) -> set[str]:
        root = self.store.root
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path.parent != root}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.02)


def film(path: Path, length: int = LENGTH) -> bytes:
    with VideoWriter(path, SIZE, 10) as writer:
        for frame in moving_patches(length):
            writer.write(frame)
    return path.read_bytes()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("server"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return film(tmp_path_factory.mktemp("film") / "patches.mp4")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return film(tmp_path_factory.mktemp("film") / "long.mp4", 300)


@pytest.fixture(scope="module")
def done(served: Served, patches: bytes) -> dict[str, Any]:
    """A finished job."""
    job = served.finish(served.submit(served.upload(patches)["id"]))
    assert job["state"] == "done", job
    return job


def test_a_video_goes_through_and_its_result_is_what_the_model_saw(served: Served, done: dict[str, Any]) -> None:
    assert done["objects"] == 2
    result = served.client.get(f"/api/jobs/{done['id']}/result").json()
    assert (result["size"], result["length"], len(result["times"])) == ([48, 64], LENGTH, LENGTH)
    assert result["times"] == pytest.approx([t / 10 for t in range(LENGTH)], abs=1e-3)
    assert [(track["name"], track["score"]) for track in result["tracks"]] == [("red", 0.9), ("blue", 0.9)]
    truth = (moving_patches(LENGTH)[..., 0] == 255).astype(bool)
    for t, counts in enumerate(result["tracks"][0]["counts"]):
        found = masks.decode([masks.RLE(SIZE, counts.encode())])[0].astype(bool)
        assert (found & truth[t]).sum() / (found | truth[t]).sum() > 0.6  # the film's own blur is wide here


def test_events_tell_frames_done_and_the_time_left(served: Served, tmp_path: Path) -> None:
    job = served.submit(served.upload(film(tmp_path / "two seconds.mp4", 100))["id"], "slow")
    events = served.events(job)
    running = [event for event in events if event.get("done")]
    assert len(running) > 5
    assert [event["done"] for event in running] == sorted(event["done"] for event in running)
    assert all(event["total"] == 100 for event in running)
    assert running[-2]["left"] < running[1]["left"]
    assert events[-1]["state"] == "done"


def test_the_film_can_be_read_in_pieces(served: Served, done: dict[str, Any], patches: bytes) -> None:
    piece = served.client.get(f"/api/videos/{done['video']}/film", headers={"Range": "bytes=10-19"})
    assert (piece.status_code, piece.content) == (206, patches[10:20])
    assert piece.headers["content-type"] == "video/mp4"


def test_what_browsers_cannot_play_is_encoded_once_with_the_same_frames(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with VideoWriter(path, SIZE, 10) as writer:
        for t, frame in enumerate(moving_patches(LENGTH)):
            writer.write(frame, time=0.1 * t + 0.05 * (t % 2))  # a frame rate that varies
    video = served.upload(path.read_bytes(), "film.mkv")["id"]
    assert served.client.get(f"/api/videos/{video}/film").status_code == 409
    job = served.finish(served.submit(video))
    played = tmp_path / "played.mp4"
    played.write_bytes(served.client.get(f"/api/videos/{video}/film").content)
    copy, source = open_video(played), open_video(path)
    assert len(copy) == len(source) == LENGTH
    assert copy.times == pytest.approx(source.times, abs=1e-4)
    assert served.client.get(f"/api/jobs/{job['id']}/result").json()["times"] == pytest.approx(source.times, abs=1e-4)
    stamp = (served.store.video_folder(video) / "play.mp4").stat().st_mtime_ns
    served.finish(served.submit(video, length=2, stride=1))
    assert (served.store.video_folder(video) / "play.mp4").stat().st_mtime_ns == stamp


def test_downloads_hold_the_tracks_over_the_threshold(served: Served, done: dict[str, Any], tmp_path: Path) -> None:
    files = f"/api/jobs/{done['id']}/files"
    document = served.client.get(f"{files}/predictions.json").json()
    assert [len(entry["segmentations"]) for entry in document["annotations"]] == [LENGTH, LENGTH]
    assert document["videos"][0]["name"] == "patches.mp4"
    assert served.client.get(f"{files}/predictions.json?threshold=0.95").json()["annotations"] == []
    rows = list(csv.DictReader(io.StringIO(served.client.get(f"{files}/tracks.csv").text)))
    assert [(row["track"], row["class"], row["frame"]) for row in rows[:2]] == [("0", "red", "0"), ("0", "red", "1")]
    assert len(rows) == 2 * LENGTH
    archive = zipfile.ZipFile(io.BytesIO(served.client.get(f"{files}/davis.zip").content))
    names = [name for name in archive.namelist() if name.endswith(".png")]
    assert names == [f"Annotations/video/{t:05d}.png" for t in range(LENGTH)]
    assert set(np.unique(np.asarray(Image.open(archive.open(names[0]))))) == {0, 1, 2}
    (tmp_path / "overlay.mp4").write_bytes(served.client.get(f"{files}/overlay.mp4").content)
    overlay = open_video(tmp_path / "overlay.mp4")
    assert (len(overlay), overlay.size) == (LENGTH, SIZE)


def test_a_download_is_made_once_and_kept_for_the_newest_threshold(served: Served, done: dict[str, Any]) -> None:
    files, folder = f"/api/jobs/{done['id']}/files/tracks.csv", served.store.job_folder(done["id"])
    served.client.post(f"{files}?threshold=0.3")
    served.client.post(f"{files}?threshold=0.4")
    assert [path.name for path in folder.glob("*tracks.csv")] == ["040-0-tracks.csv"]


def test_a_wish_may_name_the_classes_to_keep(served: Served, done: dict[str, Any]) -> None:
    (about,) = [model for model in served.client.get("/api/about").json()["models"] if model["name"] == "toy"]
    first, second, *_ = about["classes"]
    body = {"video": done["video"], "model": "toy", "classes": [second, first, second]}
    job = served.client.post("/api/jobs", json=body).json()
    assert job["classes"] == sorted([first, second])
    assert job["id"] != done["id"]
    assert served.submit(done["video"], classes=[first, second])["id"] == job["id"]
    alone = served.finish(served.submit(done["video"], classes=[first]))
    result = served.client.get(f"/api/jobs/{alone['id']}/result").json()
    everything = served.client.get(f"/api/jobs/{done['id']}/result").json()
    assert {track["name"] for track in result["tracks"]} == {first}
    assert len(everything["tracks"]) > len(result["tracks"]) > 0


def test_a_class_that_the_model_does_not_know_is_told_with_the_nearest(served: Served, done: dict[str, Any]) -> None:
    name = served.client.get("/api/about").json()["models"][0]["classes"][0]
    answer = served.client.post("/api/jobs", json={"video": done["video"], "model": "toy", "classes": [f"{name}x"]})
    assert answer.status_code == 422
    assert answer.json()["error"] == f"no class '{name}x'; did you mean '{name}'?"


def test_the_same_wish_is_not_computed_twice(served: Served, done: dict[str, Any]) -> None:
    assert served.submit(done["video"])["id"] == done["id"]
    assert served.submit(done["video"], length=2, stride=1)["id"] != done["id"]


def test_the_example_is_there_once(served: Served) -> None:
    first, second = (served.client.post("/api/example").json() for _ in range(2))
    assert first["id"] == second["id"]
    assert (first["name"], first["frames"]) == ("example", 144)


def test_attention_comes_as_heat_over_other_frames(served: Served, done: dict[str, Any]) -> None:
    models = {model["name"]: model["attends"] for model in served.client.get("/api/about").json()["models"]}
    assert models["attending"]
    assert not models["toy"]  # it has none, and says so before anybody asks
    point = {"frame": 3, "x": 40, "y": 10}
    maps = served.client.post(f"/api/videos/{done['video']}/attention", json={"model": "attending", **point}).json()[
        "maps"
    ]
    assert 3 not in [heat["frame"] for heat in maps]
    assert maps[0]["size"] == [48, 64]
    refused = served.client.post(f"/api/videos/{done['video']}/attention", json={"model": "toy", **point})
    assert (refused.status_code, "no attention modules" in refused.json()["error"]) == (422, True)
    outside = {"model": "attending", "frame": 99, "x": 0, "y": 0}
    assert served.client.post(f"/api/videos/{done['video']}/attention", json=outside).status_code == 422


def test_limits_are_said_before_an_upload_and_held_during_it(served: Served, tmp_path: Path) -> None:
    told = served.client.get("/api/about").json()["limits"]
    assert (told["megabytes"], told["frames"]) == (1, 400)
    before = served.files()
    declared = served.client.post("/api/videos", content=b"x" * 1_000_001)
    assert (declared.status_code, "at most 1 MB" in declared.json()["error"]) == (413, True)

    def unannounced() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 100_000

    streamed = served.client.post("/api/videos", content=unannounced())
    assert (streamed.status_code, "at most 1 MB" in streamed.json()["error"]) == (413, True)
    too_long = served.client.post("/api/videos", content=film(tmp_path / "long.mp4", 401))
    assert (too_long.status_code, "at most 400 frames" in too_long.json()["error"]) == (422, True)
    assert served.client.post("/api/videos", content=b"").status_code == 422
    assert served.files() == before


def test_file_names_are_shown_and_never_become_paths(served: Served, patches: bytes) -> None:
    named = {
        "..%2F..%2Fetc%2Fpasswd": "passwd",
        "C%3A%5Cfilms%5Cdog.mp4": "dog.mp4",
        "%00%0A%1B[31m<b>.mp4": "[31m<b>.mp4",
        "%F0%9F%90%95.mp4": "\N{DOG}.mp4",
        "": "video",
    }
    for header, shown in named.items():
        assert served.upload(patches, header)["name"] == shown
    assert all(set(path) <= set("0123456789abcdefghijklmnopqrstuvwxyz/.-") for path in served.files())


@pytest.mark.parametrize(
    "path",
    ["/page/../server.py", "/page/%2e%2e%2fserver.py", "/page/..%5cserver.py", "/api/videos/..%2f..%2fjobs.sqlite/film",
     "/api/jobs/%2e%2e/result", "/api/jobs/none/events", "/page/nothing.js", "/etc/passwd", "/docs", "/openapi.json"],
)  # fmt: skip
def test_no_address_leads_out_of_the_page(served: Served, path: str) -> None:
    answer = served.client.get(path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}


def test_a_download_of_another_name_or_threshold_is_not_there(served: Served, done: dict[str, Any]) -> None:
    for name in ("result.json.gz", "..%2fjobs.sqlite", "overlay.mp4?threshold=nan", "overlay.mp4?threshold=-1"):
        assert served.client.get(f"/api/jobs/{done['id']}/files/{name}").status_code in (404, 422)


@pytest.mark.parametrize(
    "ask",
    [
        {},
        {"model": "none"},
        {"length": 4},
        {"length": 2, "stride": 3},
        {"length": 1000, "stride": 1},
        {"x": 1},
        {"classes": []},
        {"classes": "dog"},
    ],
)
def test_a_wrong_wish_is_one_line(served: Served, done: dict[str, Any], ask: dict[str, Any]) -> None:
    body = {"video": done["video"], "model": "toy", **ask} if ask else {}
    answer = served.client.post("/api/jobs", json=body)
    assert answer.status_code == 422
    assert "\n" not in answer.json()["error"]


def test_a_full_queue_says_busy_and_when_to_come_back(served: Served, long: bytes) -> None:
    video = served.upload(long)["id"]
    jobs = [served.submit(video, "slow", length=n, stride=1) for n in range(10, 14)]  # one runs, three wait
    for answer in (
        served.client.post("/api/jobs", json={"video": video, "model": "slow", "length": 20, "stride": 1}),
        served.client.post("/api/videos", content=long),
    ):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "busy" in answer.json()["error"]
    assert [served.client.get(f"/api/jobs/{job['id']}").json().get("ahead") for job in jobs[1:]] == [1, 2, 3]
    for job in reversed(jobs):
        assert served.client.delete(f"/api/jobs/{job['id']}").status_code == 204
    until(lambda: all(served.store.job(job["id"]) is None for job in jobs))
    assert served.client.delete(f"/api/videos/{video}").status_code == 204  # it was kept, to be looked at again


def test_the_server_answers_while_a_job_runs(served: Served, done: dict[str, Any], long: bytes) -> None:
    job = served.submit(served.upload(long)["id"], "slow")
    assert served.client.get("/api/videos").status_code == 200
    assert served.client.get(f"/api/jobs/{done['id']}/files/tracks.csv?threshold=0.2").status_code == 200
    assert served.client.get(f"/api/jobs/{job['id']}").json()["state"] == "running"
    served.client.delete(f"/api/jobs/{job['id']}")
    assert served.finish(job)["state"] == "gone" if served.store.job(job["id"]) else True


def test_a_cancelled_job_stops_at_once_and_its_video_can_be_run_with_other_choices(served: Served, long: bytes) -> None:
    video, worker = served.upload(long)["id"], served.jobs.worker_pid
    before = served.files()
    job = served.submit(video, "slow")
    until(lambda: served.client.get(f"/api/jobs/{job['id']}").json().get("done", 0) > 3)
    served.client.delete(f"/api/jobs/{job['id']}")
    until(lambda: served.store.job(job["id"]) is None)
    assert served.files() == before
    assert served.jobs.worker_pid == worker  # it was not needed to end the process
    assert served.finish(served.submit(video, "toy", classes=["red"]))["objects"] == 1


def test_a_step_that_never_ends_is_cancelled_with_its_process(
    served: Served, patches: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tubelet.apps.web.jobs.tasks.GRACE", 0.2)
    video, worker = served.upload(patches)["id"], served.jobs.worker_pid
    before = served.files()
    job = served.submit(video, "stuck")
    until(lambda: served.client.get(f"/api/jobs/{job['id']}").json().get("total", 0) > 0)
    served.client.delete(f"/api/jobs/{job['id']}")
    until(lambda: served.store.job(job["id"]) is None)
    assert served.files() == before
    until(lambda: served.jobs.worker_pid != worker)
    assert served.finish(served.submit(video))["state"] == "done"  # by the next worker


def test_a_fault_of_ours_shows_no_trace(served: Served, patches: bytes) -> None:
    job = served.finish(served.submit(served.upload(patches)["id"], "faulty"))
    assert job["state"] == "failed"
    assert "RuntimeError" in job["error"]
    assert "secret" not in json.dumps(job)
    assert "/home" not in json.dumps(served.client.get("/api/videos").json())


def test_a_job_that_ran_when_the_server_was_killed_runs_again_after_the_restart(
    tmp_path: Path, patches: bytes, long: bytes
) -> None:
    first = Served(tmp_path / "data")
    job = first.submit(first.upload(long)["id"], "slow")
    other = first.submit(first.upload(patches)["id"], "toy")
    until(lambda: first.client.get(f"/api/jobs/{job['id']}").json().get("total", 0) > 0)
    assert first.jobs.worker_pid is not None
    first.jobs._closed = True  # as if this process were gone: nothing is tidied up
    os.kill(first.jobs.worker_pid, signal.SIGKILL)
    first.store.close()
    assert any((tmp_path / "data" / "scratch").iterdir())
    store = Store(tmp_path / "data")
    assert [(j.id, j.state, j.attempts) for j in store.jobs()] == [(job["id"], "queued", 1), (other["id"], "queued", 0)]
    assert not any((tmp_path / "data" / "scratch").iterdir())
    store.close()
    second = Served(tmp_path / "data")
    until(lambda: second.client.get(f"/api/jobs/{job['id']}").json().get("done", 0) > 3)
    second.client.delete(f"/api/jobs/{job['id']}")
    until(lambda: second.store.job(job["id"]) is None)
    assert second.finish(other)["state"] == "done"
    second.close()


def test_a_job_that_was_cancelled_when_the_server_ended_is_gone(tmp_path: Path, patches: bytes) -> None:
    running = Served(tmp_path / "data")
    job = running.submit(running.upload(patches)["id"], "stuck")
    until(lambda: [job.state for job in running.store.jobs()] == ["running"])
    running.client.delete(f"/api/jobs/{job['id']}")
    running.close()
    store = Store(tmp_path / "data")
    assert (store.jobs(), len(store.videos())) == ([], 1)
    store.close()


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background are started without it
sys.path.insert(0, sys.argv[1])
import web_models
from tubelet.apps import cli, opening

if __name__ == "__main__":  # not in the worker, which imports this file too
    opening.load_model = web_models.load_model
    sys.argv = ["tubelet", "serve", "--model", "slow", "--port", "0", "--data", sys.argv[2]]
    cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    ("asked_by", "code", "told"),
    [(signal.SIGINT, 130, ["tubelet: interrupted; nothing half-written is left"]), (signal.SIGTERM, 143, [])],
)
def test_a_signal_ends_the_server_at_once_and_the_running_job_waits_for_the_next_start(
    tmp_path: Path, long: bytes, asked_by: signal.Signals, code: int, told: list[str]
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(Path(__file__).parents[2]), str(tmp_path / "data")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ran = subprocess.Popen(command, **pipes, start_new_session=True)  # type: ignore[call-overload]
    try:
        (address,) = re.findall(r"http://127[^ ]+", ran.stdout.readline())
        with httpx.Client(base_url=address, timeout=WAIT) as asking:
            video = asking.post("/api/videos", content=long, headers={"X-Name": "long.mp4"}).json()["id"]
            job = asking.post("/api/jobs", json={"video": video, "model": "slow"}).json()["id"]
            with asking.stream("GET", f"/api/jobs/{job}/events") as events:  # a page that watches
                assert any('"done": 3' in line or '"done":3' in line for line in events.iter_lines())
                os.killpg(ran.pid, asked_by)  # as a terminal or a supervisor does: the worker hears it too
                _, said = ran.communicate(timeout=120)
    finally:
        ran.kill()
    assert ran.returncode == code
    assert said.splitlines() == [f"tubelet: loading the model; what reads videos sees {sandbox.described()}", *told]
    store = Store(tmp_path / "data")
    assert [(left.id, left.state, left.attempts) for left in store.jobs()] == [(job, "queued", 0)]
    assert not any((tmp_path / "data" / "scratch").iterdir())
    store.close()


def test_old_videos_make_place(tmp_path: Path, patches: bytes, served: Served) -> None:
    store = Store(tmp_path / "data")
    jobs = Jobs(store, Limits(kept=2), web_models.open_model, ["toy"])
    asking = TestClient(server.build(jobs, Access()), base_url="http://127.0.0.1")
    videos = [asking.post("/api/videos", content=patches).json()["id"] for _ in range(3)]
    assert [video.id for video in store.videos()] == [videos[2], videos[1]]
    store.close()


def test_a_model_that_cannot_be_loaded_is_one_line_before_anything_is_served(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    with pytest.raises(InputError, match="nonsense"):
        Jobs(store, LIMITS, os.stat, ["nonsense"]).open()  # stands for a loader: refuses what is not there
    store.close()


def test_the_page_is_small_and_asks_nobody_else() -> None:
    files = assets.assets()
    assert sum(len(asset.body) for asset in files.values()) < 200_000
    for name, asset in files.items():
        text = asset.body.decode().replace("http://www.w3.org/", "")
        assert re.findall(r"https?://\w", text) == [], name
        assert "//cdn" not in text, name


def test_the_page_is_packed_and_not_sent_twice(served: Served) -> None:
    first = served.client.get("/page/player.js", headers={"Accept-Encoding": "gzip"})
    assert first.headers["content-encoding"] == "gzip"
    again = served.client.get("/page/player.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_worker_that_is_taken_down_fails_its_job_alone_and_leaves_nothing(served: Served, patches: bytes) -> None:
    video = served.upload(patches)["id"]
    before = served.files()
    job = served.finish(served.submit(video, "crashing"))
    assert (job["state"], "worker ended" in job["error"]) == ("failed", True)
    assert served.files() == before
    assert served.finish(served.submit(video))["state"] == "done"


@pytest.mark.skipif(
    not sandbox.landlock_version() or not sandbox.has_seccomp(), reason="this kernel has no Landlock or no seccomp"
)
def test_a_hostile_video_finds_no_network_and_no_file_but_the_servers(served: Served, patches: bytes) -> None:
    job = served.finish(served.submit(served.upload(patches)["id"], "prying"))
    assert dict(part.split(": ") for part in job["error"].split("; ")) == {
        "socket": "PermissionError",
        "reading /etc/shadow": "PermissionError",
        "writing outside": "PermissionError",
        "writing to /tmp": "PermissionError",
        "signal": "PermissionError" if sandbox.landlock_version() >= 6 else "fine",
        "a child's socket": "CalledProcessError",
        "temporary file": "fine",
    }


def test_a_video_that_takes_longer_than_is_allowed_is_ended(tmp_path: Path, patches: bytes) -> None:
    with closing(Store(tmp_path)) as store:
        jobs = Jobs(store, Limits(minutes=1), lambda name: None, ["toy"])
        jobs._current = tasks.Segmentation(store, store.add_job(add_film(store), "toy", None, None))
        assert not jobs._is_overdue()
        jobs._deadlines.started -= 61
        assert jobs._is_overdue()
        jobs._replace_worker()
        assert [job.error for job in store.jobs("failed")] == [
            "this took longer than the 1 minutes that a video may take; its files are removed"
        ]


def add_film(store: Store) -> str:
    film = Film(
        id=new_id(), name="a.mp4", example=False, bytes=3, width=64, height=48, frames=6, seconds=0.6, playable=True,
        webm=False, created=1.0,
    )  # fmt: skip
    with store.scratch() as folder:
        store.add_video(film, folder)
    return film.id


def test_the_command_says_where_it_listens_and_ends_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def workers() -> set[int | None]:
        return {child.pid for child in multiprocessing.active_children()}

    def run(app: Any, listener: Any, **settings: Any) -> None:
        asking = TestClient(app, base_url="http://127.0.0.1")
        assert [model["name"] for model in asking.get("/api/about").json()["models"]] == ["toy", "slow"]
        assert len(workers() - before) == 1

    before = workers()
    monkeypatch.setattr("tubelet.apps.opening.load_model", web_models.load_model)
    monkeypatch.setattr("tubelet.apps.serve.run", run)
    wish = ["--port", "0", "--data", str(tmp_path / "data"), "--model", "toy", "--model", "slow"]
    assert cli.call(["serve", *wish]) == 0
    assert re.search(r"open http://127\.0\.0\.1:\d+/ ", capsys.readouterr().out)
    assert workers() == before
    Store(tmp_path / "data").close()  # the folder is free again


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tubelet.apps.serve.find_spec", lambda name: None)
    assert cli.call(["serve"]) == 2
    assert "pip install 'tubelet[web]'" in capsys.readouterr().err
