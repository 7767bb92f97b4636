"""A link to a result shows it to whoever has it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tubelet.apps.web.jobs.store import Job
from tubelet.apps.web.links import PUBLIC
from user_fixtures import DOCUMENT, Page, page, user


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Page]:
    with page(tmp_path, user("anna"), user("bob")) as running:
        yield running


@pytest.fixture
def job(served: Page) -> Job:
    return served.add_result(served.add_film("anna", "a secret name.mp4"))


def share(served: Page, job: Job) -> str:
    """The word of a job's link."""
    answer = served.client("anna").post(f"/api/jobs/{job.id}/link")
    assert answer.status_code == 201
    return answer.json()["address"].rpartition("/")[2]


def test_whoever_has_the_link_sees_the_result_and_the_film_without_a_token(served: Page, job: Job) -> None:
    word = share(served, job)
    guest = served.client(None)
    assert "shared.js" in guest.get(f"/shared/{word}").text
    assert guest.get(f"/api/shared/{word}/result").json() == DOCUMENT
    assert guest.get(f"/api/shared/{word}/film").content == b"not much."
    assert guest.get("/page/shared.js").status_code == 200


def test_a_link_gives_no_token_and_tells_no_name(served: Page, job: Job) -> None:
    word = share(served, job)
    guest = served.client(None)
    answers = [
        guest.get(path) for path in (f"/shared/{word}", f"/api/shared/{word}/result", f"/api/shared/{word}/film")
    ]
    assert not any("set-cookie" in answer.headers for answer in answers)
    assert not any(b"secret name" in answer.content or b"anna" in answer.content for answer in answers)
    assert not any("secret" in str(answer.headers) for answer in answers)
    for path in ("/", "/api/about", "/api/videos", f"/api/jobs/{job.id}", f"/api/jobs/{job.id}/result"):
        assert guest.get(path).status_code == 401


def test_behind_a_link_nothing_can_be_changed_or_taken_home(served: Page, job: Job) -> None:
    word = share(served, job)
    guest = served.client(None)
    for path in ("", "/edits", "/undo", "/redo", "/seen", "/follow", "/files/overlay.mp4", "/link", "/result", "/film"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert guest.request(method, f"/api/shared/{word}{path}", json={}).status_code in (401, 404, 405), path
    for path in ("/edits", "/files/predictions.json", "/doubts", "/events"):
        assert guest.get(f"/api/shared/{word}{path}").status_code == 404
    assert served.store.steps(job.id) == []


def test_no_route_that_a_stranger_reaches_does_more_than_read(served: Page) -> None:
    app: Any = served.app
    while hasattr(app, "app"):
        app = app.app
    reached = {(route.path, *sorted(route.methods)) for route in app.routes if route.path.startswith(PUBLIC)}
    assert reached == {
        ("/page/{name}", "GET"),
        ("/shared/{word}", "GET"),
        ("/api/shared/{word}/result", "GET"),
        ("/api/shared/{word}/film", "GET"),
    }


def test_an_edited_result_is_shown_as_it_is_now(served: Page, job: Job) -> None:
    word = share(served, job)
    edit = {"kind": "delete", "track": 1}
    assert served.client("anna").post(f"/api/jobs/{job.id}/edits?revision=0", json=edit).status_code == 200
    assert served.client(None).get(f"/api/shared/{word}/result").json()["tracks"] == []
    assert served.client("anna").post(f"/api/jobs/{job.id}/undo?revision=1").status_code == 200
    shown = served.client(None).get(f"/api/shared/{word}/result", headers={"Accept-Encoding": "identity"}).json()
    assert [track["counts"] for track in shown["tracks"]] == [DOCUMENT["tracks"][0]["counts"]]  # type: ignore[index]


def test_a_link_that_was_withdrawn_shows_nothing_and_a_new_one_has_another_word(served: Page, job: Job) -> None:
    word = share(served, job)
    assert share(served, job) == word  # a result has one link
    assert served.client("anna").get(f"/api/jobs/{job.id}/link").json() == {"address": f"/shared/{word}"}
    assert served.client("anna").delete(f"/api/jobs/{job.id}/link").status_code == 204
    for path in (f"/shared/{word}", f"/api/shared/{word}/result", f"/api/shared/{word}/film"):
        answer = served.client(None).get(path)
        assert (answer.status_code, answer.json()["error"]) == (404, "this link shows nothing, or was withdrawn")
    assert served.client("anna").get(f"/api/jobs/{job.id}/link").json() == {"address": None}
    assert share(served, job) != word


def test_only_the_owner_makes_and_withdraws_a_link(served: Page, job: Job) -> None:
    word = share(served, job)
    for method in ("GET", "POST", "DELETE"):
        assert served.client("bob").request(method, f"/api/jobs/{job.id}/link").status_code == 404
    assert served.client(None).get(f"/shared/{word}").status_code == 200


def test_a_link_goes_with_its_result_and_survives_a_restart(tmp_path: Path) -> None:
    with page(tmp_path, user("anna")) as served:
        job = served.add_result(served.add_film("anna"))
        word = share(served, job)
    with page(tmp_path, user("anna")) as served:
        assert served.client(None).get(f"/api/shared/{word}/result").status_code == 200
        assert served.client("anna").delete(f"/api/jobs/{job.id}").status_code == 204
        assert served.client(None).get(f"/api/shared/{word}/result").status_code == 404


@pytest.mark.parametrize("word", ["x", "../../api/videos", "%2e%2e%2fabout", "ä", "0" * 300])
def test_a_word_that_is_none_leads_nowhere(served: Page, job: Job, word: str) -> None:
    share(served, job)
    for path in (f"/shared/{word}", f"/api/shared/{word}/result"):
        assert served.client(None).get(path).status_code in (401, 404)
