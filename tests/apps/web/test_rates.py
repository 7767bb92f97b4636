"""How often one may ask, and what the audit log says of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tubelet.apps.web import audit
from tubelet.apps.web.audit import FILE, AuditLog
from tubelet.apps.web.limits import Limits
from tubelet.apps.web.rates import MOST_KEYS, Buckets, Guesses
from user_fixtures import page, token_of, user


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / FILE).read_text().splitlines()]


# buckets


def test_a_bucket_takes_what_its_rate_says_and_a_burst_at_once() -> None:
    clock = Clock()
    buckets = Buckets(rate=5, burst=10, clock=clock)
    assert [buckets.wait("a") for _ in range(12)] == pytest.approx([0.0] * 10 + [0.2, 0.2])
    clock.now += 0.2
    assert [buckets.wait("a"), buckets.wait("a")] == pytest.approx([0.0, 0.2], abs=1e-6)
    clock.now += 1000
    assert sum(buckets.wait("a") == 0 for _ in range(20)) == 10  # waiting saves up no more than a burst


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    buckets, guesses = Buckets(rate=1, burst=1), Guesses(most=1)
    for n in range(MOST_KEYS + 10):
        buckets.wait(str(n))
        guesses.note(str(n), "x")
    assert len(buckets._full) == len(guesses._wrong) == MOST_KEYS
    assert buckets.wait(str(MOST_KEYS)) > 0
    assert guesses.wait(str(MOST_KEYS)) > 0


def test_the_same_wrong_token_again_is_no_new_guess() -> None:
    clock = Clock()
    guesses = Guesses(most=2, clock=clock)
    for token in ("old", "old", "old"):
        guesses.note("a", token)
    assert guesses.wait("a") == 0
    clock.now += 10
    guesses.note("a", "new")
    assert (guesses.wait("a"), guesses.wait("b")) == (50, 0)
    clock.now += 50
    assert guesses.wait("a") == 0


# the server


def test_too_many_requests_of_an_address_are_answered_with_429_and_when_to_ask_again(tmp_path: Path) -> None:
    with page(tmp_path, limits=Limits(rate=1)) as served:
        asking = served.client(None)
        answers = [asking.get("/api/about") for _ in range(12)]
        assert [answer.status_code for answer in answers] == [200] * 10 + [429] * 2
        assert answers[-1].headers["retry-after"] == "1"
        assert answers[-1].json()["error"].startswith("too many requests")
        assert "content-security-policy" in answers[-1].headers
        assert served.client(None, "192.0.2.7").get("/api/about").status_code == 200


def test_a_user_is_counted_over_all_addresses(tmp_path: Path) -> None:
    with page(tmp_path, user("anna"), user("bob"), limits=Limits(rate=1)) as served:
        codes = [served.client("anna", f"192.0.2.{n}").get("/api/about").status_code for n in range(12)]
        assert codes == [200] * 10 + [429] * 2
        assert served.client("bob", "192.0.2.1").get("/api/about").status_code == 200


def test_addresses_of_one_network_of_ipv6_are_one(tmp_path: Path) -> None:
    with page(tmp_path, limits=Limits(rate=1)) as served:
        codes = [served.client(None, f"2001:db8::{n:x}").get("/api/about").status_code for n in range(11)]
        assert codes == [200] * 10 + [429]


def test_after_some_guesses_of_a_minute_no_token_of_the_address_is_looked_at(tmp_path: Path) -> None:
    with page(tmp_path, user("anna"), limits=Limits(guesses=3)) as served:
        asking = served.client(None)
        for n in range(3):
            assert asking.get("/api/about", headers={"Authorization": f"Bearer {n}"}).status_code == 401
        for name in ("anna", "carol"):  # a right one is not told from a wrong one
            answer = served.client(name).get("/api/about")
            assert answer.status_code == 429
            assert 0 < int(answer.headers["retry-after"]) <= 60
        assert asking.get("/api/about", params={"token": token_of("anna")}).status_code == 429
        assert served.client("anna", "192.0.2.7").get("/api/about").status_code == 200


def test_words_of_links_are_guesses_too_and_a_request_without_a_token_is_none(tmp_path: Path) -> None:
    with page(tmp_path, user("anna"), limits=Limits(guesses=3)) as served:
        asking = served.client(None)
        assert {asking.get("/api/about").status_code for _ in range(9)} == {401}
        codes = [asking.get(f"/api/shared/word{n}/result").status_code for n in range(5)]
        assert codes == [404, 404, 404, 429, 429]


# the audit log


def test_a_line_for_all_that_changes_something_or_is_refused_and_none_for_looking(tmp_path: Path) -> None:
    with page(tmp_path, user("anna"), user("bob")) as served:
        film = served.add_film("anna")
        anna = served.client("anna", "192.0.2.7")
        anna.get("/")
        anna.get("/api/videos")
        job = anna.post("/api/jobs", json={"video": film.id, "model": "default"}).json()["id"]
        served.client("bob", "192.0.2.8").delete(f"/api/jobs/{job}")
        anna.delete(f"/api/jobs/{job}")
        served.client(None).get("/api/videos")
        served.client(None).post("/api/jobs", headers={"Origin": "http://evil.example"})
        served.client(None).get("/", params={"token": token_of("bob")})
        served.client("anna").get("/", headers={"Host": "evil.example"})

    entries = lines(tmp_path)
    assert [tuple(entry[key] for key in ("user", "address", "action", "id", "status")) for entry in entries] == [
        ("anna", "192.0.2.7", "POST /api/jobs", job, 201),
        ("bob", "192.0.2.8", "DELETE /api/jobs/{id}", job, 404),
        ("anna", "192.0.2.7", "DELETE /api/jobs/{id}", job, 204),
        ("", "127.0.0.1", "GET /api/videos", None, 401),
        ("", "127.0.0.1", "POST /api/jobs", None, 403),
        ("bob", "127.0.0.1", "log in", None, 303),
        ("", "127.0.0.1", "GET /", None, 421),
    ]
    assert all(entry["time"].endswith("Z") for entry in entries)


def test_no_token_no_word_of_a_link_and_no_text_of_a_stranger_is_in_the_log(tmp_path: Path) -> None:
    with page(tmp_path, user("anna"), limits=Limits(guesses=0)) as served:
        job = served.add_result(served.add_film("anna", "secret.mp4"))
        word = served.client("anna").post(f"/api/jobs/{job.id}/link").json()["address"].rpartition("/")[2]
        asking = served.client(None)
        asking.get("/", params={"token": token_of("anna")})
        asking.get("/", params={"token": "secret guess"})
        asking.get("/api/shared/secret/result")
        asking.post(f"/api/shared/{word}/result")
        asking.get("/secret/%0a{%22status%22:200}")
        asking.delete("/api/jobs/secret")
        asking.request("SECRET", "/api/jobs")
    text = (tmp_path / FILE).read_text()
    assert len(text.splitlines()) == 7
    assert not any(private in text for private in ("secret", "SECRET", word, token_of("anna")))


def test_the_log_is_rotated_by_its_size(tmp_path: Path) -> None:
    kept = AuditLog(tmp_path / FILE, largest=1000)
    for n in range(2000):
        kept.write({"n": n})
    kept.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [FILE, *(f"{FILE}.{n}" for n in range(1, 6))]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert lines(tmp_path)[-1] == {"n": 1999}


def test_refusals_of_one_address_do_not_fill_the_log(tmp_path: Path) -> None:
    with page(tmp_path, user("anna")) as served:
        for _ in range(audit.REFUSALS + 40):
            served.client(None).get("/api/about")
        served.client(None, "192.0.2.7").get("/api/about")
    addresses = [entry["address"] for entry in lines(tmp_path)]
    assert addresses.count("127.0.0.1") < audit.REFUSALS + 40
    assert addresses.count("192.0.2.7") == 1


def test_a_log_that_cannot_be_written_hinders_nobody_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).mkdir()
    with page(tmp_path, user("anna")) as served, caplog.at_level(logging.ERROR, "tubelet.web"):
        assert [served.client(None).get("/api/about").status_code for _ in range(3)] == [401] * 3
    assert [record.message for record in caplog.records] == ["the audit log cannot be written"]
