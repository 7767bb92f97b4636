"""The page in a headless Chromium: first paint, bytes, masks and edits of a 720p result of 300 frames and 10 objects.

python benchmarks/bench_page.py
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.apps import serve
from tubelet.apps.web import results, server
from tubelet.apps.web.guard import Access
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.store import Film, Store, new_id
from tubelet.apps.web.limits import Limits
from tubelet.core import masks
from tubelet.core.types import Track
from tubelet.inference.results import VideoPrediction
from tubelet.video.reader import open_video
from tubelet.video.writer import VideoWriter

HEIGHT, WIDTH, FRAMES, OBJECTS = 720, 1280, 300, 10
ROUNDS = 9

TOGGLE = """async () => {
  const button = [...document.querySelectorAll(".toggle")].find((b) => b.textContent === "Masks");
  const work = [], shown = [];
  for (let n = 0; n < 60; n++) {
    await new Promise(requestAnimationFrame);
    const start = performance.now();
    button.click();
    work.push(performance.now() - start);
    await new Promise(requestAnimationFrame);
    shown.push(performance.now() - start);
  }
  return { work, shown };
}"""
SHOW = """async () => {
  const { runEnds, area, box, strokes } = await import("/page/rle.js");
  const { Result, MaskCanvas } = await import("/page/masks.js");
  const job = (await (await fetch("/api/videos")).json())[0].jobs[0];
  const result = new Result(await (await fetch(`/api/jobs/${job.id}/result`)).json());
  const canvas = new MaskCanvas(document.createElement("canvas"));
  const options = { masks: true, threshold: 0.5, alone: null }, times = [];
  for (let frame = 0; frame < result.length; frame++) {
    const start = performance.now();
    canvas.paint(result, frame, options, 1280);
    times.push(performance.now() - start);
  }
  return times;
}"""
EDIT = """async (verbs) => {
  const line = document.querySelector(".edit > p"), times = {};
  const shown = (text) => new Promise((done) => {
    const drawn = () => requestAnimationFrame(() => done(performance.now()));
    const look = () => (line.textContent.startsWith(text) ? drawn() : setTimeout(look));
    look();
  });
  document.querySelector("#edit").click();
  for (let n = 0; n < 30; n++) for (const [name, button] of Object.entries(verbs)) {
    document.querySelectorAll(".tracks .name")[n % 10].click();
    await new Promise((done) => setTimeout(done, 100));
    for (const [what, text, action] of [[name, "Done", () => document.querySelector(button).click()],
                                        ["undo", "Undone", () => document.querySelector("#edit-undo").click()]]) {
      line.textContent = "";
      const start = performance.now();
      action();
      (times[what] ??= []).push(await shown(text) - start);
      await new Promise((done) => setTimeout(done, 50));
    }
  }
  return times;
}"""
PAINT = """async () => ({
  paint: await new Promise((told) => new PerformanceObserver((list) => {
    const entry = list.getEntriesByName("first-contentful-paint")[0];
    if (entry) told(entry.startTime);
  }).observe({ type: "paint", buffered: true })),
  bytes: [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
      .reduce((sum, entry) => sum + entry.transferSize, 0),
})"""


def film(folder: Path) -> Path:
    """Noise that moves: 720p, 300 frames."""
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(0, 255, (45, 100, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    with VideoWriter(folder / "source.mp4", (HEIGHT, WIDTH), 30) as writer:
        for t in range(FRAMES):
            writer.write(np.ascontiguousarray(ground[:, t % 300 : t % 300 + WIDTH]))
    return folder / "source.mp4"


def tracks() -> tuple[Track, ...]:
    """Ten wobbly discs that wander, of 150 to 260 pixels across, with ragged rims as models draw them."""
    made: list[list[masks.RLE]] = [[] for _ in range(OBJECTS)]
    canvas = np.zeros((OBJECTS, HEIGHT, WIDTH), bool)
    for t in range(FRAMES):
        canvas[:] = False
        for n in range(OBJECTS):
            across, down = int(640 + 480 * np.cos(0.02 * t + n)), int(360 + 200 * np.sin(0.03 * t + 2 * n))
            top, left = max(down - 150, 0), max(across - 150, 0)
            region = canvas[n, top : down + 150, left : across + 150]
            rows, columns = np.ogrid[: region.shape[0], : region.shape[1]]
            rows, columns = rows - (down - top), columns - (across - left)
            angle = np.arctan2(rows, columns)
            radius = 75 + 6 * n + 8 * np.sin(7 * angle + t / 5) + 3 * np.sin(31 * angle)
            region[:] = rows**2 + columns**2 < radius**2
        for n, rle in enumerate(masks.encode(canvas)):
            made[n].append(rle)
    return tuple(Track(id=n, label=n, score=0.9, rles=tuple(rles)) for n, rles in enumerate(made))


def fill(store: Store) -> None:
    """Put a finished job into the list, as the worker would."""
    with store.scratch() as folder:
        film(folder).rename(folder / "source")
        video = open_video(folder / "source")
        size = (folder / "source").stat().st_size
        entry = Film(
            id=new_id(), name="bench.mp4", example=False, bytes=size, width=WIDTH, height=HEIGHT, frames=FRAMES,
            seconds=FRAMES / 30, playable=True, webm=False, created=time.time(),
        )  # fmt: skip
        prediction = VideoPrediction(
            video="bench", size=(HEIGHT, WIDTH), length=FRAMES, tracks=tracks(),
            classes=tuple(f"class {n}" for n in range(OBJECTS)), source=video,
        )  # fmt: skip
        results.write(folder / results.RESULT, prediction)
        result = (folder / results.RESULT).read_bytes()
        store.add_video(entry, folder)
    job = store.add_job(entry.id, "bench", None, None)
    store.job_folder(job.id).mkdir()
    (store.job_folder(job.id) / results.RESULT).write_bytes(result)
    store.finish(job.id, OBJECTS, 1.0)
    print(f"result: {len(result) / 1e3:.0f} kB packed")


def told(name: str, values: list[float]) -> None:
    ordered = sorted(values)
    middle, high = statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))]
    print(f"{name:34} median {middle:6.1f} ms, 95 % under {high:6.1f} ms, longest {ordered[-1]:6.1f} ms")


def measure(address: str, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        paints: list[float] = []
        for _ in range(ROUNDS):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.goto(address)
            page.locator(".film").wait_for()
            facts: dict[str, Any] = page.evaluate(PAINT)
            paints.append(facts["paint"])
            page.context.close()
        told("first paint, empty cache", paints)
        print(f"{'bytes of the page, no video':34} {facts['bytes'] / 1e3:.1f} kB")
        page = browser.new_context(viewport={"width": 1500, "height": 1300}).new_page()
        page.goto(address)
        page.locator(".film").click()
        page.locator(".tracks li").first.wait_for()
        page.locator("video").evaluate(
            "film => film.readyState > 1 || new Promise((done) => { film.onloadeddata = done })"
        )
        page.wait_for_timeout(500)
        print(f"masks are painted at {page.locator('.stage canvas').first.evaluate('c => `${c.width} x ${c.height}`')}")
        toggled = page.evaluate(TOGGLE)
        told("toggling masks: the page's work", toggled["work"])
        told("toggling masks: to the next frame", toggled["shown"])
        told("decoding and painting a new frame", page.evaluate(SHOW))
        page.locator(".ruler input").fill(str(FRAMES // 2))
        verbs = {"delete": "#edit-delete", "split": "#edit-split"}
        for name, times in page.evaluate(EDIT, verbs).items():
            told(f"edit: {name}, to the next frame", times)
        browser.close()


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("no Chromium here: nothing measured")
        sys.exit()
    import uvicorn

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        fill(store)
        jobs = Jobs(store, Limits(), lambda name: None, ["bench"])  # no worker: nothing is computed here
        jobs.models.described = [
            {"name": "bench", "classes": [], "attends": False, "follows": False, "window": {"length": 1, "stride": 1}}
        ]
        listener = serve.listen("127.0.0.1", 0)
        settings = uvicorn.Config(server.build(jobs, Access()), log_config=None, ws="none", lifespan="off")
        running = uvicorn.Server(settings)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        measure(f"http://127.0.0.1:{listener.getsockname()[1]}", chromium)
        running.should_exit = True
        thread.join(5)
        store.close()


if __name__ == "__main__":
    main()
