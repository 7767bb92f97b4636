"""A server with its page, and a browser that opens it; for tests of the page."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import web_models
from toy import moving_patches
from tubelet.apps import serve
from tubelet.apps.web import server
from tubelet.apps.web.guard import Access
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.store import Store
from tubelet.apps.web.limits import Limits
from tubelet.video.writer import VideoWriter

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 20_000  # that anything may take, in milliseconds: machines that run tests are busy
SHOTS = os.environ.get("TUBELET_SCREENSHOTS")  # a folder, to look at each state
SIZE, FPS = (180, 320), 25
COLOURS = ("red", "blue", "green")

HAS_AXE = find_spec("axe_playwright_python") is not None
VIOLATIONS = """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
    .flatMap(({ id, nodes }) => nodes.map(({ html, any }) => `${id}: ${html.slice(0, 99)} ${any[0]?.message ?? ""}`))"""

# the left edge of red pixels in the film and of any in the mask, in the upper third, as shares of the width
EDGES = """() => {
  const edge = (source, width, height, is) => {
    const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
    context.drawImage(source, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    for (let x = 0; x < width; x++) for (let y = 4; y < height / 3 - 4; y++) {
      const k = (y * width + x) * 4;
      if (is(data[k], data[k + 1], data[k + 2], data[k + 3])) return x / width;
    }
    return null;
  };
  const video = document.querySelector(".stage video"), mask = document.querySelector(".stage canvas");
  return [edge(video, 320, 180, (r, g, b) => r > 180 && g < 60 && b < 60),
          edge(mask, mask.width, mask.height, (r, g, b, a) => a > 60)];
}"""
NAMELESS = """() => [...document.querySelectorAll("button, input, select, a, video, [role=img], progress")]
    .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.innerText || e.labels?.length))
    .map((e) => e.outerHTML.slice(0, 80))"""
OVERFLOW = "() => document.documentElement.scrollWidth - screen.width"  # a phone makes innerWidth as wide as it needs


@contextmanager
def serving(root: Path, models: Sequence[str]) -> Iterator[tuple[str, Jobs]]:
    """A server in a thread, at a free port: its address and its jobs."""
    store = Store(root)
    jobs = Jobs(store, Limits(), web_models.open_model, models)
    jobs.open()
    listener = serve.listen("127.0.0.1", 0)
    running = serve.configured(server.build(jobs, Access()))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", jobs
    jobs.end_streams()
    running.should_exit = True
    thread.join(5)
    jobs.close()
    store.close()


class _FileHandler(SimpleHTTPRequestHandler):
    """Serves files, and what has no end under /endless."""

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is its own."""

    def do_GET(self) -> None:
        if self.path != "/endless":
            super().do_GET()
            return
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 14))
                time.sleep(0.01)  # it lasts minutes until it is too large


@contextmanager
def serving_files(folder: Path) -> Iterator[str]:
    """Another server, which a video is fetched from: its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_FileHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A headless browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    playwright.expect.set_options(timeout=20_000)  # a busy machine shows the right thing late
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        yield browser
        browser.close()


def opened(browser: Browser, address: str, **settings: Any) -> Page:
    """A page that notes any error and any request elsewhere in its `faults`."""
    page = browser.new_context(**settings).new_page()
    page.set_default_timeout(SECONDS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on(
        "request", lambda asked: None if asked.url.startswith((address, "blob:", "data:")) else faults.append(asked.url)
    )
    page.faults = faults  # type: ignore[attr-defined]
    page.goto(address)
    return page


def write_film(path: Path, length: int) -> Path:
    """A film of three patches that move to the right, three pixels a frame."""
    with VideoWriter(path, SIZE, FPS) as writer:
        for frame in moving_patches(length, SIZE, COLOURS, patch=40):
            writer.write(frame)
    return path


def shoot(page: Page, name: str) -> None:
    """A state of the page: it breaks no rule of axe, and its picture is stored if a folder for them is given."""
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))
    if HAS_AXE:
        page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
        violations = page.evaluate(VIOLATIONS)
        assert not violations, f"{name}: {violations}"
