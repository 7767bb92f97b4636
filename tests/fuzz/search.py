"""Look for damage that makes a reader raise, hang, crash or take too much memory; hypothesis makes it small."""

from __future__ import annotations

import faulthandler
import os
import random
import resource
import shutil
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fuzz.mutations import mutated
from fuzz.targets import Target
from tubelet.core.errors import TubeletError

MEMORY = 3 << 30  # bytes of address space beyond those at the start
SECONDS = 30  # of a processor, for one damaged folder; machines that search are busy
PATIENCE = 10  # times as long by the clock, for what waits


def prepare(target: Target, folder: Path) -> Path:
    """Write a target's valid files."""
    folder.mkdir(parents=True)
    target.write(folder)
    return folder


def search(target: Target, folder: Path, *, number: int, examples: int, seconds: int = 0) -> Counter[str]:
    """Read so many damaged folders, another sequence for each `number`; raises what the smallest wrong one raised.

    `folder` then holds that one.
    """
    whole = {path: path.read_bytes() for path in target.files(folder)}
    ends: Counter[str] = Counter()

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def try_one(source: random.Random) -> None:
        for path, data in whole.items():
            path.write_bytes(data)
        path = source.choice(list(whole))
        path.write_bytes(mutated(path.name, whole[path], source))
        _limit(seconds)
        ends[_end(target, folder)] += 1
        _limit(0)

    assert _end(target, folder) == "read", f"{target.name}: the valid files are refused"
    try_one()
    for path, data in whole.items():
        path.write_bytes(data)
    return ends


def _limit(seconds: int) -> None:
    """End this process after so many seconds of work, or many more of waiting; 0: never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(PATIENCE * seconds)


def _end(target: Target, folder: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target.read(folder)
        except TubeletError:
            return "refused"
    return "read"


def search_apart(target: Target, folder: Path, *, number: int, examples: int) -> tuple[Counter[str], str]:
    """`search` in a child process with limits of memory and time: how reading ended, and what was wrong, if any."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _search_in_child(lambda: search(target, folder, number=number, examples=examples, seconds=SECONDS), writing)

    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        read, refused = text.split()
        return Counter(read=int(read), refused=int(refused)), ""
    if code < 0:
        reason = (
            "took too long" if -code in (signal.SIGPROF, signal.SIGALRM) else f"crashed: {signal.Signals(-code).name}"
        )
        return Counter(), f"{target.name}: {reason}\n{text}"
    return Counter(), f"{target.name}: {text}"


def _search_in_child(work: Callable[[], Counter[str]], answer: int) -> None:
    code = 1
    try:
        faulthandler.disable()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ends = work()
        os.write(answer, f"{ends['read']} {ends['refused']}".encode())
        code = 0
    except BaseException:
        os.write(answer, traceback.format_exc()[-6000:].encode(errors="replace"))
    finally:
        os._exit(code)


def keep(folder: Path, out: Path, name: str) -> Path:
    """Copy a wrong folder to where people will look."""
    kept = out / name
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("server"))
    return kept
