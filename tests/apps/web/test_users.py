"""Users of a server: who is let in, what each sees, and how much each may use."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tubelet.apps import cli, serve
from tubelet.apps.web.guard import Access
from tubelet.apps.web.jobs import quotas
from tubelet.apps.web.jobs.store import DAY
from tubelet.apps.web.limits import Limits
from tubelet.apps.web.users import User, hash_of, read_users
from tubelet.core.errors import InputError
from user_fixtures import Page, page, token_of, user


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Page]:
    with page(tmp_path, user("anna"), user("bob", megabytes=1, waiting=1, jobs_a_day=2)) as running:
        yield running


def everything_of(served: Page, owner: str) -> dict[str, str]:
    """One thing of each kind: kind -> id."""
    film = served.add_film(owner)
    return {
        "videos": film.id,
        "jobs": served.add_result(film).id,
        "trainings": served.add_training(owner).id,
        "models": served.add_model(owner).id,
    }


def routes_with_ids(served: Page) -> list[tuple[str, str]]:
    """Method and path of every route that takes the id of something."""
    app: Any = served.app
    while hasattr(app, "app"):
        app = app.app
    return [
        (method, route.path)
        for route in app.routes
        for method in sorted(route.methods - {"HEAD"})
        if "{id}" in route.path
    ]


# who is let in


def test_each_token_is_that_of_one_user_and_no_other_token_is_let_in(served: Page) -> None:
    assert [served.client(name).get("/api/about").json()["user"] for name in ("anna", "bob")] == ["anna", "bob"]
    assert served.client("carol").get("/api/about").status_code == 401
    assert served.client(None).get("/").status_code == 401


def test_a_users_token_travels_once_in_the_address_and_then_as_their_cookie(served: Page) -> None:
    asking = served.client(None)
    assert asking.get("/", params={"token": token_of("bob")}).status_code == 303
    assert asking.get("/api/about").json()["user"] == "bob"


def test_hashes_of_all_users_are_compared_in_constant_time(served: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    compare: Callable[[str, str], bool] = secrets.compare_digest
    monkeypatch.setattr(secrets, "compare_digest", lambda a, b: (seen.append((a, b)), compare(a, b))[1])
    served.client("anna").get("/api/about")
    assert seen == [(hash_of(token_of("anna")), hash_of(token_of(name))) for name in ("anna", "bob")]


def test_without_a_file_of_users_the_one_token_sees_everything(tmp_path: Path) -> None:
    with page(tmp_path) as running:
        running.add_film("")
        running.add_film("anna")
        about = running.client(None).get("/api/about").json()
        assert about["user"] == ""
        assert len(running.client(None).get("/api/videos").json()) == 2


# what each sees


def test_what_belongs_to_another_is_not_found_by_any_route(served: Page) -> None:
    ids = everything_of(served, "anna")
    routes = routes_with_ids(served)
    assert len(routes) > 20
    for method, path in routes:
        kind = path.split("/")[2]
        others = path.replace("{id}", ids[kind]).format(name="tracks.csv", side="before", number=0)
        nobodys = path.replace("{id}", "0" * 16).format(name="tracks.csv", side="before", number=0)
        asked = served.client("bob").request(method, others, json={})
        missing = served.client("bob").request(method, nobodys, json={})
        assert (asked.status_code, asked.content) == (404, missing.content), path

    assert served.client("anna").get(f"/api/jobs/{ids['jobs']}").status_code == 200
    assert len(served.client("anna").get("/api/videos").json()) == 1  # nothing was removed


def test_lists_show_what_is_the_users_own(served: Page) -> None:
    everything_of(served, "anna")
    for kind in ("videos", "trainings", "models"):
        assert [len(served.client(name).get(f"/api/{kind}").json()) for name in ("anna", "bob")] == [1, 0]
    models = [[m["name"] for m in served.client(n).get("/api/about").json()["models"]] for n in ("anna", "bob")]
    assert models == [["default", "anna/birds"], ["default"]]


def test_a_body_that_names_what_belongs_to_another_is_refused(served: Page) -> None:
    ids = everything_of(served, "anna")
    own = served.add_film("bob")
    bob = served.client("bob")
    assert bob.post("/api/jobs", json={"video": ids["videos"], "model": "default"}).status_code == 404
    assert bob.post("/api/jobs", json={"video": own.id, "model": "anna/birds"}).status_code == 422
    point = {"model": "anna/birds", "frame": 0, "x": 0, "y": 0}
    assert bob.post(f"/api/videos/{own.id}/attention", json=point).status_code == 422
    lesson = {"name": "mine", "model": "default", "results": [ids["jobs"]], "frames": "all"}
    assert bob.post("/api/trainings", json=lesson).status_code == 404
    lesson |= {"model": "anna/birds", "results": [served.add_result(own).id]}
    assert bob.post("/api/trainings", json=lesson).status_code == 422


def test_two_users_may_give_their_models_the_same_name(served: Page) -> None:
    for name in ("anna", "bob"):
        film = served.add_film(name)
        lesson = {"name": "goats", "model": "default", "results": [served.add_result(film).id], "frames": "all"}
        asked = served.client(name).post("/api/trainings", json=lesson)
        assert (asked.status_code, asked.json()["name"]) == (201, f"{name}/goats")
        again = served.client(name).post("/api/trainings", json=lesson)
        assert again.status_code in (422, 503)


def test_each_has_an_example_of_their_own(served: Page) -> None:
    ids = {served.client(name).post("/api/example").json()["id"] for name in ("anna", "anna")}
    assert len(ids) == 1
    assert served.store.owner("videos", *ids) == "anna"
    assert served.store.example("bob") is None


# how much each may use


def test_the_jobs_that_wait_are_counted_for_each_user(served: Page) -> None:
    films = [served.add_film(name) for name in ("bob", "bob", "anna")]
    asked = [served.client(film.owner).post("/api/jobs", json={"video": film.id, "model": "default"}) for film in films]
    assert [answer.status_code for answer in asked] == [201, 503, 201]
    assert asked[1].json()["error"].startswith("busy: 1 of your videos are waiting")


def test_jobs_of_a_day_are_counted_when_they_were_removed_too_and_in_a_new_server(tmp_path: Path) -> None:
    bob = user("bob", jobs_a_day=2)
    with page(tmp_path, bob) as served:
        for _ in range(2):
            film = served.add_film("bob")
            job = served.client("bob").post("/api/jobs", json={"video": film.id, "model": "default"}).json()
            assert served.client("bob").delete(f"/api/jobs/{job['id']}").status_code == 204
    with page(tmp_path, bob, user("anna")) as served:
        film = served.add_film("bob")
        asked = served.client("bob").post("/api/jobs", json={"video": film.id, "model": "default"})
        assert asked.status_code == 429
        assert "2 jobs of a day are used" in asked.json()["error"]
        assert DAY - 60 < int(asked.headers["retry-after"]) <= DAY
        film = served.add_film("anna")
        assert served.client("anna").post("/api/jobs", json={"video": film.id, "model": "default"}).status_code == 201


def test_a_day_later_a_job_may_be_asked_for_again(served: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    bob = user("bob", jobs_a_day=1)
    served.store.note_asked("bob", 1000.0)
    monkeypatch.setattr(quotas.time, "time", lambda: 1000.0 + DAY / 2)
    with pytest.raises(quotas.Spent, match=r"12\.0 hours"):
        quotas.check_day(bob, served.store)
    monkeypatch.setattr(quotas.time, "time", lambda: 1001.0 + DAY)
    quotas.check_day(bob, served.store)


def test_what_a_user_keeps_is_counted_with_results_and_no_upload_goes_beyond(served: Page) -> None:
    film = served.add_film("bob")
    job = served.add_result(film)
    (served.store.job_folder(job.id) / "overlay.mp4").write_bytes(bytes(900_000))
    declared = served.client("bob").post("/api/videos", content=bytes(200_000))
    assert declared.status_code == 507
    assert declared.json()["error"].startswith("your videos, results and models take 1 of 1 MB")
    assert served.client("bob").delete(f"/api/videos/{film.id}").status_code == 204
    assert served.store.bytes_of("bob") == 0


def test_one_users_videos_do_not_push_out_anothers(tmp_path: Path) -> None:
    with page(tmp_path, user("anna"), user("bob"), limits=Limits(kept=1)) as served:
        for owner in ("anna", "bob", "bob"):
            served.add_film(owner)
        served.jobs.make_room("bob")
        assert sorted(film.owner for film in served.store.videos()) == ["anna", "bob"]


# the file


def test_the_line_of_a_new_user_opens_the_server_for_their_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(serve.TOKEN, raising=False)
    assert cli.call(["serve", "--new-user", "anna"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "users.toml").write_text(printed)  # the token stands in a comment
    token = printed.splitlines()[0].rpartition(" ")[2]
    assert len(token) >= 32
    assert token not in printed.partition("\n")[2]
    access = serve.choose_access("0.0.0.0", None, tmp_path / "users.toml")
    found = access.user_of(token)
    assert found is not None
    assert (found.name, found.megabytes, found.waiting, found.jobs_a_day) == ("anna", 5000, 4, 200)
    assert access.user_of(None) is None


GOOD = f'sha256 = "{hash_of("a")}"'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "expected a table for each user"),
        ("anna", "expected TOML"),
        ("anna = 3", r"expected a table \[anna\] with the sha256"),
        ("[anna]", r"expected a table \[anna\] with the sha256"),
        ('[anna]\nsha256 = "abc"', r"\[anna\] sha256"),
        (f"[anna]\n{GOOD}\nmegabytes = 0", r"\[anna\] megabytes"),
        (f"[anna]\n{GOOD}\nmegabites = 9", r"\[anna\] megabites"),
        (f'["../anna"]\n{GOOD}', "expected a name of 1 to 40 letters"),
        (f"[anna]\n{GOOD}\n[bob]\n{GOOD}", "two users have the same token"),
    ],
)
def test_a_file_of_another_form_is_one_clear_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "users.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=line) as caught:
        read_users(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_ends_the_command_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(serve.TOKEN, raising=False)
    assert cli.call(["serve", "--users", str(tmp_path / "none.toml"), "--data", str(tmp_path / "data")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_token_of_the_environment_beside_users_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(serve.TOKEN, "a token of some length")
    with pytest.raises(InputError, match="each user has a token"):
        serve.choose_access("127.0.0.1", None, tmp_path / "users.toml")


def test_a_server_for_users_asks_for_a_token_on_this_machine_too(tmp_path: Path) -> None:
    assert Access(users=(User(name="anna", sha256=hash_of("a")),)).asks_for_token
    assert not Access().asks_for_token
