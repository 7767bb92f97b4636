"""Editing a result through the server: each step is stored, a stale one refused; downloads hold what was edited."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

import web_models
from toy import moving_patches
from tubelet.apps.web import exports, server
from tubelet.apps.web.guard import Access
from tubelet.apps.web.jobs import edited
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.room import room_for
from tubelet.apps.web.jobs.store import Store
from tubelet.apps.web.jobs.worker import Message
from tubelet.apps.web.limits import Limits
from tubelet.formats import registry
from tubelet.video.writer import VideoWriter

LENGTH, SIZE = 8, (48, 64)
SQUARE = {"size": list(SIZE), "polygon": [[10, 10], [20, 10], [20, 20], [10, 20]]}


class Served:
    """A running server with one finished job: tracks 0 (red) and 1 (blue), both in all frames."""

    def __init__(self, root: Path, film: bytes) -> None:
        self.root = root
        self.open()
        video = self.client.post("/api/videos", content=film, headers={"X-Name": "patches.mp4"}).json()["id"]
        self.job = self.client.post("/api/jobs", json={"video": video, "model": "following"}).json()["id"]
        self.client.get(f"/api/jobs/{self.job}/events")

    def open(self) -> None:
        self.store = Store(self.root)
        self.jobs = Jobs(self.store, Limits(), web_models.open_model, ["following"], room_for(self.root, Limits(), ()))
        self.jobs.open()
        self.client = TestClient(server.build(self.jobs, Access()), base_url="http://127.0.0.1")

    def close(self) -> None:
        self.jobs.close()
        self.store.close()

    @property
    def state(self) -> dict[str, Any]:
        return self.client.get(f"/api/jobs/{self.job}/edits").json()

    def send(self, revision: int | None = None, **edit: Any) -> httpx.Response:
        revision = self.state["revision"] if revision is None else revision
        return self.client.post(f"/api/jobs/{self.job}/edits?revision={revision}", json=edit)

    def step(self, name: str) -> httpx.Response:
        return self.client.post(f"/api/jobs/{self.job}/{name}?revision={self.state['revision']}")

    def see(self, *spans: list[int]) -> httpx.Response:
        return self.client.put(f"/api/jobs/{self.job}/seen", json={"frames": spans})

    def file(self, name: str, **wish: Any) -> httpx.Response:
        return self.client.get(f"/api/jobs/{self.job}/files/{name}", params=wish)

    def reset(self) -> None:
        """A result without edits."""
        for table in ("steps", "seen"):
            self.store._list.change(f"DELETE FROM {table}")
        self.client = TestClient(server.build(self.jobs, Access()), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("film") / "patches.mp4"
    with VideoWriter(path, SIZE, 10) as writer:
        for frame in moving_patches(LENGTH):
            writer.write(frame)
    served = Served(tmp_path_factory.mktemp("server"), path.read_bytes())
    yield served
    served.close()


@pytest.fixture
def served(running: Served) -> Served:
    running.reset()
    return running


def test_an_edit_is_answered_with_the_changed_tracks_and_the_list_of_edits(served: Served) -> None:
    answer = served.send(kind="split", track=0, at=3, new=served.state["next"]).json()
    assert (answer["revision"], answer["edits"], answer["ids"]) == (1, ["split 0 at frame 3"], [0, 1, 2])
    seen = {track["id"]: [t for t, counts in enumerate(track["counts"]) if counts] for track in answer["tracks"]}
    assert seen == {0: [0, 1, 2], 2: [3, 4, 5, 6, 7]}


def test_a_drawn_outline_is_marked_and_a_new_class_is_listed(served: Served) -> None:
    answer = served.send(kind="add", new=2, name="goat", frame=4, mask=SQUARE).json()
    (added,) = answer["tracks"]
    assert (added["name"], added["score"], added["drawn"]) == ("goat", 1.0, [4])
    assert answer["classes"][-1] == "goat"


def test_undo_gives_back_the_model_s_result_and_redo_does_it_again(served: Served) -> None:
    served.send(kind="delete", track=0)
    undone = served.step("undo").json()
    assert (undone["ids"], undone["edits"], undone["redo"]) == ([0, 1], [], "delete 0")
    assert [track["id"] for track in undone["tracks"]] == [0]
    assert served.step("redo").json()["ids"] == [1]
    nothing = served.step("redo")
    assert (nothing.status_code, nothing.json()["error"]) == (422, "there is nothing to redo")


def test_the_model_s_result_stays_as_it_is(served: Served) -> None:
    before = served.client.get(f"/api/jobs/{served.job}/result").content
    served.send(kind="delete", track=0)
    assert served.client.get(f"/api/jobs/{served.job}/result").content == before


def test_an_edit_of_an_older_revision_is_refused_and_changes_nothing(served: Served) -> None:
    served.send(kind="delete", track=0)
    late = served.send(revision=0, kind="delete", track=1)
    assert late.status_code == 409
    assert "changed in another tab" in late.json()["error"]
    assert served.state["ids"] == [1]


def test_edits_with_undo_and_redo_survive_a_restart(served: Served) -> None:
    served.send(kind="swap", track=0, other=1, first=3)
    served.send(kind="rename", track=0, name="goat")
    served.send(kind="delete", track=1)
    served.step("undo")
    served.see([0, 3], [6, 6])
    before = served.state
    served.close()
    served.open()
    assert served.state == before
    assert served.step("redo").json()["ids"] == [0]
    assert [served.step("undo").json()["edits"] for _ in range(3)][-1] == []


def test_edits_go_with_their_job(served: Served) -> None:
    job = served.client.post(
        "/api/jobs", json={"video": served.store.videos()[0].id, "model": "following", "length": 2, "stride": 1}
    ).json()["id"]
    served.client.get(f"/api/jobs/{job}/events")
    served.client.post(f"/api/jobs/{job}/edits?revision=0", json={"kind": "delete", "track": 0})
    served.client.put(f"/api/jobs/{job}/seen", json={"frames": [[0, 1]]})
    served.client.delete(f"/api/jobs/{job}")
    assert (served.store.steps(job), served.store.seen(job)) == ([], [])
    gone = served.client.post(f"/api/jobs/{job}/edits?revision=1", json={"kind": "delete", "track": 1})
    assert (gone.status_code, gone.json()["error"]) == (404, "there is no such thing here, or it was removed")


def test_what_was_seen_of_a_removed_job_has_nowhere_to_go(served: Served) -> None:
    with pytest.raises(KeyError):
        served.store.set_seen("0" * 16, [(0, 3)])


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        ({"kind": "delete", "track": 9}, "no track with the id 9"),
        ({"kind": "fly"}, "unknown kind 'fly'"),
        ({"kind": "merge", "track": 0, "other": 1}, "both present in 8 frames"),
        ({"kind": "redraw", "track": 0, "frame": 99, "mask": SQUARE}, "a frame"),
        ({"kind": "redraw", "track": 0, "frame": 0, "mask": {"size": [48, 64], "polygon": [[0, 0], [5, 5]]}}, "three"),
        (
            {"kind": "redraw", "track": 0, "frame": 0, "mask": {**SQUARE, "polygon": [[70, 1], [80, 1], [80, 9]]}},
            "inside the frame",
        ),
        ({"kind": "redraw", "track": 0, "frame": 0, "mask": {**SQUARE, "size": [40, 40]}}, "of size [48, 64]"),
        ({"kind": "redraw", "track": 0, "frame": 0, "mask": {"size": [48, 64], "counts": "?"}}, "mask"),
        ({"kind": "rename", "track": 0, "name": ""}, "name"),
        ({"kind": "rename", "track": 0, "name": "x" * 101}, "name"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused_in_one_line(served: Served, edit: dict[str, Any], line: str) -> None:
    answer = served.send(**edit)
    assert answer.status_code == 422, answer.text
    assert line in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert served.state["revision"] == 0


@pytest.mark.parametrize("body", ["[]", "3", '"undo"', "{", "[" * 2000])
def test_what_is_no_edit_is_refused(served: Served, body: str) -> None:
    answer = served.client.post(f"/api/jobs/{served.job}/edits?revision=0", content=body)
    assert answer.status_code in (400, 422)


def test_a_body_is_bounded(served: Served) -> None:
    mask = {"size": list(SIZE), "counts": "0" * 200_000}
    assert served.send(kind="redraw", track=0, frame=0, mask=mask).status_code == 413


def test_another_page_cannot_edit(served: Served) -> None:
    paths = [("POST", "edits?revision=0"), ("POST", "undo?revision=0"), ("PUT", "seen")]
    for method, path in paths:
        answer = served.client.request(
            method,
            f"/api/jobs/{served.job}/{path}",
            json={"kind": "delete", "track": 0},
            headers={"Origin": "http://evil.example"},
        )
        assert answer.status_code == 403, path


def test_the_list_of_edits_is_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edited, "MOST_STEPS", 2)
    for name in ("goat", "cow"):
        served.send(kind="rename", track=0, name=name)
    answer = served.send(kind="rename", track=0, name="dog")
    assert answer.status_code == 422
    assert "edited as often as is possible" in answer.json()["error"]


def test_on_a_full_disk_an_edit_is_refused_and_not_shown(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(served.store._list, "add", full)
    answer = served.send(kind="delete", track=0)
    assert (answer.status_code, answer.json()["error"]) == (507, "the server's disk is full")
    assert served.state["ids"] == [0, 1]
    monkeypatch.undo()
    assert served.send(kind="delete", track=0).json()["ids"] == [1]


def test_seen_frames_are_added_up_and_must_be_of_the_video(served: Served) -> None:
    assert served.see([0, 2]).json()["seen"] == [[0, 2]]
    assert served.see([2, 4], [7, 7]).json()["seen"] == [[0, 4], [7, 7]]
    assert served.see([5, 8]).status_code == 422
    assert served.see([-1, 2]).status_code == 422
    assert served.state["seen"] == [[0, 4], [7, 7]]


def test_the_doubtful_places_are_those_of_the_edited_result(served: Served) -> None:
    served.send(kind="delete", track=0, first=1, last=6)
    places = served.client.get(f"/api/jobs/{served.job}/doubts").json()
    assert {"frame": 7, "tracks": [0], "reason": "gap"} in places
    assert served.client.get(f"/api/jobs/{served.job}/doubts?threshold=0.95").json() == []


def test_downloads_hold_the_edited_result(served: Served) -> None:
    assert len(served.file("predictions.json").json()["annotations"]) == 2
    served.send(kind="delete", track=0)
    assert len(served.file("predictions.json").json()["annotations"]) == 1
    served.send(kind="rename", track=1, name="goat")
    assert "goat" in served.file("tracks.csv").text
    served.step("undo")
    assert "goat" not in served.file("tracks.csv").text


def test_labelled_data_hold_the_seen_frames_or_all(served: Served) -> None:
    none = served.file("labels.zip")
    assert (none.status_code, "no frame of it has been looked at" in none.json()["error"]) == (422, True)
    served.see([0, 2])
    archive = zipfile.ZipFile(io.BytesIO(served.file("labels.zip").content))
    document = json.loads(archive.read("instances.json"))
    assert document["videos"][0]["length"] == 3
    assert len([name for name in archive.namelist() if name.endswith((".jpg", ".png"))]) == 3
    archive = zipfile.ZipFile(io.BytesIO(served.file("labels.zip", form="davis", frames="all").content))
    assert len([name for name in archive.namelist() if "Annotations" in name and name.endswith(".png")]) == LENGTH


def test_every_form_of_labelled_data_that_is_offered_can_be_written() -> None:
    assert all(registry.FORMS[form].write is not None for form in exports.LABEL_FORMS)


@pytest.mark.parametrize("wish", [{"form": "../x"}, {"frames": "some"}, {"threshold": "nan"}, {"threshold": 0.01}])
def test_a_wish_that_nobody_offers_is_refused(served: Served, wish: dict[str, Any]) -> None:
    assert served.file("labels.zip", **wish).status_code == 422


# following


def followed(served: Served, **wish: Any) -> list[dict[str, Any]]:
    """The lines of an answer."""
    wish = {"revision": served.state["revision"], **wish}
    answer = served.client.post(f"/api/jobs/{served.job}/follow", json=wish)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_an_object_is_followed_both_ways_and_that_is_one_edit(served: Served) -> None:
    whole = served.client.get(f"/api/jobs/{served.job}/result").json()["tracks"][0]["counts"]
    served.send(kind="delete", track=0, first=0, last=2)
    served.send(kind="delete", track=0, first=5, last=7)
    *progress, last = followed(served, track=0, frame=3)
    assert [line["frame"] for line in progress] == [4, 5, 6, 7, 2, 1, 0]
    assert [(line["done"], line["total"]) for line in progress] == [(n, 7) for n in range(1, 8)]
    assert last["state"]["edits"][-1] == "follow 0 in frames 0 to 7"
    (track,) = last["state"]["tracks"]
    assert track["counts"] == whole
    assert served.step("undo").json()["edits"] == ["delete 0 in frames 0 to 2", "delete 0 in frames 5 to 7"]


def test_following_ends_at_the_next_frame_drawn_by_hand(served: Served) -> None:
    served.send(kind="redraw", track=0, frame=5, mask=SQUARE)
    *progress, _ = followed(served, track=0, frame=3, ways="on")
    assert [line["frame"] for line in progress] == [4]


@pytest.fixture
def meanwhile(served: Served, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something done when the first mask of the object that is followed next has been found."""
    ask = served.jobs.ask

    def do(act: Callable[[], object]) -> None:
        def asked(errand: Message, timeout: float, address: str, hear: Callable[[Message], None], stop: Any) -> Message:
            acts = [act]

            def heard(progress: Message) -> None:
                hear(progress)
                if acts:
                    acts.pop()()

            return ask(errand, timeout, address, heard, stop)

        monkeypatch.setattr(served.jobs, "ask", asked)

    return do


def test_what_was_found_until_it_is_stopped_is_the_edit(served: Served, meanwhile: Any) -> None:
    meanwhile(lambda: served.client.delete(f"/api/jobs/{served.job}/follow"))
    *progress, last = followed(served, track=1, frame=0, ways="on")  # blue takes its time
    assert 0 < len(progress) < 7
    assert last["state"]["edits"] == [f"follow 1 in frames 0 to {progress[-1]['frame']}"]


def test_two_objects_of_a_result_are_not_followed_at_once(served: Served, meanwhile: Any) -> None:
    refused: list[httpx.Response] = []
    second = {"revision": 0, "track": 0, "frame": 0}
    meanwhile(lambda: refused.append(served.client.post(f"/api/jobs/{served.job}/follow", json=second)))
    followed(served, track=1, frame=0)
    (answer,) = refused
    assert (answer.status_code, "being followed already" in answer.json()["error"]) == (409, True)
    meanwhile(lambda: None)
    assert followed(served, track=0, frame=0)[-1]["state"]["revision"] == 2


@pytest.mark.parametrize(
    ("wish", "line"),
    [
        ({"track": 9, "frame": 0}, "no track with the id 9"),
        ({"track": 0, "frame": 99}, "a frame"),
        ({"track": 0, "frame": 7, "ways": "on"}, "no frame to follow to"),
        ({"track": 0, "frame": 0, "revision": 5}, "changed in another tab"),
        ({"track": 0, "frame": 0, "ways": "up"}, "not of the form"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_one_line(served: Served, wish: dict[str, Any], line: str) -> None:
    answer = served.client.post(f"/api/jobs/{served.job}/follow", json={"revision": 0, **wish})
    assert answer.status_code in (409, 422)
    assert line in answer.json()["error"]


def test_an_edit_in_the_meantime_is_not_overwritten(served: Served, meanwhile: Any) -> None:
    meanwhile(lambda: served.send(kind="delete", track=1))
    *_, last = followed(served, track=1, frame=0)
    assert "changed in another tab" in last["error"]
    assert served.state["edits"] == ["delete 1"]


def test_edits_are_in_step_with_a_mask_that_was_drawn(served: Served) -> None:
    """A mask of the page's run-length code, and one of a polygon, are the same for a rectangle."""
    from tubelet.core import masks

    mask = np.zeros((1, *SIZE), bool)
    mask[0, 10:20, 10:20] = True
    code = masks.to_json(masks.encode(mask)[0])
    first = served.send(kind="redraw", track=0, frame=0, mask=code).json()["tracks"][0]["counts"][0]
    second = served.send(kind="redraw", track=0, frame=1, mask=SQUARE).json()["tracks"][0]["counts"][1]
    assert first == second
