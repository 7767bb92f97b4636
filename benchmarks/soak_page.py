"""A soak of the page: users upload, ask, edit, cancel and share for minutes, while workers are killed.

    python benchmarks/soak_page.py --users 6 --minutes 5

Each user is a thread that does one random thing after the other, as a browser would, against `tubelet serve` in a
process of its own on this machine. Now and then the worker is killed. At the end nobody asks any more, and every job
must come to its end. Printed: requests by status, errors by kind, jobs by how they ended, the server's memory.

A refusal that the server explains (409, 422, 429, 503, 507) is an answer; any other status of 400 and more, a
connection that breaks off, and a job that never ends is wrong. A user who did not wait for an answer is counted, and
not wrong: how long that takes depends on the machine. The bundled model is used, and clips are made here.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tubelet.apps.web.users import hash_of, new_token
from tubelet.video.writer import VideoWriter

SIZE = (90, 160)
LENGTHS = (6, 12, 40)  # frames
EXPLAINED = (409, 422, 429, 503, 507)
PATIENCE = 120.0  # seconds that a user waits for an answer
SETTLING = 300.0  # seconds after which a job must end, while no more are asked for
MEMORY_EVERY = 5.0  # seconds


@dataclass(frozen=True)
class Sample:
    """What the server has at one time."""

    seconds: float  # since the start
    server: float  # MB
    worker: float  # MB
    files: int  # that the server has open, sockets too
    threads: int  # of the server


class Figures:
    """What happened; filled by all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.statuses: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.impatient = 0  # requests without an answer in time
        self.jobs: Counter[str] = Counter()
        self.kills = 0
        self.memory: list[Sample] = []

    def note(self, counter: Counter[str], key: str) -> None:
        with self._lock:
            counter[key] += 1

    def note_wrong(self, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} wrong: {what}", file=sys.stderr, flush=True)
        self.note(self.wrong, what)

    def note_silence(self, kind: str, error: httpx.HTTPError) -> None:
        """Count a request that got no answer."""
        if not isinstance(error, httpx.ReadTimeout):
            self.note_wrong(f"{kind}: {type(error).__name__} {error}")
            return
        with self._lock:
            self.impatient += 1


class Soaker:
    """One user: a token, a few videos, and a random next step."""

    def __init__(self, address: str, token: str, clips: list[bytes], figures: Figures, seed: int, number: int) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self.client = httpx.Client(
            base_url=address,
            headers=headers,
            timeout=PATIENCE,
            transport=httpx.HTTPTransport(local_address=f"127.0.0.{2 + number}"),  # each user has an address
        )
        self.clips = clips
        self.figures = figures
        self.random = random.Random(seed)
        self.jobs: list[str] = []  # that were asked for and not removed

    def soak(self, end: float) -> None:
        steps = [
            (4, self.upload), (3, self.look), (3, self.edit), (2, self.watch_events), (2, self.download),
            (2, self.cancel), (1, self.share), (1, self.remove_video), (1, self.guess_at_others), (1, self.hang_up),
        ]  # fmt: skip
        weights = [weight for weight, _ in steps]
        while time.monotonic() < end:
            _, step = self.random.choices(steps, weights)[0]
            try:
                step()
            except Exception as error:  # of this script, or an answer of another form
                self.figures.note_wrong(f"{step.__name__}: {type(error).__name__} {error}")
            time.sleep(self.random.uniform(0, 0.3))

    def ask(self, method: str, path: str, **content: Any) -> Any:
        """The JSON of an answer, or an empty text; None if it was refused."""
        try:
            answer = self.client.request(method, path, **content)
        except httpx.HTTPError as error:
            self.figures.note_silence(method, error)
            return None
        self.figures.note(self.figures.statuses, str(answer.status_code))
        if answer.status_code >= 400 and answer.status_code not in (404, *EXPLAINED):
            self.figures.note_wrong(f"{method} {answer.status_code}: {answer.text[:80]}")
        if answer.status_code >= 400:
            return None
        is_json = answer.headers.get("content-type", "").startswith("application/json") and answer.content
        return answer.json() if is_json else ""

    # steps

    def upload(self) -> None:
        kind = self.random.random()
        clip = self.random.choice(self.clips)
        data = clip[: len(clip) // 3] if kind < 0.1 else os.urandom(5000) if kind < 0.2 else clip
        film = self.ask("POST", "/api/videos", content=data, headers={"X-Name": "clip.mp4"})
        if film is not None:
            job = self.ask("POST", "/api/jobs", json={"video": film["id"], "model": "default"})
            if job is not None:
                self.jobs.append(job["id"])

    def look(self) -> None:
        self.ask("GET", "/api/about")
        for film in (self.ask("GET", "/api/videos") or [])[:3]:
            self.ask("GET", f"/api/videos/{film['id']}/film", headers={"Range": "bytes=0-1000"})

    def done(self) -> str | None:
        """A job of this user that is finished."""
        videos = self.ask("GET", "/api/videos") or []
        ids = [job["id"] for video in videos for job in video["jobs"] if job["state"] == "done"]
        return self.random.choice(ids) if ids else None

    def edit(self) -> None:
        job = self.done()
        state = self.ask("GET", f"/api/jobs/{job}/edits") if job else None
        if not state:
            return
        revision = state["revision"]
        if state["ids"] and self.random.random() < 0.5:
            track = self.random.choice(state["ids"])
            change = {"kind": "rename", "track": track, "name": self.random.choice(["goat", "cow"])}
            self.ask("POST", f"/api/jobs/{job}/edits?revision={revision}", json=change)
        else:
            self.ask("POST", f"/api/jobs/{job}/{self.random.choice(['undo', 'redo'])}?revision={revision}")
        self.ask("PUT", f"/api/jobs/{job}/seen", json={"frames": [[0, 3]]})
        self.ask("GET", f"/api/jobs/{job}/result")

    def watch_events(self) -> None:
        """Follow a job for a while, then close the connection."""
        if not self.jobs:
            return
        end = time.monotonic() + self.random.uniform(0.2, 3)
        try:
            with self.client.stream("GET", f"/api/jobs/{self.random.choice(self.jobs)}/events") as events:
                self.figures.note(self.figures.statuses, str(events.status_code))
                for _ in events.iter_lines():
                    if time.monotonic() > end:
                        break
        except httpx.HTTPError as error:
            self.figures.note_silence("events", error)

    def download(self) -> None:
        job = self.done()
        name = self.random.choice(["predictions.json", "tracks.csv", "overlay.mp4"])
        if job and self.ask("POST", f"/api/jobs/{job}/files/{name}?threshold=0.5") is not None:
            self.ask("GET", f"/api/jobs/{job}/files/{name}?threshold=0.5")

    def cancel(self) -> None:
        if self.jobs:
            job = self.jobs.pop(self.random.randrange(len(self.jobs)))
            self.ask("DELETE", f"/api/jobs/{job}")

    def remove_video(self) -> None:
        videos = self.ask("GET", "/api/videos") or []
        if len(videos) > 3:
            self.ask("DELETE", f"/api/videos/{videos[-1]['id']}")

    def share(self) -> None:
        job = self.done()
        link = self.ask("POST", f"/api/jobs/{job}/link") if job else None
        if link is not None:
            self.ask("GET", f"/api{link['address']}/result")
            if self.random.random() < 0.5:
                self.ask("DELETE", f"/api/jobs/{job}/link")

    def guess_at_others(self) -> None:
        answer = self.ask("GET", f"/api/jobs/{self.random.randrange(1 << 64):016x}/result")
        if answer is not None:
            self.figures.note_wrong("what belongs to nobody was shown")

    def hang_up(self) -> None:
        """Leave in the middle of an upload."""
        try:
            self.client.post("/api/videos", content=self._broken_off(), headers={"X-Name": "clip.mp4"})
        except (httpx.HTTPError, ConnectionError):
            self.figures.note(self.figures.statuses, "hung up")

    def _broken_off(self) -> Any:
        yield bytes(2000)
        raise ConnectionError


def make_clips(folder: Path) -> list[bytes]:
    """Clips of a square that moves over noise."""
    noise = np.random.default_rng(0)
    clips = []
    for length in LENGTHS:
        path = folder / f"{length}.mp4"
        with VideoWriter(path, SIZE, 10) as writer:
            for t in range(length):
                image = noise.integers(0, 120, (*SIZE, 3), np.uint8)
                image[20:60, 10 + t : 50 + t] = (220, 40, 40)
                writer.write(image)
        clips.append(path.read_bytes())
    return clips


# the server


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    found = path.read_text().split() if path.exists() else []
    for task in Path(f"/proc/{pid}/task").iterdir():
        if int(task.name) != pid:
            found += (task / "children").read_text().split()
    return [int(one) for one in found]


def worker_of(pid: int) -> int | None:
    """The process with the models: of the server's children the largest."""
    able = [child for child in children(pid) if "spawn_main" in command(child)]
    return max(able, key=megabytes, default=None)


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def megabytes(pid: int) -> float:
    """Resident memory of a process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def disturb(pid: int, end: float, figures: Figures, seed: int, pause: float) -> None:
    """Kill the worker every `pause` seconds or so, and take samples."""
    chance = random.Random(seed)
    start = time.monotonic()
    next_kill = start + pause
    while time.monotonic() < end:
        worker = worker_of(pid)
        figures.memory.append(
            Sample(
                seconds=time.monotonic() - start,
                server=megabytes(pid),
                worker=megabytes(worker) if worker else 0.0,
                files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
                threads=len(list(Path(f"/proc/{pid}/task").iterdir())),
            )
        )
        if worker and time.monotonic() > next_kill:
            os.kill(worker, signal.SIGKILL)
            figures.kills += 1
            next_kill = time.monotonic() + pause * chance.uniform(0.5, 1.5)
        time.sleep(MEMORY_EVERY)


def settle(soakers: list[Soaker], figures: Figures) -> list[str]:
    """Wait until all jobs have ended, and count how; the ids of those that are left when none ends any more."""
    num_left = -1
    while True:
        jobs = [job for soaker in soakers for video in soaker.ask("GET", "/api/videos") or [] for job in video["jobs"]]
        stuck = [job["id"] for job in jobs if job["state"] in ("queued", "running")]
        if len(stuck) != num_left:
            num_left = len(stuck)
            end = time.monotonic() + SETTLING
        if not stuck or time.monotonic() > end:
            figures.jobs.update(job["state"] for job in jobs)
            return stuck
        time.sleep(1)


def report(figures: Figures, stuck: list[str], users: int, minutes: float) -> None:
    total = sum(figures.statuses.values())
    print(f"{users} users, {minutes:g} minutes, {figures.kills} workers killed: {total} requests")
    print("by status:", ", ".join(f"{status}: {n}" for status, n in sorted(figures.statuses.items())))
    print("jobs at the end:", ", ".join(f"{state}: {n}" for state, n in sorted(figures.jobs.items())) or "none")
    print(f"jobs stuck: {len(stuck)}")
    print(f"answers that were not waited for: {figures.impatient}")
    print(f"wrong: {sum(figures.wrong.values())}")
    for kind, n in figures.wrong.most_common():
        print(f"  {n} x {kind}")
    print("server: MB, open files, threads; worker: MB", flush=True)
    step = max(len(figures.memory) // 12, 1)
    for sample in figures.memory[::step]:
        usage = f"{sample.server:6.1f} {sample.files:4} {sample.threads:4} {sample.worker:7.1f}"
        print(f"  after {sample.seconds:4.0f} s: {usage}")
    later = [sample.server for sample in figures.memory if sample.seconds > 60]
    if len(later) > 3:
        half = len(later) // 2
        first, second = np.median(later[:half]), np.median(later[half:])
        print(f"server, median after the first minute: {first:.1f} in the first half, {second:.1f} in the second")


def main() -> None:
    """Start a server, soak it, and print the figures; exit code 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=6, help="at most 250")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--kill-every", type=float, default=45, help="seconds; longer than it takes to load the model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        tokens = {f"user{n}": new_token() for n in range(options.users)}
        users = Path(folder, "users.toml")
        users.write_text("".join(f'[{name}]\nsha256 = "{hash_of(token)}"\n' for name, token in tokens.items()))
        clips = make_clips(Path(folder))
        arguments = ["serve", "--port", "0", "--users", users, "--data", Path(folder, "data"), "--queue", "20"]
        arguments += ["--keep", str(5 * options.users)]
        command = [sys.executable, "-m", "tubelet", *map(str, arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                address = next(line for line in server.stdout if line.startswith("open ")).split()[1].rstrip("/")
                soakers = [
                    Soaker(address, token, clips, figures, options.seed + n, n)
                    for n, token in enumerate(tokens.values())
                ]
                end = time.monotonic() + 60 * options.minutes
                threads = [threading.Thread(target=soaker.soak, args=(end,)) for soaker in soakers]
                threads.append(
                    threading.Thread(target=disturb, args=(server.pid, end, figures, options.seed, options.kill_every))
                )
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                stuck = settle(soakers, figures)
                report(figures, stuck, options.users, options.minutes)
            finally:
                server.terminate()
    sys.exit(1 if figures.wrong or stuck else 0)


if __name__ == "__main__":
    main()
