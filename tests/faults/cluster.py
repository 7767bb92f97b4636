"""`batch --ray` on two nodes of this machine: workers and nodes are killed, the head goes away, writes fail.

Needs the extra `ray`. Whatever happens, every video has one outcome and the bytes of a batch without Ray, and no more
videos are worked on at once than there are workers.
"""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from faults.places import KINDS, Fault, Kind, places_of, watching
from faults.scenarios import Wrong, contents
from toy import Seen, Toy, moving_patches
from tubelet.core.types import Clip, Tracks
from tubelet.inference.many import batch
from tubelet.inference.many.batch import Settings, VideoJob, VideoOutcome
from tubelet.video.writer import VideoWriter

VIDEOS = 12
FRAMES = 6
PAUSE = 0.15  # seconds of work in each frame, so that a kill meets a video
WORKERS = 2
Kill = Callable[[Any, Sequence[int], random.Random], None]  # given the cluster and the processes at work
SETTINGS = Settings(model="toy", video=False)
STORE = 80 << 20


class Watched(Toy):
    """Takes its time, and leaves the number of its process in a folder while it has a video."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        (self.folder / str(os.getpid())).touch()
        time.sleep(PAUSE)
        return super().step(state, clip)


def open_watched(folder: str, device: str) -> Watched:
    return Watched(Path(folder))


@dataclass(frozen=True)
class Failing:
    """`batch.segment` with a fault at one place of each video, in the first process that tries it."""

    kind: Kind
    places: dict[str, int]  # by the video's name
    tried: Path  # a folder with a file for each video that has had its fault

    def __call__(self, model: Toy, job: VideoJob, out: Path, settings: Settings) -> VideoOutcome:
        mark = self.tried / job.name
        fault = Fault() if mark.exists() else Fault(self.kind, self.places.get(job.name, -1))
        mark.touch()
        with watching(out, fault):
            return batch.segment(model, job, out, settings)


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A head that does no work, and two nodes with a processor each, to which this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    tests = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    nothing = io.StringIO()  # Ray prints pages of logs of each node that is gone
    cluster = Cluster(initialize_head=True, head_node_args=head | {"_system_config": {"worker_niceness": 0}})
    try:
        for _ in range(WORKERS):
            add_node(cluster)
        environment: dict[str, Any] = {"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}}
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", runtime_env=environment)
        with redirect_stdout(nothing), redirect_stderr(nothing):
            yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Any) -> None:
    cluster.add_node(num_cpus=1, object_store_memory=STORE)


def make_videos(folder: Path) -> list[VideoJob]:
    folder.mkdir(parents=True)
    jobs = []
    for number in range(VIDEOS):
        path = folder / f"{number:02d}.mp4"
        with VideoWriter(path, (48, 64), 10, threads=1) as writer:
            for image in moving_patches(FRAMES, (48, 64), ("red", "green", "blue")[: 1 + number % 3]):
                writer.write(image)
        jobs.append(VideoJob(str(path), path.stem))
    return jobs


def kill_worker(cluster: Any, at_work: Sequence[int], source: random.Random) -> None:
    with suppress(ProcessLookupError):
        os.kill(source.choice(at_work), signal.SIGKILL)


def kill_node(cluster: Any, at_work: Sequence[int], source: random.Random) -> None:
    node = source.choice(sorted(cluster.worker_nodes, key=lambda node: str(node.unique_id)))
    cluster.remove_node(node, allow_graceful=False)
    add_node(cluster)


def storm(
    cluster: Any, jobs: Sequence[VideoJob], expected: dict[str, bytes], folder: Path, kill: Kill, kills: int, seed: int
) -> tuple[int, list[Wrong]]:
    """A batch in which something is killed at random: how often, and what was wrong."""
    from tubelet.apps.batch.cluster import share_by_ray

    working = folder / "working"
    working.mkdir(parents=True)
    source = random.Random(seed)
    done = 0
    most_at_once = 0
    next_kill = 0.0
    with ThreadPoolExecutor(1) as threads:  # Ray starts nodes in the main thread alone
        outcomes = share_by_ray(
            jobs, partial(open_watched, str(working)), folder / "out", SETTINGS, ["cpu"] * WORKERS, "auto"
        )
        result = threads.submit(list, outcomes)
        while not result.done():
            time.sleep(0.1)
            workers = at_work(working)
            most_at_once = max(most_at_once, len(workers))
            if workers and done < kills and time.monotonic() > next_kill:
                kill(cluster, workers, source)
                done += 1
                next_kill = time.monotonic() + source.uniform(1, 3)

    wrong = [*outcomes_wrong(jobs, result.result()), *results_wrong(folder / "out", expected)]
    if most_at_once > WORKERS:
        wrong.append(f"{most_at_once} videos at once with {WORKERS} workers")
    return done, wrong


def at_work(folder: Path) -> list[int]:
    """Processes that are alive and have worked on a frame just now."""
    recent = time.time() - 4 * PAUSE
    files = [path for path in folder.iterdir() if path.stat().st_mtime > recent]
    return sorted(int(path.name) for path in files if Path("/proc", path.name).exists())


def outcomes_wrong(jobs: Sequence[VideoJob], outcomes: Sequence[VideoOutcome]) -> Iterator[Wrong]:
    """Videos without an outcome, with two, or that are not done."""
    counts = Counter(outcome.folder for outcome in outcomes)
    for job in jobs:
        if counts[job.name] != 1:
            yield f"{job.name} has {counts[job.name]} outcomes"
    for outcome in outcomes:
        if outcome.status != "done":
            yield f"{outcome.folder}: {outcome.status}, {outcome.note}"


def results_wrong(out: Path, expected: dict[str, bytes]) -> Iterator[Wrong]:
    """Results that are missing, too many, or have other bytes than those of a batch without Ray."""
    now = contents(out)
    for name in sorted(now.keys() ^ expected.keys()):
        yield f"{'litter' if name in now else 'lost'}: {name}"
    for name in now.keys() & expected.keys():
        if now[name] != expected[name]:
            yield f"{name} differs"


def fail_at_places(
    jobs: Sequence[VideoJob], expected: dict[str, bytes], folder: Path, kind: Kind, places: Sequence[int]
) -> tuple[int, list[Wrong]]:
    """Let one place of each video fail or kill its worker: how many, and what was wrong."""
    from tubelet.apps.batch.cluster import share_by_ray

    (folder / "tried").mkdir(parents=True)
    out = folder / "out"
    jobs = jobs[: len(places)]
    alone = {name: data for name, data in expected.items() if Path(name).parts[0] in {job.name for job in jobs}}
    failing = Failing(kind, {job.name: place for job, place in zip(jobs, places, strict=True)}, folder / "tried")

    outcomes = {
        outcome.folder: outcome
        for outcome in share_by_ray(jobs, open_toy, out, SETTINGS, ["cpu"] * WORKERS, "auto", failing)
    }
    left = [job for job in jobs if outcomes[job.name].status == "failed"]
    wrong = [f"{job.name} has failed and looks finished" for job in left if (out / job.name / batch.MARKER).exists()]
    for job in jobs:  # as the second run of the command
        batch.fresh(job, out)
    for outcome in share_by_ray(left, open_toy, out, SETTINGS, ["cpu"] * WORKERS, "auto") if left else ():
        outcomes[outcome.folder] = outcome
    wrong += [*outcomes_wrong(jobs, list(outcomes.values())), *results_wrong(out, alone)]
    return len(places), [f"batch --ray, {kind}: {line}" for line in wrong]


def count_places(job: VideoJob, out: Path) -> int:
    """How many places a worker passes for a video."""
    with watching(out, Fault()) as places:
        batch.segment(Toy(), job, out, SETTINGS)
    return places.seen


def open_toy(device: str) -> Toy:
    return Toy()


def lose_head(jobs: Sequence[VideoJob], expected: dict[str, bytes], folder: Path) -> tuple[int, list[Wrong]]:
    """The head goes away in the middle of a batch; on another cluster, the same batch does the rest."""
    from tubelet.apps.batch.cluster import share_by_ray

    (folder / "working").mkdir(parents=True)
    out = folder / "out"
    command = [sys.executable, "-m", "faults.cluster", str(folder), *(job.source for job in jobs)]
    environment = os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    tests = Path(__file__).resolve().parents[1]
    subprocess.run(command, cwd=tests, env=environment, capture_output=True, timeout=400, check=False)

    finished = [job for job in jobs if batch.earlier(job, out, SETTINGS).outcome is not None]
    times = {job: (out / job.name / batch.MARKER).stat().st_mtime_ns for job in finished}
    wrong = [] if 0 < len(finished) < len(jobs) else [f"{len(finished)} videos were finished when the head had gone"]
    left = [job for job in jobs if job not in finished]
    with two_nodes():
        open_model = partial(open_watched, str(folder / "working"))
        outcomes = list(share_by_ray(left, open_model, out, SETTINGS, ["cpu"] * WORKERS, "auto"))
    wrong += [*outcomes_wrong(left, outcomes), *results_wrong(out, expected)]
    again = [job.name for job, time in times.items() if (out / job.name / batch.MARKER).stat().st_mtime_ns != time]
    return 1, wrong + [f"{name} was finished and is done again" for name in again]


def work_until_head_is_gone(folder: Path, jobs: Sequence[VideoJob]) -> None:
    """What `lose_head` runs in a process of its own: Ray ends the process whose head does not answer."""
    from tubelet.apps.batch.cluster import share_by_ray

    with two_nodes() as cluster:
        open_model = partial(open_watched, str(folder / "working"))
        outcomes = share_by_ray(jobs, open_model, folder / "out", SETTINGS, ["cpu"] * WORKERS, "auto")
        for number, _ in enumerate(outcomes):
            if number == 2:
                cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)


def measure(root: Path, most: int) -> Iterator[tuple[str, Counter[str], list[Wrong]]]:
    """All of it: what was tried, how often of each kind, and what was wrong."""
    jobs = make_videos(root / "videos")
    for job in jobs:
        batch.segment(Toy(), job, root / "alone", SETTINGS)
    expected = contents(root / "alone")

    kills = max(most // 4, 3)
    with two_nodes() as cluster:
        done, wrong = storm(cluster, jobs, expected, root / "workers", kill_worker, kills, seed=1)
        yield "batch --ray, workers killed", Counter(kill=done), wrong
        done, wrong = storm(cluster, jobs, expected, root / "nodes", kill_node, kills, seed=2)
        yield "batch --ray, nodes killed", Counter(kill=done), wrong
        places = places_of(count_places(jobs[0], root / "counted"), min(most, VIDEOS))
        tried: Counter[str] = Counter()
        failures: list[Wrong] = []
        for kind in KINDS[:3]:
            tried[kind], wrong = fail_at_places(jobs, expected, root / kind, kind, places)
            failures += wrong
        yield "batch --ray, places of a worker", tried, failures
    done, wrong = lose_head(jobs, expected, root / "head")
    yield "batch --ray, the head gone", Counter(kill=done), wrong


if __name__ == "__main__":
    work_until_head_is_gone(Path(sys.argv[1]), [VideoJob(name, Path(name).stem) for name in sys.argv[2:]])
