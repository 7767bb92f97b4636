"""The page in Firefox: upload, masks in step with the film, editing, the camera, and the rules of axe."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import av
import pytest

from firefox import FIREFOX, Firefox
from page_fixtures import COLOURS, EDGES, HAS_AXE, SIZE, VIOLATIONS, serving
from toy import moving_patches

pytestmark = pytest.mark.skipif(FIREFOX is None, reason="no Firefox on this machine")
LENGTH = 24
SEEK = """const range = document.querySelector(".ruler input");
    range.value = args[0];
    range.dispatchEvent(new Event("input"));"""
LOADED = """const film = document.querySelector("video");
    if (film.readyState < 2) await new Promise((done) => { film.onloadeddata = done; });"""


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """The page with a result on it."""
    with serving(tmp_path_factory.mktemp("page"), ["following"]) as (address, _):
        browser = Firefox()
        try:
            browser.open(address)
            browser.wait(".drop")
            check(browser)
            browser.type("#file", str(webm(tmp_path_factory.mktemp("film") / "patches.webm")))
            browser.wait(".tracks li")
            browser.run(LOADED)
            yield browser
        finally:
            browser.close()


def webm(path: Path) -> Path:
    """The patches in a format that every Firefox plays, whatever else is on the machine."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = SIZE[1], SIZE[0], "yuv420p", 2_000_000
        for picture in moving_patches(LENGTH, SIZE, COLOURS, patch=40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


def check(firefox: Firefox) -> None:
    """Raise AssertionError if the state breaks a rule of axe."""
    if HAS_AXE:
        axe = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
        assert firefox.run(f"{axe}; return await ({VIOLATIONS})()") == []


def test_masks_are_in_step_with_the_film(firefox: Firefox) -> None:
    check(firefox)
    for wanted in (0, 1, 17, LENGTH - 1, 8):
        firefox.run(SEEK, wanted)
        firefox.wait(".time .frame", f"frame {wanted}")
        edges = firefox.run(f"return ({EDGES})()")
        assert [320 * edge for edge in edges] == pytest.approx([5 + 3 * wanted] * 2, abs=1.5), wanted


def test_the_film_plays(firefox: Firefox) -> None:
    firefox.run("document.querySelector('.ruler input').focus()")
    firefox.click(".play")
    firefox.wait(".time .frame", f"frame {LENGTH - 1}")


def test_an_object_is_deleted_and_comes_back(firefox: Firefox) -> None:
    firefox.click("#edit")
    firefox.click(".tracks li .name")
    check(firefox)
    firefox.click("#edit-delete")
    firefox.wait(".edit summary", "1 edit, saved")
    assert firefox.run("return document.querySelectorAll('.tracks li').length") == 2
    firefox.click("#edit-undo")
    firefox.wait(".edit summary", "No edits yet")
    assert firefox.run("return document.querySelectorAll('.tracks li').length") == 3
    firefox.click("#edit")


def test_the_camera_is_looked_at(firefox: Firefox) -> None:
    firefox.run("location.hash = '/camera'")
    firefox.wait("#camera-start")
    firefox.click("#camera-start")
    firefox.wait(".facts", "pictures a second")
    check(firefox)
    firefox.click("#camera-start")
    firefox.wait(".watch > [role=status]", "Stopped.")
