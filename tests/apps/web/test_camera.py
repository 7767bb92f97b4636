"""The camera of a browser: pictures that are sent one by one, what is found in them, and every way it is refused."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import av
import cv2
import httpx
import numpy as np
import pytest

from page_fixtures import CHROMIUM, COLOURS, NAMELESS, OVERFLOW, SIZE, chromium, opened, serving, shoot
from toy import moving_patches
from tubelet.apps.web.jobs.queue import Jobs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = moving_patches(40, SIZE, COLOURS, patch=40)
WITHOUT = "() => { delete Navigator.prototype.mediaDevices; }"
BROKEN = """name => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("no", name); }; }"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Jobs]]:
    with serving(tmp_path_factory.mktemp("page"), ["toy", "slow", "faulty"]) as server:
        yield server


@pytest.fixture(scope="module")
def client(running: tuple[str, Jobs]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running[0], timeout=60) as asking:
        yield asking


def jpeg(picture: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def look(client: httpx.Client, session: str, body: bytes, model: str = "toy", **wish: Any) -> httpx.Response:
    return client.post("/api/camera", params={"session": session, "model": model, **wish}, content=body)


@pytest.fixture
def session(client: httpx.Client) -> Iterator[str]:
    id = secrets.token_hex(16)
    yield id
    client.delete("/api/camera", params={"session": id})


def test_pictures_are_followed_one_by_one(client: httpx.Client, session: str) -> None:
    boxes = []
    for picture in PICTURES[:3]:
        result = look(client, session, jpeg(picture)).json()
        assert (result["size"], result["length"]) == (list(SIZE), 1)
        assert [(track["id"], track["name"]) for track in result["tracks"]] == [(0, "red"), (1, "green"), (2, "blue")]
        boxes.append(result["tracks"][0]["counts"][0])
    assert len(set(boxes)) == 3  # it moves
    assert "camera=(self)" in client.get("/").headers["permissions-policy"]


def test_identities_are_those_of_the_session_and_end_with_it(client: httpx.Client, session: str) -> None:
    blue = np.zeros((*SIZE, 3), np.uint8)
    blue[20:80, 20:80] = (0, 0, 255)
    look(client, session, jpeg(PICTURES[0]))
    assert [track["id"] for track in look(client, session, jpeg(blue)).json()["tracks"]] == [2]
    client.delete("/api/camera", params={"session": session})
    assert [track["id"] for track in look(client, session, jpeg(blue)).json()["tracks"]] == [0]


def test_classes_are_kept_and_a_wrong_one_is_told(client: httpx.Client, session: str) -> None:
    result = look(client, session, jpeg(PICTURES[0]), classes=["blue"]).json()
    assert [track["name"] for track in result["tracks"]] == ["blue"]
    answer = look(client, session, jpeg(PICTURES[0]), classes=["blu"])
    assert (answer.status_code, "did you mean 'blue'?" in answer.json()["error"]) == (422, True)


@pytest.mark.parametrize(
    ("body", "model", "status", "line"),
    [
        (b"not a picture", "toy", 422, "the camera's picture: "),
        (b"", "toy", 422, "the camera's picture: "),
        (jpeg(PICTURES[0])[:300], "toy", 422, "the camera's picture: "),
        (cv2.imencode(".png", PICTURES[0])[1].tobytes(), "toy", 422, "expected a JPEG of at most 1280 pixels"),
        (jpeg(np.zeros((4, 1281, 3), np.uint8)), "toy", 422, "expected a JPEG of at most 1280 pixels"),
        (bytes(1_000_001), "toy", 413, "at most 1,000,000 bytes"),
        (jpeg(PICTURES[0]), "nonsense", 422, "does not serve such a model"),
        (jpeg(PICTURES[0]), "faulty", 422, "something went wrong with this video (RuntimeError)"),
    ],
)
def test_what_is_no_picture_is_one_line(
    client: httpx.Client, session: str, body: bytes, model: str, status: int, line: str
) -> None:
    answer = look(client, session, body, model)
    assert (answer.status_code, line in answer.json()["error"]) == (status, True), answer.text
    assert look(client, session, jpeg(PICTURES[0])).status_code == 200  # and the next one is looked at


def test_a_picture_of_another_size_is_one_line_and_the_camera_begins_anew(client: httpx.Client, session: str) -> None:
    look(client, session, jpeg(PICTURES[0]))
    answer = look(client, session, jpeg(PICTURES[0][:100]))
    assert (answer.status_code, "size" in answer.json()["error"]) == (422, True), answer.text
    assert look(client, session, jpeg(PICTURES[0][:100])).status_code == 200


def test_a_third_camera_waits(client: httpx.Client, session: str) -> None:
    others = [secrets.token_hex(16) for _ in range(2)]
    for other in others:
        assert look(client, other, jpeg(PICTURES[0])).status_code == 200
    answer = look(client, session, jpeg(PICTURES[0]))
    assert (answer.status_code, "2 cameras" in answer.json()["error"]) == (503, True)
    for other in others:
        client.delete("/api/camera", params={"session": other})
    assert look(client, session, jpeg(PICTURES[0])).status_code == 200


# in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser whose camera sees the patches."""
    path = tmp_path_factory.mktemp("camera") / "patches.y4m"
    with av.open(path, "w") as container:
        stream = container.add_stream("wrapped_avframe", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for picture in PICTURES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")))
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with chromium(*fake, f"--use-file-for-fake-video-capture={path}") as started:
        yield started


@pytest.fixture
def page(running: tuple[str, Jobs], browser: Browser) -> Iterator[Page]:
    page = opened(browser, running[0], viewport={"width": 1280, "height": 900})
    page.click("#camera")
    yield page
    page.close()


def expect(thing: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(thing)


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@in_a_browser
def test_the_camera_is_looked_at_live_one_picture_in_flight_and_stopped(page: Page) -> None:
    under_way: set[Any] = set()
    most = [0]

    def begun(request: Any) -> None:
        if request.method == "POST":
            under_way.add(request)
            most[0] = max(most[0], len(under_way))

    page.on("request", begun)
    page.on("requestfinished", lambda request: under_way.discard(request))
    shoot(page, "camera-off")
    page.select_option("#model", "slow")
    page.click("#camera-start")
    line = page.locator(".watch > [role=status]")
    facts = page.locator(".facts")
    expect(facts).to_contain_text("pictures a second · ")
    for name in COLOURS:
        expect(facts).to_contain_text(name)
    expect(line).to_have_text("Looking.")
    expect(page.locator(".stage canvas")).to_have_count(3)
    shoot(page, "camera-on")
    assert page.evaluate(NAMELESS) == []
    page.get_by_role("button", name="Stop").click()
    expect(line).to_have_text("Stopped.")
    assert most[0] == 1
    page.get_by_role("button", name="Start the camera").click()
    expect(facts).to_contain_text("pictures a second · ")
    page.get_by_role("button", name="All videos").click()
    page.locator(".drop").wait_for()
    assert page.faults == []  # type: ignore[attr-defined]


@in_a_browser
@pytest.mark.parametrize(
    ("script", "name", "line"),
    [
        (BROKEN, "NotAllowedError", "The browser may not use the camera. Allow it beside the page's address"),
        (BROKEN, "NotFoundError", "There is no camera."),
        (BROKEN, "NotReadableError", "The camera is used by another program."),
        (BROKEN, "AbortError", "The camera cannot be used: no"),
        (WITHOUT, "", "This browser gives a page no camera here: it does so at https addresses, and on this machine."),
    ],
)
def test_a_camera_that_is_refused_or_missing_is_said(page: Page, script: str, name: str, line: str) -> None:
    page.evaluate(script, name)
    page.click("#camera-start")
    expect(page.locator(".watch > [role=alert]")).to_contain_text(line)
    expect(page.get_by_role("button", name="Start the camera")).to_be_visible()
    assert page.faults == []  # type: ignore[attr-defined]
    if name == "NotAllowedError":
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate(OVERFLOW) <= 0
        shoot(page, "camera-refused-phone")


@in_a_browser
def test_a_model_that_fails_ends_the_camera_with_its_line(page: Page) -> None:
    page.select_option("#model", "faulty")
    page.click("#camera-start")
    expect(page.locator(".watch > [role=alert]")).to_contain_text("Something went wrong with this video")
    expect(page.get_by_role("button", name="Start the camera")).to_be_visible()
