"""Teaching in a real browser: what it learns from, every state of a training, and the model that comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from page_fixtures import CHROMIUM, NAMELESS, OVERFLOW, opened, serving, shoot, write_film
from tubelet.apps.web.jobs.own_models import OwnModel
from tubelet.apps.web.jobs.queue import JobProgress, Jobs
from tubelet.apps.web.jobs.store import new_id
from tubelet.apps.web.jobs.tasks import Teaching
from tubelet.apps.web.jobs.trainings import TrainingJob

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
expect: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

SUMMARY = {
    "pictures": ["goats 1, frame 3", "goats 1, frame 9"],
    "before": {"AP50": 0.071, "IDF1": 0.389, "mean": 0.230},
    "after": {"AP50": 0.215, "IDF1": 0.405, "mean": 0.310},
    "held_out": "1 of 3 videos",
    "missing": ["goat"],
    "new": ["kid", "ram"],
}
ROW = TrainingJob(
    id="",
    name="",
    model="default",
    videos='["0123456789abcdef"]',
    threshold=0.5,
    steps=40,
    state="done",
    error=None,
    attempts=1,
    summary=None,
    created=1.0,
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Jobs]]:
    """A server that starts nothing more, once it has a result; its model may be taught."""
    with serving(tmp_path_factory.mktemp("page"), ["following"]) as server:
        server[1].models.described[0]["learns"] = True
        yield server


@pytest.fixture(scope="module")
def page(running: tuple[str, Jobs], browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The view with one result, of which a part was seen, and a training in each state."""
    address, jobs = running
    page = opened(browser, address, viewport={"width": 1280, "height": 900})
    page.set_input_files("#file", write_film(tmp_path_factory.mktemp("film") / "three patches.mp4", 12))
    page.locator(".watch").wait_for()
    page.request.put(f"{address}/api/jobs/{jobs.store.jobs()[0].id}/seen", data={"frames": [[0, 8]]})
    jobs._start_next = lambda: None  # type: ignore[method-assign]
    states = {
        "Geese": "done",
        "Goats": "done",
        "Sheep": "failed",
        "Cows": "stopped",
        "Pigs": "queued",
        "Hens": "running",
    }
    for created, (name, state) in enumerate(states.items()):
        add(jobs, replace(ROW, id=new_id(), name=name, state=state, created=float(created)))  # type: ignore[arg-type]
    model = jobs.store.root / "scratch" / "model"
    model.write_bytes(b"x" * 2_000_000)
    jobs.store.models.add(OwnModel(id=new_id(), name="Goats", bytes=2_000_000, created=1.0), model)
    jobs._current = Teaching(jobs.store, jobs.store.trainings.all("running")[0], "default")
    jobs._progress = JobProgress(stage="training", done=12, total=40, left=95.0)
    page.goto(f"{address}/#/")
    page.locator("#teach").click()
    page.locator(".teach").wait_for()
    yield page
    assert page.faults == []  # type: ignore[attr-defined]


def add(jobs: Jobs, training: TrainingJob) -> None:
    """A training as it would be in the list, with a curve and pictures."""
    with jobs.store.scratch() as scratch:
        (scratch / "run").mkdir()
        rows = [{"step": step, "loss": 3 / step, "lr": 0.1} for step in range(1, 13)]
        rows += [{"step": step, "validation_overall": step / 100} for step in (4, 8, 12)]
        (scratch / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for name, colour in (("before", "grey"), ("after", "green")):
            for number in range(2):
                Image.new("RGB", (320, 180), colour).save(scratch / f"{name}-{number}.jpg")
        if training.state == "failed":
            training = replace(training, error="the server's disk is full")
        if training.state == "done":
            training = replace(training, summary=json.dumps({**SUMMARY, "gain": training.name != "Geese"}))
        jobs.store.trainings.add(training, scratch)


def card(page: Page, name: str) -> Any:
    return page.locator(f".lesson[aria-label={name}]")


def test_each_state_says_where_it_stands_and_what_can_be_done(page: Page) -> None:
    expect(card(page, "Hens").locator("[role=status]")).to_have_text(
        "Learning · 12 of 40 steps · about 1 min 35 s left"
    )
    expect(card(page, "Hens").get_by_role("button")).to_have_text(["Stop"])
    expect(card(page, "Pigs").locator("[role=status]")).to_have_text("Waiting: 1 job before this one")
    expect(card(page, "Cows").get_by_role("button")).to_have_text(["Continue", "Remove"])
    expect(card(page, "Sheep").locator("[role=status]")).to_have_text("Failed: the server's disk is full")
    expect(card(page, "Sheep").get_by_role("button")).to_have_text(["Remove"])
    expect(card(page, "Geese").locator("[role=status]")).to_have_text(
        "No gain on 1 of 3 videos: the model you have stays"
    )
    shoot(page, "teach")


def test_a_finished_training_shows_figures_pictures_and_the_model(page: Page) -> None:
    goats = card(page, "Goats")
    expect(goats.locator("tbody tr")).to_have_text(["AP507.121.5", "IDF138.940.5", "Their mean, which decides23.031.0"])
    expect(goats.locator("img")).to_have_count(4)
    assert goats.locator("img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 320
    expect(goats).to_contain_text("Only in the frames held out, so not learned: goat.")
    expect(goats).to_contain_text("New to the model: kid, ram.")
    expect(goats.locator(".curve svg").first).to_have_attribute("aria-label", "Loss: from 3.00 to 0.25")
    models = page.locator("[aria-label='Your models']")
    expect(models.locator("li")).to_contain_text(["Goats2.0 MB · not loaded"])
    goats.scroll_into_view_if_needed()
    shoot(page, "teach-done")


@pytest.mark.parametrize("settings", [{"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}])
def test_it_is_readable_in_the_dark_and_on_a_phone(
    running: tuple[str, Jobs], browser: Browser, page: Page, settings: dict[str, Any]
) -> None:
    other = opened(browser, running[0], **settings)
    other.goto(page.url)
    card(other, "Goats").locator("img").first.wait_for()
    assert other.evaluate(OVERFLOW) <= 0
    assert other.evaluate(NAMELESS) == []
    name = f"teach-{'dark' if 'color_scheme' in settings else 'phone'}"
    shoot(other, name)
    card(other, "Goats").locator("img").first.scroll_into_view_if_needed()
    shoot(other, f"{name}-done")
    other.close()


def test_results_that_were_seen_are_chosen_and_asked_for(running: tuple[str, Jobs], page: Page) -> None:
    expect(page.locator(".choices li")).to_have_text(["three patches.mp43 objects · 9 of 12 frames seen"])
    page.locator("form input[type=text]").fill("Goats")
    page.get_by_role("button", name="Train on these").click()
    expect(page.locator(".notice")).to_have_text("There is a model called 'Goats' already; choose another name.")
    page.faults.clear()  # type: ignore[attr-defined]  # the browser notes the refusal
    page.locator("form input[type=text]").fill("Ducks")
    page.get_by_role("button", name="Train on these").click()
    expect(card(page, "Ducks").locator("[role=status]")).to_have_text("Waiting: 2 jobs before this one")
    card(page, "Ducks").get_by_role("button", name="Stop").click()
    expect(card(page, "Ducks").get_by_role("button")).to_have_text(["Continue", "Remove"])
    page.once("dialog", lambda dialog: dialog.accept())
    card(page, "Ducks").get_by_role("button", name="Remove").click()
    expect(card(page, "Ducks")).to_have_count(0)


def test_a_result_sends_itself_to_be_learned_from(running: tuple[str, Jobs], browser: Browser, page: Page) -> None:
    address, jobs = running
    other = opened(browser, f"{address}/#/{jobs.store.videos()[0].id}/watch")
    other.locator("#train-on-this").click()
    expect(other.locator(".choices input")).to_be_checked()
    other.close()
