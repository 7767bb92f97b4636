"""Memory of `tubelet serve` (server and worker together) beside that of a plain process that does the same work.

    python benchmarks/bench_server_memory.py [VIDEO]

Both load the bundled model and segment the same video. Linux only: memory is the proportional set size (pages that
processes share are counted once), which adds up over processes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tubelet.apps.demo import VIDEO

PLAIN = """
import sys, tubelet
from tubelet.core.types import Prediction
prediction = tubelet.predict(tubelet.load("default", device="cpu"), sys.argv[1], threshold=0.1)
print("ready", flush=True)
sys.stdin.read()
"""


def megabytes(pid: int) -> float:
    """Proportional set size of one process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1e3 if found else 0.0


def family(pid: int) -> list[int]:
    """A process and what it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def plain(video: str) -> float:
    command = [sys.executable, "-c", PLAIN, video]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used = megabytes(process.pid)
        process.kill()
    return used


def served(video: str) -> dict[str, float]:
    """Memory of a server, alone and with its worker, after it has done the video and all downloads."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tubelet", "serve", "--port", "0", "--data", folder, "--device", "cpu"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            try:
                return visited(process.stdout.readline().split()[1], process.pid, video)
            finally:
                process.terminate()


def visited(address: str, pid: int, video: str) -> dict[str, float]:
    client = httpx.Client(base_url=address, timeout=600)
    used = {"server, model loaded": megabytes(pid), "all, model loaded": total(pid)}
    film = client.post("/api/videos", content=Path(video).read_bytes()).json()
    job = client.post("/api/jobs", json={"video": film["id"], "model": "default"}).json()
    while (state := client.get(f"/api/jobs/{job['id']}").json())["state"] != "done":
        if state["state"] == "failed":
            raise SystemExit(state["error"])
        time.sleep(0.2)
    used |= {"server, after a video": megabytes(pid), "all, after a video": total(pid)}
    for name in ("overlay.mp4", "predictions.json", "davis.zip", "tracks.csv"):
        client.get(f"/api/jobs/{job['id']}/files/{name}").raise_for_status()
    return used | {"server, after downloads": megabytes(pid), "all, after downloads": total(pid)}


def total(pid: int) -> float:
    return sum(megabytes(one) for one in family(pid))


def main() -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        print("this machine does not tell: nothing measured")
        return
    video = sys.argv[1] if len(sys.argv) > 1 else str(VIDEO)
    alone = plain(video)
    print(f"{'plain process, after the video':34} {alone:7.0f} MB")
    for name, used in served(video).items():
        beside = f", {used - alone:+.0f} MB beside the plain process" if name.startswith("all, after") else ""
        print(f"{name:34} {used:7.0f} MB{beside}")


if __name__ == "__main__":
    main()
