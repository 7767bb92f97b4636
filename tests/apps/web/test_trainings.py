"""A model that learns from results on the page: queued, stopped and continued, measured, and served afterwards."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

import web_models
from toy import moving_patches
from tubelet.apps.web import server
from tubelet.apps.web.guard import Access
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.room import room_for
from tubelet.apps.web.jobs.store import Store
from tubelet.apps.web.limits import Limits
from tubelet.models import weights
from tubelet.models.weights import BUNDLED
from tubelet.video.writer import VideoWriter

LENGTH, SIZE = 6, (48, 64)
LIMITS = Limits(waiting=2)


class Served:
    """A running server with results of three videos that a toy has segmented, and the bundled model to be taught."""

    def __init__(self, root: Path, film: bytes) -> None:
        self.root = root
        self.open()
        self.results = [self.segmented(film, name) for name in ("one.mp4", "two.mp4", "two.mp4")]

    def open(self) -> None:
        self.store = Store(self.root)
        self.jobs = Jobs(
            self.store, LIMITS, web_models.open_model, ["following", "default"], room_for(self.root, LIMITS, ())
        )
        self.jobs.open()
        self.client = TestClient(server.build(self.jobs, Access()), base_url="http://127.0.0.1")

    def close(self) -> None:
        self.jobs.close()
        self.store.close()

    def segmented(self, film: bytes, name: str) -> str:
        video = self.client.post("/api/videos", content=film, headers={"X-Name": name}).json()["id"]
        job = self.client.post("/api/jobs", json={"video": video, "model": "following"}).json()["id"]
        self.client.get(f"/api/jobs/{job}/events")
        return str(job)

    def see(self, job: str, last: int) -> None:
        self.client.put(f"/api/jobs/{job}/seen", json={"frames": [[0, last]]})

    def teach(self, name: str, results: list[str] | None = None, **more: Any) -> httpx.Response:
        wish = {"name": name, "model": "default", "results": results or self.results, "steps": 1, **more}
        return self.client.post("/api/trainings", json=wish)

    def finish(self, address: str) -> dict[str, Any]:
        """A training when it has stopped, failed or ended."""
        lines = self.client.get(f"{address}/events").text.splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        return {**events[-1], "stages": [event.get("stage") for event in events]}

    def models(self) -> list[str]:
        return [model["name"] for model in self.client.get("/api/about").json()["models"]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("film") / "patches.mp4"
    with VideoWriter(path, SIZE, 10) as writer:
        for frame in moving_patches(LENGTH):
            writer.write(frame)
    running = Served(tmp_path_factory.mktemp("server"), path.read_bytes())
    yield running
    running.close()


@pytest.fixture
def quiet(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The server with a queue that starts nothing."""
    monkeypatch.setattr(served.jobs, "_start_next", lambda: None)
    return served


@pytest.fixture(scope="module")
def taught(served: Served) -> dict[str, Any]:
    """A training of one step from three videos that is done."""
    for job in served.results:
        served.see(job, LENGTH - 1)
    return served.finish(f"/api/trainings/{served.teach('My patches').json()['id']}")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.02)


def refusal(answer: httpx.Response) -> str:
    assert answer.status_code == 422, answer.text
    line = str(answer.json()["error"])
    assert "\n" not in line
    return line


def test_frames_that_nobody_has_seen_are_not_learned_from(quiet: Served) -> None:
    assert "one.mp4: no frame of it has been looked at" in refusal(quiet.teach("unseen"))
    assert quiet.client.get("/api/trainings").json() == []


def test_fewer_frames_than_can_teach_are_refused_at_once(quiet: Served) -> None:
    quiet.see(quiet.results[0], 1)
    assert "2 frames are too few to learn from: look at more than 5" in refusal(quiet.teach("Few", quiet.results[:1]))
    assert quiet.client.get("/api/trainings").json() == []


def test_a_training_ends_with_figures_pictures_and_a_model(served: Served, taught: dict[str, Any]) -> None:
    assert (taught["state"], taught["error"]) == ("done", None)
    assert "training" in taught["stages"]
    summary = taught["summary"]
    assert summary["held_out"] == "1 of 3 videos"
    assert set(summary["before"]) == set(summary["after"]) == {"AP50", "IDF1", "mean"}
    assert len(summary["pictures"]) == 4
    for side in ("before", "after"):
        answer = served.client.get(f"/api/trainings/{taught['id']}/pictures/{side}/3")
        assert answer.content[:3] == b"\xff\xd8\xff"
    until(lambda: "My patches" in served.models())


def test_the_curve_has_the_losses_and_the_validation(served: Served, taught: dict[str, Any]) -> None:
    rows = served.client.get(f"/api/trainings/{taught['id']}/curve").json()
    assert [row["step"] for row in rows] == [0, 1, 1]
    assert "validation_overall" in rows[0]  # of the model as it was
    assert {"loss", "validation_overall"} <= rows[1].keys() | rows[2].keys()


def test_checkpoints_and_labels_go_at_the_end(served: Served, taught: dict[str, Any]) -> None:
    folder = served.store.trainings.folder(taught["id"])
    assert not (folder / "labels").exists()
    assert not (folder / "run" / "checkpoints").exists()


def test_the_new_model_segments_and_can_be_downloaded(served: Served, taught: dict[str, Any], tmp_path: Path) -> None:
    until(lambda: "My patches" in served.models())
    video = served.store.videos()[0].id
    job = served.client.post("/api/jobs", json={"video": video, "model": "My patches"}).json()["id"]
    served.client.get(f"/api/jobs/{job}/events")
    assert served.client.get(f"/api/jobs/{job}").json()["state"] == "done"

    (model,) = served.client.get("/api/models").json()
    answer = served.client.get(f"/api/models/{model['id']}/file")
    assert 'filename="My-patches.safetensors"' in answer.headers["content-disposition"]
    (tmp_path / "mine.safetensors").write_bytes(answer.content)
    learned = weights.load(tmp_path / "mine.safetensors", device="cpu", engine="torch")
    assert {"person", "blue"} <= set(learned.classes)


def test_without_a_gain_there_is_no_new_model(served: Served, taught: dict[str, Any]) -> None:
    training = served.teach("No better", served.results[:1]).json()
    ended = served.finish(f"/api/trainings/{training['id']}")
    assert (ended["state"], ended["summary"]["gain"]) == ("done", False)
    assert "No better" not in served.models()
    assert [model["name"] for model in served.client.get("/api/models").json()] == ["My patches"]
    served.client.delete(f"/api/trainings/{training['id']}")


def test_a_name_that_exists_or_cannot_be_is_refused_in_one_line(quiet: Served, taught: dict[str, Any]) -> None:
    assert "there is a model called 'my Patches' already" in refusal(quiet.teach("my Patches"))
    assert "there is a model called 'default' already" in refusal(quiet.teach("default"))
    for name in ("../../etc", "", " ", "a/b", "x" * 61, "line\nfeed"):
        assert "1 to 60 letters" in refusal(quiet.teach(name))


def test_what_cannot_learn_or_is_gone_is_refused(quiet: Served, taught: dict[str, Any]) -> None:
    assert "cannot be taught" in refusal(quiet.teach("toy", model="following"))
    assert quiet.teach("gone", [*quiet.results, "0123456789abcdef"]).status_code == 404
    wish = {"name": "none", "model": "default", "results": []}
    assert quiet.client.post("/api/trainings", json=wish).status_code == 422


def test_too_few_frames_fail_in_one_line(served: Served) -> None:
    served.see(served.results[0], LENGTH - 1)
    id = served.teach("Few", served.results[:1], threshold=1).json()["id"]  # nothing scores that high
    failed = served.finish(f"/api/trainings/{id}")
    assert failed["state"] == "failed"
    assert "no object is seen in the frames that are held out, or in the others" in failed["error"]
    assert not failed["can_go_on"]
    served.client.delete(f"/api/trainings/{id}")


def test_a_full_queue_takes_no_training(quiet: Served, taught: dict[str, Any]) -> None:
    asked = [quiet.teach(name) for name in ("first", "second", "third")]
    assert [answer.status_code for answer in asked] == [201, 201, 503]
    assert "Retry-After" in asked[2].headers
    for training in quiet.store.trainings.all("queued"):
        quiet.jobs.remove_training(training)
    assert len(list((quiet.root / "trainings").iterdir())) == 1


def test_a_model_that_is_uploaded_is_loaded_as_any_other_and_goes_when_it_is_removed(served: Served) -> None:
    def send(data: bytes, name: str) -> httpx.Response:
        return served.client.post("/api/models", content=data, headers={"X-Name": name})

    bundled = (BUNDLED / "default.safetensors").read_bytes()
    sent = send(bundled, "Uploaded.safetensors")
    assert sent.status_code == 201, sent.text
    assert (sent.json()["name"], sent.json()["loaded"]) == ("Uploaded", True)
    assert "Uploaded" in served.models()
    assert "there is a model called" in refusal(send(bundled, "uploaded"))

    served.client.delete(f"/api/models/{sent.json()['id']}")
    assert "Uploaded" not in served.models()
    pickled = refusal(send(b"\x80\x04K\x01.", "pickle.safetensors"))
    assert str(served.root) not in pickled
    assert "pickle" in pickled
    assert [model["name"] for model in served.client.get("/api/models").json() if model["name"] != "My patches"] == []
    assert list((served.root / "scratch").iterdir()) == []


def test_a_stopped_training_goes_on_from_its_checkpoint(served: Served) -> None:
    """Of one video: some of its frames are held out."""
    served.see(served.results[0], LENGTH - 1)
    address = f"/api/trainings/{served.teach('Stopped', served.results[:1], steps=200).json()['id']}"
    until(lambda: served.client.get(address).json().get("stage") == "training")
    served.client.post(f"{address}/stop")
    stopped = served.finish(address)
    assert stopped["state"] == "stopped"

    folder = served.store.trainings.folder(stopped["id"])
    (checkpoint,) = (folder / "run" / "checkpoints").iterdir()
    step = int(re.findall(r"\d+", checkpoint.name)[0])
    assert step >= 1
    served.client.post(f"{address}/continue")
    until(lambda: served.client.get(address).json().get("done", 0) > step)
    served.client.delete(address)
    assert served.finish(address)["state"] == "gone"
    assert not folder.exists()
