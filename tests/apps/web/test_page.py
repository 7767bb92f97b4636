"""The page in a real browser: upload, progress, playback, masks in step with the film, keys, downloads, phone width."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from page_fixtures import (
    CHROMIUM,
    COLOURS,
    EDGES,
    FPS,
    NAMELESS,
    OVERFLOW,
    SIZE,
    opened,
    serving,
    serving_files,
    shoot,
    write_film,
)
from toy import moving_patches
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.core import masks
from tubelet.video.writer import VideoWriter

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

LENGTH = 50


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = ["slow", "attending", "stuck", "attending-everywhere", "faulty"]
    with serving(tmp_path_factory.mktemp("page"), models) as (address, _):
        yield address


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "three patches.mp4", LENGTH)


@pytest.fixture(scope="module")
def seen(browser: Browser, address: str, film: Path) -> Iterator[Page]:
    """A page with the film on it, uploaded through the page."""
    page = opened(browser, address, viewport={"width": 1280, "height": 900})
    page.locator(".drop").wait_for()
    shoot(page, "start")
    page.set_input_files("#file", film)
    playwright.expect(page.locator(".progress p")).to_contain_text(re.compile(r"\d+ of 50 frames · .+ left"))
    assert 0 < float(page.locator("progress").evaluate("bar => bar.value")) < 1
    shoot(page, "progress")
    page.locator(".watch").wait_for()
    page.locator("video").evaluate(
        "film => film.readyState > 1 || new Promise((done) => { film.onloadeddata = () => done() })"
    )
    yield page
    assert page.faults == []  # type: ignore[attr-defined]


def frame(page: Page) -> int:
    return int((page.locator(".time .frame").text_content() or "frame -1").split()[-1])


def at(page: Page, wanted: int) -> None:
    playwright.expect(page.locator(".time .frame")).to_have_text(f"frame {wanted}")


def inked(page: Page, layer: int) -> int:
    """Pixels that are not clear on one of the two canvases over the film."""
    count = """canvas => { const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let n = 0; for (let k = 3; k < data.length; k += 4) n += data[k] > 0; return n; }"""
    return int(page.locator(".stage canvas").nth(layer).evaluate(count))


def test_several_files_at_once_are_a_job_each(browser: Browser, address: str, tmp_path: Path) -> None:
    page = opened(browser, address)
    page.set_input_files("#file", [write_film(tmp_path / name, 3) for name in ("first.mp4", "second.mp4")])
    for name in ("first.mp4", "second.mp4"):
        playwright.expect(page.locator(".recent li", has_text=name)).to_contain_text("3 objects")
    playwright.expect(page.locator(".drop")).to_be_visible()
    page.close()


def test_limits_are_said_before_an_upload(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    text = page.locator("#limits").text_content() or ""
    assert "500 MB" in text
    assert "9,000 frames" in text


def test_the_objects_are_listed_with_score_and_a_bar(seen: Page) -> None:
    rows = seen.locator(".tracks li")
    assert [text.split() for text in rows.locator(".name").all_inner_texts()] == [
        ["red", "0"],
        ["green", "1"],
        ["blue", "2"],
    ]
    assert rows.locator(".score").all_inner_texts() == ["90 %"] * 3
    assert rows.first.locator(".bar").get_attribute("aria-label") == f"seen in frames 0 to {LENGTH - 1}"


def test_masks_stay_in_step_with_the_film(seen: Page) -> None:
    for wanted in (0, 1, 17, 31, LENGTH - 1, 8):
        seen.locator(".ruler input").fill(str(wanted))
        at(seen, wanted)
        left = (5 + 3 * wanted) % (320 - 40)  # as the film was made: three pixels a frame
        assert [round(320 * edge) for edge in seen.evaluate(EDGES)] == pytest.approx([left] * 2, abs=1), wanted


def test_a_link_shows_the_result_to_others_until_it_is_withdrawn(browser: Browser, address: str, seen: Page) -> None:
    seen.get_by_role("button", name="Share a link").click()
    link = seen.get_by_label("Link to this result")
    playwright.expect(link).to_have_value(re.compile(f"{address}/shared/.+"))
    shoot(seen, "share")

    guest = opened(browser, link.input_value())
    guest.locator(".watch").wait_for()
    shoot(guest, "shared")
    assert len(guest.locator(".tracks li").all()) == 3
    guest.locator(".ruler input").fill("17")
    playwright.expect(guest.locator(".time b")).to_have_text("0:00.6")
    assert inked(guest, 0) > 1000
    guest.get_by_role("button", name="Masks").click()
    assert inked(guest, 0) == 0
    assert guest.evaluate(NAMELESS) == []
    assert guest.locator("#edit, #share, .download, input[type=file]").count() == 0
    assert [fault for fault in guest.faults if "/page/" not in fault and "/api/shared/" not in fault] == []  # type: ignore[attr-defined]

    seen.get_by_role("button", name="Withdraw").click()
    playwright.expect(seen.get_by_role("button", name="Share a link")).to_be_visible()
    guest.reload()
    playwright.expect(guest.locator("body")).to_contain_text("this link shows nothing, or was withdrawn")
    guest.close()


def test_masks_are_decoded_as_the_library_does(seen: Page) -> None:
    decoded = """async (codes) => {
      const { area, box, covers, runEnds, strokes } = await import("/page/rle.js");
      return codes.map(([counts, height, width]) => {
        const ends = runEnds(counts), pixels = [];
        for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) pixels.push(+covers(ends, height, x, y));
        const { first, tops, bottoms } = strokes(ends, height, width), painted = new Array(height * width).fill(0);
        for (let x = 0; x < width; x++) for (let k = first[x]; k < first[x + 1]; k++)
          for (let y = tops[k]; y < bottoms[k]; y++) painted[y * width + x] = 1;
        return { pixels, painted, area: area(ends), box: box(ends, height) };
      });
    }"""
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 9), (9, 1), *((int(h), int(w)) for h, w in rng.integers(1, 40, (12, 2)))]
    made = [rng.random(shape) < share for share in (0.0, 0.02, 0.5, 0.98, 1.0) for shape in shapes]
    large = np.zeros((90, 160), bool)
    large[10:80, 3:120] = True
    codes = [masks.encode(mask[None])[0] for mask in [*made, large]]
    told = seen.evaluate(decoded, [[code.counts.decode(), *code.size] for code in codes])
    for mask, code, found in zip([*made, large], codes, told, strict=True):
        assert found["pixels"] == found["painted"] == mask.ravel().astype(int).tolist()
        assert found["area"] == mask.sum()
        assert (found["box"] or [0, 0, 0, 0]) == masks.boxes([code])[0].tolist()


def test_playing_goes_on_and_stops_in_step(seen: Page) -> None:
    seen.keyboard.press("Home")
    at(seen, 0)
    seen.keyboard.press("Space")
    playwright.expect(seen.locator(".play")).to_have_attribute("aria-label", "Pause")
    playwright.expect(seen.locator(".time .frame")).not_to_have_text("frame 0")
    seen.keyboard.press("Space")
    playwright.expect(seen.locator(".play")).to_have_attribute("aria-label", "Play")
    seen.wait_for_timeout(200)
    film, mask = seen.evaluate(EDGES)
    assert abs(film - mask) < 2.5 / 320
    shoot(seen, "played")


def test_arrows_step_by_frames(seen: Page) -> None:
    seen.keyboard.press("Home")
    at(seen, 0)
    for key, wanted in (("ArrowRight", 1), ("ArrowRight", 2), ("Shift+ArrowRight", 12), ("ArrowLeft", 11), ("End", 49)):
        seen.keyboard.press(key)
        at(seen, wanted)


def test_masks_boxes_and_labels_are_toggled_at_once(seen: Page) -> None:
    masks, labels = inked(seen, 0), inked(seen, 1)
    assert masks > 0
    assert labels > 0
    seen.get_by_role("button", name="Masks", exact=True).click()
    assert inked(seen, 0) == 0
    assert seen.get_by_role("button", name="Masks", exact=True).get_attribute("aria-pressed") == "false"
    seen.keyboard.press("l")
    assert inked(seen, 1) == 0
    seen.keyboard.press("b")
    assert inked(seen, 1) > 0
    for key in "mlb":
        seen.keyboard.press(key)
    assert (inked(seen, 0), inked(seen, 1)) == (masks, labels)


def test_an_object_is_followed_alone_by_click_and_by_digit(seen: Page) -> None:
    seen.keyboard.press("Home")
    at(seen, 0)
    stage = seen.locator(".stage")
    place = stage.bounding_box()
    assert place is not None
    stage.click(position={"x": place["width"] * 20 / 320, "y": place["height"] * 30 / 180})  # on the red patch
    followed = seen.locator(".name[aria-pressed=true]")
    playwright.expect(followed).to_have_text("red0")
    shoot(seen, "followed")
    seen.keyboard.press("2")
    playwright.expect(followed).to_have_text("green1")
    seen.keyboard.press("0")
    playwright.expect(followed).to_have_count(0)


def test_cuts_are_marked_on_the_time_line_and_a_click_goes_there(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    path, other = tmp_path / "edited.mp4", np.zeros((10, *SIZE, 3), np.uint8)
    other[:, :, ::16] = (240, 230, 120)
    with VideoWriter(path, SIZE, FPS) as writer:
        for image in [
            *moving_patches(20, SIZE, COLOURS, patch=40),
            *other,
            *moving_patches(20, SIZE, COLOURS, patch=40),
        ]:
            writer.write(image)
    page = opened(browser, address, viewport={"width": 1280, "height": 900})
    page.set_input_files("#file", path)
    marks = page.locator(".timeline .cut")
    marks.first.wait_for()
    assert [mark.get_attribute("title") for mark in marks.all()] == [
        "Cut: shot 2 begins, frame 20 (0:00.8)",
        "Cut: shot 3 begins, frame 30 (0:01.2)",
    ]
    shoot(page, "cuts")
    marks.nth(1).click()
    at(page, 30)
    assert page.faults == []  # type: ignore[attr-defined]


def test_a_film_without_a_cut_has_no_mark(seen: Page) -> None:
    assert seen.locator(".timeline .cut").count() == 0


def test_a_click_on_the_time_line_jumps(seen: Page) -> None:
    bar = seen.locator(".tracks .bar").nth(1)
    place = bar.bounding_box()
    assert place is not None
    bar.click(position={"x": place["width"] * 30.5 / LENGTH, "y": 10})
    at(seen, 30)


def test_the_threshold_hides_objects(seen: Page) -> None:
    seen.locator("#threshold").fill("95")
    playwright.expect(seen.locator(".tracks li")).to_have_count(0)
    assert inked(seen, 0) == 0
    seen.locator("#threshold").fill("50")
    playwright.expect(seen.locator(".tracks li")).to_have_count(3)


@pytest.mark.parametrize(
    ("button", "name"),
    [("mp4", "overlay.mp4"), ("json", "predictions.json"), ("zip", "davis.zip"), ("csv", "tracks.csv")],
)
def test_results_can_be_taken_home(seen: Page, button: str, name: str) -> None:
    with seen.expect_download() as coming:
        seen.click(f"#get-{button}")
    assert coming.value.suggested_filename == f"three-patches-{name}"
    playwright.expect(seen.locator(f"#get-{button} small")).to_have_text(re.compile(r"^[\d.]+ [kM]B$"))
    playwright.expect(seen.locator(".downloads [role=status]")).to_have_text(re.compile(f"^{name} is made: "))
    data = Path(coming.value.path()).read_bytes()
    assert len(data) > 500
    if button == "json":
        assert len(json.loads(data)["annotations"]) == 3


def test_each_download_says_what_it_is_and_what_opens_it(seen: Page) -> None:
    words = seen.locator(".downloads .words").all_inner_texts()
    assert [text.split("\n")[0] for text in words] == [
        "Video with overlay",
        "Predictions",
        "Masks as images",
        "Table",
        "Labelled data",
    ]
    assert "Any player opens it." in words[0]
    assert "Excel" in words[3]


def test_two_models_are_compared_on_the_same_pictures(seen: Page) -> None:
    seen.click("#tab-compare")
    seen.locator("[data-side='0'] .stage").wait_for()
    seen.locator("[data-side='1'] button", has_text="Run").click()
    seen.locator("[data-side='1'] .stage").wait_for()
    playwright.expect(seen.locator(".side .small")).to_have_text([re.compile("3 objects")] * 2)
    seen.locator(".compare .scrub").fill("20")
    playwright.expect(seen.locator(".compare .time")).to_contain_text("frame 20")
    shoot(seen, "compare")
    film, mask = seen.evaluate(EDGES.replace(".stage video", ".mirror").replace(".stage canvas", ".mirror + canvas"))
    assert abs(film - mask) < 2.5 / 320


def test_attention_shows_where_the_model_looks(seen: Page) -> None:
    seen.click("#tab-attention")
    seen.locator(".aim").click(position={"x": 60, "y": 60})
    seen.locator(".maps canvas").nth(4).wait_for()
    shoot(seen, "attention")
    assert "gaze" in seen.locator(".maps figcaption").all_inner_texts()[0]


def test_attention_is_asked_by_keys_and_the_last_question_is_answered(seen: Page) -> None:
    seen.click("#tab-attention")
    across, down = seen.locator(".axis input").all()
    told, pictures = seen.locator(".maps > p"), seen.locator(".maps canvas")
    for x, y in ((300, 20), (40, 90)):
        across.fill(str(x))
        down.fill(str(y))
        down.press("Enter")
    playwright.expect(told).to_have_text("From the ring, at (40, 90) of frame 0, the model looks here:")
    playwright.expect(pictures.first).to_have_attribute("aria-label", re.compile(r"most at \d+ % from the left, \d+ %"))
    white = """canvas => new Promise((done) => {
      const look = () => {
        const at = [canvas.width * (40.5 / 320) - 11, canvas.height * (90.5 / 180)];
        const [r, g, b] = canvas.getContext("2d").getImageData(...at, 1, 1).data;
        if (r > 240 && g > 240 && b > 240) done(true); else setTimeout(look, 50);
      };
      look();
    })"""
    for picture in pictures.all():
        assert picture.evaluate(white), "a ring marks the point in every picture"
    seen.get_by_role("button", name="Look").press("Enter")
    playwright.expect(seen.get_by_role("button", name="Look")).to_be_focused()


def test_another_model_is_asked_the_same_question_and_its_pictures_show_through(seen: Page) -> None:
    seen.click("#tab-attention")
    seen.locator(".aim").click(position={"x": 60, "y": 60})
    seen.locator(".maps canvas").nth(4).wait_for()
    seen.select_option(".transport select", "attending-everywhere")
    caption = seen.locator(".maps figcaption")
    playwright.expect(caption).to_have_count(1)
    assert caption.evaluate("text => text.textContent") == "frame 5 · wide gaze, 7\N{NO-BREAK SPACE}%"
    spread = """canvas => new Promise((done) => {  // of the half without the ring
      const look = () => {
        const { data } = canvas.getContext("2d").getImageData(0, canvas.height / 2, canvas.width, canvas.height / 2);
        let low = 255, high = 0;
        for (let at = 0; at < data.length; at += 4) { low = Math.min(low, data[at]); high = Math.max(high, data[at]); }
        if (data[3]) done(high - low); else setTimeout(look, 50);
      };
      look();
    })"""
    shoot(seen, "attention-everywhere")
    assert seen.locator(".maps canvas").evaluate(spread) > 20


def test_a_cancelled_video_is_kept_and_looked_at_with_other_choices(seen: Page, film: Path, address: str) -> None:
    seen.goto(address)
    seen.locator(".film", has_text="three patches").wait_for()
    seen.set_input_files("#file", {"name": "other.mp4", "mimeType": "video/mp4", "buffer": film.read_bytes()})
    playwright.expect(seen.locator(".progress p")).to_contain_text("frames/s")
    seen.get_by_role("button", name="Cancel").click()
    playwright.expect(seen.locator(".card [role=status]")).to_have_text("Cancelled. The video is kept.")
    shoot(seen, "cancelled")
    seen.get_by_role("button", name="All videos").click()
    seen.locator(".film", has_text="other").click()
    playwright.expect(seen.locator(".card [role=status]")).to_contain_text("50 frames")
    seen.select_option("#model", "attending")
    seen.fill("#classes", "red")
    seen.select_option("#score", "0.7")
    seen.get_by_role("button", name="Find objects").click()
    playwright.expect(seen.locator(".tracks li .name")).to_have_count(1)
    playwright.expect(seen.locator(".threshold output")).to_have_text("70 % · 1 object")


def test_a_finished_video_is_looked_at_again_from_the_list_and_both_results_stay(seen: Page, address: str) -> None:
    seen.goto(address)
    seen.get_by_role("button", name="Look again at other.mp4").click()
    seen.fill("#classes", "")
    seen.get_by_role("button", name="Find objects").click()
    playwright.expect(seen.locator(".tracks li .name")).to_have_count(3)
    choice = seen.locator("#result")
    playwright.expect(choice.locator("option")).to_have_text(["attending · red", "attending · all classes"])
    shoot(seen, "results")
    choice.select_option("attending · red")
    playwright.expect(seen.locator(".tracks li .name")).to_have_count(1)
    seen.get_by_role("button", name="Find objects").click()
    playwright.expect(seen.locator(".tracks li .name")).to_have_count(3)
    seen.get_by_role("button", name="Find objects").click()
    playwright.expect(seen.locator(".notice")).to_have_text("This is the result of these choices.")


def test_a_video_on_which_a_model_fails_is_tried_with_another(seen: Page, address: str, film: Path) -> None:
    seen.goto(address)
    seen.select_option("#model", "faulty")
    seen.set_input_files("#file", {"name": "faulty.mp4", "mimeType": "video/mp4", "buffer": film.read_bytes()})
    playwright.expect(seen.locator(".card [role=alert]")).to_contain_text("Something went wrong with this video")
    shoot(seen, "failed")
    seen.reload()
    playwright.expect(seen.locator(".card [role=alert]")).to_contain_text("Something went wrong with this video")
    seen.select_option("#model", "attending")
    seen.get_by_role("button", name="Find objects").click()
    playwright.expect(seen.locator(".tracks li .name")).to_have_count(3)


def test_a_page_that_was_refused_its_progress_asks_again(browser: Browser, address: str, film: Path) -> None:
    page = opened(browser, address)
    page.route("**/events", lambda route: route.fulfill(status=503, body="busy"), times=1)
    page.set_input_files("#file", {"name": "busy.mp4", "mimeType": "video/mp4", "buffer": film.read_bytes()})
    page.locator(".watch").wait_for()
    page.request.delete(f"{address}/api/videos/{page.request.get(f'{address}/api/videos').json()[0]['id']}")


def test_a_job_that_waits_for_space_on_the_disk_says_so(
    browser: Browser, address: str, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(browser, address)
    monkeypatch.setattr(Jobs, "disk_is_full", lambda jobs: jobs.store.jobs("queued") != [])
    page.set_input_files("#file", {"name": "full.mp4", "mimeType": "video/mp4", "buffer": film.read_bytes()})
    playwright.expect(page.locator(".progress p")).to_have_text("Waiting: the server's disk is full")
    page.get_by_role("button", name="Cancel").click()
    playwright.expect(page.locator(".card [role=status]")).to_have_text("Cancelled. The video is kept.")


def test_a_video_is_fetched_by_its_address_and_a_private_one_is_refused_in_one_line(
    browser: Browser, address: str, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(browser, address)
    with serving_files(film.parent) as files:
        page.fill("#address", f"{files}/three%20patches.mp4")
        page.click("#fetch")
        playwright.expect(page.locator(".notice")).to_have_text(
            "127.0.0.1: this address is of this machine or of a private network; only public addresses are fetched."
        )
        monkeypatch.setattr("tubelet.core.untrusted.public_hosts.is_public", lambda address: True)
        page.fill("#address", f"{files}/three%20patches.mp4")
        page.keyboard.press("Enter")
        playwright.expect(page.locator(".title h1")).to_have_text("three patches.mp4")
        page.goto(address)
        page.fill("#address", f"{files}/endless")
        page.click("#fetch")
        playwright.expect(page.locator(".progress p")).to_have_text(re.compile(r"Fetching · [\d.]+ (k|M)B"))
        shoot(page, "fetching")
        page.get_by_role("button", name="Cancel").click()
        playwright.expect(page.locator("#address")).to_be_visible()
    assert page.faults == []  # type: ignore[attr-defined]


def test_a_file_that_is_no_video_is_one_clear_line(browser: Browser, address: str, tmp_path: Path) -> None:
    page = opened(browser, address)
    (tmp_path / "film.mp4").write_bytes(b"not a film" * 100)
    page.set_input_files("#file", tmp_path / "film.mp4")
    playwright.expect(page.get_by_role("alert")).to_have_text("This file is not a video that can be read.")
    page.locator(".drop").wait_for()


def test_on_a_phone_in_the_dark_nothing_is_cut_off(browser: Browser, address: str, seen: Page) -> None:
    page = opened(
        browser, address, viewport={"width": 375, "height": 760}, color_scheme="dark", is_mobile=True, has_touch=True
    )
    page.locator(".film").first.wait_for()
    assert page.evaluate(OVERFLOW) <= 0
    shoot(page, "phone-start")
    page.locator(".film", has_text="three patches").first.tap()
    for tab, part in (("watch", ".tracks li"), ("compare", ".side .stage"), ("attention", ".aim")):
        page.locator(f"#tab-{tab}").tap()
        page.locator(part).first.wait_for()
        assert page.evaluate(OVERFLOW) <= 0, tab
        shoot(page, f"phone-{tab}")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 21)"
    assert page.faults == []  # type: ignore[attr-defined]


def test_classes_are_chosen_and_a_wrong_one_is_told_with_the_nearest(
    browser: Browser, address: str, film: Path
) -> None:
    page = opened(browser, address, viewport={"width": 1280, "height": 900})
    page.fill("#classes", "green, red")
    page.set_input_files("#file", film)
    rows = page.locator(".tracks li .name")
    playwright.expect(rows).to_have_count(2)
    assert page.locator("#classes").input_value() == "green, red"
    shoot(page, "classes")
    page.fill("#classes", "blu")
    with page.expect_response(lambda answer: answer.status == 422):
        page.keyboard.press("Enter")
    playwright.expect(page.get_by_role("alert").first).to_have_text("No class 'blu'; did you mean 'blue'?")
    page.fill("#classes", "blue")
    page.keyboard.press("Enter")
    playwright.expect(rows).to_have_count(1)
    assert rows.all_inner_texts()[0].split()[0] == "blue"
    page.faults.clear()  # type: ignore[attr-defined]  # the browser's word on the refusal


def test_every_picture_of_a_state_is_checked_by_axe(seen: Page) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe is not installed")
    seen.evaluate("document.querySelector('h1').innerHTML = '<img src=/page/icon.svg><button></button>'")
    with pytest.raises(AssertionError, match=r"(?s)button-name.*image-alt"):
        shoot(seen, "broken")


def test_every_control_has_a_name_for_screen_readers(seen: Page, address: str) -> None:
    seen.goto(address)
    seen.locator(".film").first.click()
    seen.locator(".tracks li").first.wait_for()
    assert seen.evaluate(NAMELESS) == []
