"""Edit mode in a real browser: every verb, undo, drawing by mouse, finger and keys, doubtful places, two tabs."""

from __future__ import annotations

import json
import re
import sqlite3
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from page_fixtures import CHROMIUM, NAMELESS, OVERFLOW, opened, serving, shoot, write_film
from tubelet.apps.web.jobs.queue import Jobs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
expect: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

LENGTH = 24
RED = (25, 30)  # x and y of a pixel of the red patch in frame 0; its id is 0, green has 1, blue 2


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Jobs]]:
    with serving(tmp_path_factory.mktemp("page"), ["following"]) as server:
        yield server


@pytest.fixture(scope="module")
def video(running: tuple[str, Jobs], browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a video whose result is there."""
    page = opened(browser, running[0])
    page.set_input_files("#file", write_film(tmp_path_factory.mktemp("film") / "patches.mp4", LENGTH))
    page.locator(".watch").wait_for()
    return page.url


@pytest.fixture
def page(running: tuple[str, Jobs], browser: Browser, video: str) -> Iterator[Page]:
    """The video in edit mode, without edits."""
    page = fresh(running, browser, video, viewport={"width": 1280, "height": 1000})
    yield page
    assert page.faults == []  # type: ignore[attr-defined]
    page.close()


def fresh(running: tuple[str, Jobs], browser: Browser, video: str, **settings: Any) -> Page:
    address, jobs = running
    jobs.store._list.change("DELETE FROM steps")
    for n, job in enumerate(jobs.store.jobs()):  # another job's folder is another result: nothing is remembered of it
        fork(jobs, job.id, n)
    page = opened(browser, address, **settings)
    page.goto(video)
    begin(page)
    return page


def fork(jobs: Jobs, id: str, n: int) -> None:
    """Give a job a new id, so that the server has no edits of it in memory."""
    from tubelet.apps.web.jobs.store import new_id

    new = new_id()
    jobs.store.job_folder(id).rename(jobs.store.job_folder(new))
    while jobs.store.job(new) is None:
        jobs.store._list.change("DELETE FROM seen")
        with suppress(sqlite3.IntegrityError):  # the page before may still say what was seen
            jobs.store._list.change("UPDATE jobs SET id = ? WHERE id = ?", new, id)


def begin(page: Page) -> None:
    page.locator(".watch").wait_for()
    page.locator("video").evaluate(
        "film => film.readyState > 1 || new Promise((done) => { film.onloadeddata = () => done() })"
    )
    page.keyboard.press("e")
    page.locator(".edit").wait_for()


def rows(page: Page) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(".tracks .name").all_inner_texts()]


def spans(page: Page, row: int) -> str:
    return (page.locator(".tracks .bar").nth(row).get_attribute("aria-label") or "").removeprefix("seen in frames ")


def spot(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the video is on the screen."""
    place = page.locator(".sheet").bounding_box()
    assert place is not None
    return place["x"] + x / 320 * place["width"], place["y"] + y / 180 * place["height"]


def click(page: Page, x: float, y: float) -> None:
    page.mouse.click(*spot(page, x, y))


def told(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.locator(".edit > p")).to_have_text(text)


def goto(page: Page, frame: int) -> None:
    page.locator(".ruler input").fill(str(frame))
    expect(page.locator(".time .frame")).to_have_text(f"frame {frame}")


def inked(page: Page) -> int:
    """Pixels of the masks."""
    count = """canvas => { const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let n = 0; for (let k = 3; k < data.length; k += 4) n += data[k] > 0; return n; }"""
    return int(page.locator(".stage canvas").first.evaluate(count))


# choosing


def test_an_object_is_chosen_in_the_picture_in_the_list_and_by_keys(page: Page) -> None:
    chosen = page.locator(".chosen")
    expect(chosen).to_be_hidden()
    click(page, *RED)
    expect(chosen).to_have_text("red 0")
    page.locator(".tracks .name", has_text="green").click()
    expect(chosen).to_have_text("green 1")
    page.keyboard.press("ArrowDown")
    expect(chosen).to_have_text("blue 2")
    page.keyboard.press("1")
    expect(chosen).to_have_text("red 0")
    expect(page.locator(".name[aria-pressed=true]")).to_have_text("red0")
    shoot(page, "edit-chosen")
    page.keyboard.press("Escape")
    expect(chosen).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator(".edit")).to_be_hidden()


# verbs


def test_a_deleted_object_is_gone_and_comes_back_by_undo(page: Page) -> None:
    before = inked(page)
    click(page, *RED)
    page.keyboard.press("Delete")
    told(page, "Done: delete 0")
    assert rows(page) == ["green 1", "blue 2"]
    assert inked(page) < before
    page.keyboard.press("Control+z")
    told(page, "Undone: delete 0")
    assert rows(page) == ["red 0", "green 1", "blue 2"]
    assert inked(page) == before
    page.keyboard.press("Control+Shift+Z")
    told(page, "Done: delete 0")
    assert rows(page) == ["green 1", "blue 2"]


def test_edits_are_there_after_the_browser_was_closed(page: Page) -> None:
    page.keyboard.press("1")
    page.keyboard.press("Delete")
    told(page, "Done: delete 0")
    page.reload()
    begin(page)
    assert rows(page) == ["green 1", "blue 2"]
    expect(page.locator(".history summary")).to_have_text("1 edit, saved")
    page.click("#edit-undo")
    told(page, "Undone: delete 0")
    assert rows(page) == ["red 0", "green 1", "blue 2"]


def test_an_object_is_split_here_and_merged_again(page: Page) -> None:
    goto(page, 10)
    page.keyboard.press("1")
    page.click("#edit-split")
    told(page, "Done: split 0 at frame 10")
    expect(page.locator(".chosen")).to_have_text("red 3")
    assert (spans(page, 0), spans(page, 3)) == ("0 to 9", f"10 to {LENGTH - 1}")
    page.keyboard.press("1")
    page.click("#edit-merge")
    expect(page.locator(".ask select").first).to_have_value("3")  # one of its class is proposed
    expect(page.locator(".ask select").nth(1)).to_be_hidden()
    page.locator(".ask .primary").click()
    told(page, "Done: merge 0 and 3")
    assert spans(page, 0) == f"0 to {LENGTH - 1}"


def test_a_merge_of_two_that_are_both_seen_asks_which_stays(page: Page) -> None:
    page.keyboard.press("1")
    page.keyboard.press("g")
    click(page, 60, 150)  # green, in the picture
    expect(page.locator(".ask select").first).to_have_value("1")
    page.locator(".ask select").nth(1).select_option("1")
    shoot(page, "edit-merge")
    page.keyboard.press("Enter")
    page.locator(".ask .primary").click()
    told(page, "Done: merge 0 and 1")
    assert rows(page) == ["red 0", "blue 2"]


def test_two_objects_are_swapped_from_here(page: Page) -> None:
    goto(page, 12)
    page.keyboard.press("1")
    page.keyboard.press("w")
    page.locator(".ask select").select_option("2")
    page.locator(".ask .primary").click()
    told(page, "Done: swap 0 and 2 from frame 12")
    click(page, 70, 90)  # the blue patch is red 0 now
    expect(page.locator(".chosen")).to_have_text("red 0")


def test_a_class_may_be_one_that_the_model_does_not_know(page: Page) -> None:
    page.keyboard.press("2")
    page.keyboard.press("r")
    page.keyboard.type("goat")
    page.keyboard.press("Enter")
    told(page, "Done: rename 1 to goat")
    assert rows(page) == ["red 0", "goat 1", "blue 2"]
    page.keyboard.press("r")
    assert page.locator(".ask input").evaluate("input => [...input.list.options].map((o) => o.value)") == [
        "red", "goat", "blue", "green", "yellow"
    ]  # fmt: skip
    expect(page.locator("#classes")).to_be_visible()  # the field of the classes to be found is another


def test_a_part_is_deleted_and_the_line_shows_the_gap(page: Page) -> None:
    goto(page, 5)
    page.keyboard.press("1")
    page.keyboard.press("x")
    page.locator(".ask input").nth(1).fill("9")
    page.locator(".ask input").nth(1).press("Enter")
    told(page, "Done: delete 0 in frames 5 to 9")
    assert spans(page, 0) == f"0 to 4, 10 to {LENGTH - 1}"


def test_what_is_wrong_everywhere_goes_with_all_alike(page: Page) -> None:
    goto(page, 12)
    page.keyboard.press("1")
    page.keyboard.press("s")
    told(page, "Done: split 0 at frame 12")
    page.click("#edit-alike")
    told(page, re.compile("^Done: delete 3 and all alike"))
    assert "red 3" not in rows(page)


# drawing


def test_a_mask_is_painted_on_with_a_brush(page: Page) -> None:
    before = inked(page)
    click(page, *RED)
    page.click("#edit-outline")
    page.mouse.move(*spot(page, 30, 30))
    page.mouse.down()
    page.mouse.move(*spot(page, 120, 30), steps=5)
    page.mouse.up()
    shoot(page, "edit-brush")
    page.keyboard.press("Enter")
    told(page, "Done: redraw 0 in frame 0")
    assert inked(page) > before + 500
    assert spans(page, 0).endswith("; drawn by hand in 0")
    expect(page.locator(".bar i.drawn")).to_have_count(1)


def test_a_mask_is_rubbed_out_in_part_and_a_stroke_is_undone(page: Page) -> None:
    before = inked(page)
    click(page, *RED)
    page.keyboard.press("d")
    page.keyboard.press("e")
    for _ in range(2):
        page.keyboard.press("Space")  # at the centre of the object
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Control+z")
    page.keyboard.press("Enter")
    told(page, "Done: redraw 0 in frame 0")
    assert inked(page) < before


def test_a_missed_object_is_added_by_a_polygon(page: Page) -> None:
    page.click("#edit-add")
    page.locator(".ask input[type=text]").fill("dog")
    for x, y in ((200, 60), (260, 60), (260, 120), (200, 120)):
        click(page, x, y)
    shoot(page, "edit-polygon")
    click(page, 200, 60)  # the first corner closes it
    page.locator(".ask .primary").click()
    told(page, "Done: add dog 3 in frame 0")
    expect(page.locator(".chosen")).to_have_text("dog 3")
    assert spans(page, 3) == "0; drawn by hand in 0"
    assert page.locator(".tracks .score").nth(3).inner_text() == "100 %"


def test_a_box_is_added_by_keys_alone(page: Page) -> None:
    page.keyboard.press("a")
    page.keyboard.type("cat")
    page.keyboard.press("Tab")
    page.locator(".surface").focus()
    for key in ("x", "Space", *["Shift+ArrowRight"] * 3, *["Shift+ArrowDown"] * 2, "Space", "Enter"):
        page.keyboard.press(key)
    told(page, "Done: add cat 3 in frame 0")
    before = inked(page)
    page.keyboard.press("Delete")
    told(page, "Done: delete 3")
    assert inked(page) < before


def test_an_outline_of_two_points_is_refused_in_one_line_and_stays_to_be_finished(page: Page) -> None:
    page.keyboard.press("1")
    page.keyboard.press("d")
    page.keyboard.press("p")
    click(page, 100, 100)
    click(page, 160, 100)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("a polygon needs three points")
    click(page, 160, 150)
    page.keyboard.press("Enter")
    told(page, "Done: redraw 0 in frame 0")
    page.faults.clear()  # type: ignore[attr-defined]  # the browser notes the refusal


def test_a_drawn_outline_is_followed_both_ways_and_that_is_undone_in_one_step(page: Page) -> None:
    goto(page, 10)
    page.keyboard.press("1")
    page.keyboard.press("x")
    page.locator(".ask input").first.fill("0")
    page.locator(".ask input").nth(1).fill("20")
    page.locator(".ask .primary").click()
    told(page, "Done: delete 0 in frames 0 to 20")
    goto(page, 10)
    page.keyboard.press("d")
    page.keyboard.press("x")
    for _ in range(2):
        page.keyboard.press("Space")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    shoot(page, "edit-box")
    page.get_by_role("button", name="Save and follow").click()
    told(page, f"Done: follow 0 in frames 0 to {LENGTH - 1}")
    assert spans(page, 0) == f"0 to {LENGTH - 1}; drawn by hand in 10"
    page.click("#edit-undo")
    told(page, re.compile("^Undone: follow"))
    assert spans(page, 0) == f"10, 21 to {LENGTH - 1}; drawn by hand in 10"


def test_following_shows_how_far_it_is_and_is_stopped(page: Page) -> None:
    page.keyboard.press("3")  # blue: slow
    page.keyboard.press("t")
    page.locator(".ask select").select_option("on")
    shoot(page, "edit-follow")
    page.locator(".ask .primary").click()
    expect(page.locator(".ask p")).to_have_text(re.compile(r"^[2-9] of 23 frames · [\d.]+ frames/s$"))
    shoot(page, "edit-following")
    page.keyboard.press("Escape")
    told(page, re.compile(r"^Done: follow 2 in frames 0 to \d+$"))
    assert spans(page, 2) == f"0 to {LENGTH - 1}"


def test_two_fingers_enlarge_while_drawing_and_leave_no_stroke(page: Page) -> None:
    page.keyboard.press("a")
    touch = """([points]) => {
      const surface = document.querySelector(".surface");
      for (const [type, pointerId, clientX, clientY] of points)
        surface.dispatchEvent(new PointerEvent(type, { pointerId, clientX, clientY, pointerType: "touch", bubbles: true,
          button: 0, buttons: type === "pointerup" ? 0 : 1, isPrimary: pointerId === 11 }));
    }"""
    page.evaluate("() => { Element.prototype.setPointerCapture = () => {}; }")
    (x1, y1), (x2, y2) = spot(page, 150, 90), spot(page, 170, 90)
    page.evaluate(
        touch,
        [
            [
                ["pointerdown", 11, x1, y1],
                ["pointerdown", 12, x2, y2],
                ["pointermove", 11, x1 - 60, y1],
                ["pointermove", 12, x2 + 60, y2],
                ["pointerup", 11, x1 - 60, y1],
                ["pointerup", 12, x2 + 60, y2],
            ]
        ],
    )
    assert page.locator(".sheet").evaluate("sheet => new DOMMatrix(getComputedStyle(sheet).transform).a") > 1.5
    page.locator(".ask input[type=text]").fill("dog")
    page.locator(".ask .primary").click()
    expect(page.get_by_role("alert")).to_have_text("Nothing is drawn yet.")
    page.get_by_role("button", name="Whole picture").click()
    assert page.locator(".sheet").evaluate("sheet => getComputedStyle(sheet).transform") == "none"


def test_a_pixel_is_the_same_where_the_picture_is_enlarged(page: Page) -> None:
    page.mouse.move(*spot(page, *RED))
    page.mouse.wheel(0, -600)
    page.wait_for_timeout(200)
    shoot(page, "edit-enlarged")
    click(page, *RED)
    expect(page.locator(".chosen")).to_have_text("red 0")


# where to look, and what was seen


def test_the_next_doubtful_place_is_shown_with_its_objects_and_its_reason(page: Page) -> None:
    goto(page, 5)
    page.keyboard.press("1")
    page.keyboard.press("x")
    page.locator(".ask input").nth(1).fill("14")
    page.locator(".ask input").nth(1).press("Enter")
    told(page, "Done: delete 0 in frames 5 to 14")
    expect(page.locator(".bar i.doubt")).to_have_count(1)
    goto(page, 0)
    page.keyboard.press("n")
    expect(page.locator(".time .frame")).to_have_text("frame 15")
    told(page, re.compile("^Doubtful place 1 of 1, frame 15: red 0: comes back after a gap"))
    shoot(page, "edit-doubt")
    page.locator("#threshold").fill("95")  # nothing reaches this score
    expect(page.locator(".chosen")).to_be_hidden()
    expect(page.locator("#edit-doubt")).to_be_disabled()


def test_doubtful_places_of_one_frame_are_shown_one_after_the_other(page: Page) -> None:
    for key in "12":
        page.keyboard.press(key)
        page.keyboard.press("x")
        page.locator(".ask input").first.fill("5")
        page.locator(".ask input").nth(1).fill("14")
        page.locator(".ask .primary").click()
        told(page, re.compile("^Done: delete . in frames 5 to 14"))
    expect(page.locator(".guide .score").nth(1)).to_have_text("2")
    goto(page, 15)
    for number in (1, 2, 1):
        page.keyboard.press("n")
        told(page, re.compile(f"^Doubtful place {number} of 2, frame 15: "))
    page.keyboard.press("Shift+N")
    told(page, re.compile("^Doubtful place 2 of 2, frame 15: "))


def test_frames_that_were_stepped_or_played_through_are_noted_as_seen(page: Page, running: tuple[str, Jobs]) -> None:
    store = running[1].store
    (job,) = store.jobs("done")
    goto(page, 20)
    for frame in (21, 22):
        page.keyboard.press("ArrowRight")
        expect(page.locator(".time .frame")).to_have_text(f"frame {frame}")
    end = time.monotonic() + 20
    while not any(first <= 21 and last == 22 for first, last in store.seen(job.id)):
        assert time.monotonic() < end, store.seen(job.id)
        page.wait_for_timeout(100)
    for _ in range(10):  # a player on a busy machine leaves frames out
        page.keyboard.press("Home")
        page.keyboard.press("Space")
        expect(page.locator(".play")).to_have_attribute("aria-label", "Pause")
        expect(page.locator(".play")).to_have_attribute("aria-label", "Play")
        page.wait_for_timeout(300)
        if page.locator(".guide .score").first.text_content() == "100 %":
            break
    expect(page.locator(".guide .score").first).to_have_text("100 %")


def test_downloads_and_labelled_data_hold_the_edited_result(page: Page) -> None:
    page.keyboard.press("1")
    page.keyboard.press("Delete")
    told(page, "Done: delete 0")
    with page.expect_download() as coming:
        page.click("#get-json")
    assert len(json.loads(Path(coming.value.path()).read_bytes())["annotations"]) == 2
    page.get_by_label("Frames of the labelled data").select_option("all")
    page.get_by_label("Form of the labelled data").select_option("davis")
    with page.expect_download() as coming:
        page.click("#get-labels")
    assert coming.value.suggested_filename == "patches-labels.zip"
    names = zipfile.ZipFile(coming.value.path()).namelist()
    assert sum("Annotations" in name for name in names) == LENGTH


# what goes wrong


def test_an_edit_in_a_second_tab_is_not_overwritten(page: Page) -> None:
    other = page.context.new_page()
    other.goto(page.url)
    begin(other)
    other.keyboard.press("1")
    other.keyboard.press("Delete")
    told(other, "Done: delete 0")
    other.close()
    page.keyboard.press("2")
    page.keyboard.press("Delete")
    expect(page.get_by_role("alert")).to_contain_text("changed in another tab")
    assert rows(page) == ["green 1", "blue 2"]
    page.faults.clear()  # type: ignore[attr-defined]


def test_on_a_full_disk_the_page_says_so_and_shows_what_is_stored(
    page: Page, running: tuple[str, Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(running[1].store._list, "add", full)
    page.keyboard.press("1")
    page.keyboard.press("Delete")
    expect(page.get_by_role("alert")).to_have_text("The server's disk is full.")
    assert rows(page) == ["red 0", "green 1", "blue 2"]
    monkeypatch.undo()
    page.keyboard.press("Delete")
    told(page, "Done: delete 0")
    page.faults.clear()  # type: ignore[attr-defined]


# everybody


def test_every_control_has_a_name_in_every_state(page: Page) -> None:
    page.keyboard.press("1")
    for key in ("g", "w", "x", "r", "d", "a", "t"):
        page.keyboard.press(key)
        page.locator(".ask").wait_for()
        assert page.evaluate(NAMELESS) == [], key
        page.keyboard.press("Escape")
        page.locator(".ask").wait_for(state="detached")


def test_on_a_phone_in_the_dark_nothing_is_cut_off(running: tuple[str, Jobs], browser: Browser, video: str) -> None:
    page = fresh(
        running,
        browser,
        video,
        viewport={"width": 375, "height": 760},
        color_scheme="dark",
        is_mobile=True,
        has_touch=True,
    )
    page.locator(".tracks .name").first.tap()
    shoot(page, "phone-edit")
    for name in ("merge", "outline", "part"):
        page.locator(f"#edit-{name}").tap()
        page.locator(".ask").wait_for()
        assert page.evaluate(OVERFLOW) <= 0, name
        shoot(page, f"phone-edit-{name}")
        page.locator(".ask").get_by_role("button", name="Cancel").tap()
    page.locator("#edit-add").tap()
    page.locator(".ask input[type=text]").fill("dog")
    page.locator(".stage").scroll_into_view_if_needed()
    for x, y in ((200, 60), (260, 60), (260, 120)):
        page.touchscreen.tap(*spot(page, x, y))
    page.locator(".ask .primary").tap()
    told(page, "Done: add dog 3 in frame 0")
    assert page.faults == []  # type: ignore[attr-defined]


def test_the_page_stays_small() -> None:
    from tubelet.apps.web.assets import PAGE

    assert sum(path.stat().st_size for path in PAGE.rglob("*") if path.is_file()) < 250_000
