"""A process that has locked itself up: tried from the inside, in a process of its own."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tubelet.apps.web import sandbox
from tubelet.apps.web.jobs.room import room_for
from tubelet.apps.web.limits import Limits

HEAD = """
import ctypes, errno, json, os, socket, subprocess, sys, threading
from pathlib import Path
from tubelet.apps.web import probe, sandbox
inside, outside = Path(sys.argv[1]), Path(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    except Exception as error:
        return type(error).__name__
    return "fine"

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
"""

WORKER = """
room = sandbox.Room(reads=[inside / "read"], writes=[inside / "write"], temporary=inside / "write", memory=1 << 30,
                    file_bytes=1_000_000, seconds=60)
early = []
go = threading.Event()
thread = threading.Thread(target=lambda: (go.wait(), early.append(outcome(socket.socket))))
thread.start()
sandbox.lock_up(room)
sandbox.deny_calls()
go.set()
thread.join()
column, _, _ = sandbox.PROCESSORS[os.uname().machine]
number = {name: pair[column] for name, pair in sandbox.DENIED.items()}
import tempfile
print(json.dumps({
    "a socket": outcome(socket.socket),
    "a socket of IPv6": outcome(lambda: socket.socket(socket.AF_INET6)),
    "a socket in a thread from before": early[0],
    "a pair of sockets": outcome(lambda: [end.close() for end in socket.socketpair()]),
    "io_uring": outcome(lambda: call(number["io_uring_setup"], 1, None)),
    "ptrace": outcome(lambda: call(number["ptrace"], 16, os.getppid(), 0, 0)),
    "mount": outcome(lambda: call(number["mount"], b"none", b"/", b"tmpfs", 0, None)),
    "unshare": outcome(lambda: call(number["unshare"], 0x10000000)),
    "reading inside": outcome((inside / "read" / "file").read_bytes),
    "reading outside": outcome((outside / "file").read_bytes),
    "listing outside": outcome(lambda: os.listdir(outside)),
    "writing where it may read": outcome((inside / "read" / "new").touch),
    "writing outside": outcome((outside / "new").touch),
    "truncating outside": outcome(lambda: os.truncate(outside / "file", 0)),
    "removing outside": outcome((outside / "file").unlink),
    "writing inside": outcome(lambda: (inside / "write" / "new").write_text("a")),
    "moving inside": outcome(lambda: ((inside / "write" / "folder").mkdir(),
                                      (inside / "write" / "new").rename(inside / "write" / "folder" / "new"))),
    "moving out": outcome(lambda: (inside / "write" / "folder").rename(outside / "folder")),
    "a temporary file": outcome(lambda: tempfile.TemporaryFile().close()),
    "a child": outcome(lambda: subprocess.run([sys.executable, "-c", "import json"], check=True)),
    "a child's socket": outcome(lambda: subprocess.run(
        [sys.executable, "-c", "import socket; socket.socket()"], check=True, stderr=subprocess.DEVNULL)),
    "much memory": outcome(lambda: bytearray(2 << 30)),
    "a large file": outcome(lambda: (inside / "write" / "large").write_bytes(bytes(2_000_000))),
}))
"""

PROBE = """
probe.lock_up(inside / "read" / "file")
print(json.dumps({
    "a socket": outcome(socket.socket),
    "its file": outcome((inside / "read" / "file").read_bytes),
    "the file beside": outcome((inside / "read" / "other").read_bytes),
    "writing": outcome(lambda: (inside / "read" / "file").write_text("a")),
    "writing to /tmp": outcome(lambda: Path("/tmp/written-by-a-probe").touch()),
}))
"""

complete = pytest.mark.skipif(
    sandbox.landlock_version() < 3 or not sandbox.has_seccomp(), reason="this kernel has no Landlock 3 or no seccomp"
)


def tried(body: str, folder: Path) -> Any:
    """What a script says that runs in a process of its own."""
    for name in ("in/read", "in/write", "out"):
        (folder / name).mkdir(parents=True)
    for name in ("in/read/file", "in/read/other", "out/file"):
        (folder / name).write_text("text")
    command = [sys.executable, "-c", HEAD + body, str(folder / "in"), str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@complete
def test_a_worker_inside_has_no_network_and_its_own_folders_alone(tmp_path: Path) -> None:
    refused = dict.fromkeys(("a socket", "a socket of IPv6", "a socket in a thread from before"), "EPERM")
    refused |= dict.fromkeys(("io_uring", "ptrace", "mount", "unshare"), "EPERM")
    outside = ("reading outside", "listing outside", "writing where it may read", "writing outside")
    refused |= dict.fromkeys((*outside, "truncating outside", "removing outside"), "EACCES")
    fine = ("a pair of sockets", "reading inside", "writing inside", "moving inside", "a temporary file", "a child")
    found = tried(WORKER, tmp_path)
    assert found.pop("moving out") in ("EXDEV", "EACCES")
    assert found == {
        **refused,
        **dict.fromkeys(fine, "fine"),
        "a child's socket": "CalledProcessError",
        "much memory": "MemoryError",
        "a large file": "EFBIG",
    }
    assert (tmp_path / "out" / "file").read_text() == "text"


@complete
def test_the_probe_sees_the_one_file_and_writes_none(tmp_path: Path) -> None:
    assert tried(PROBE, tmp_path) == {
        "a socket": "EPERM",
        "its file": "fine",
        "the file beside": "EACCES",
        "writing": "EACCES",
        "writing to /tmp": "EACCES",
    }


def test_without_landlock_or_seccomp_the_words_say_so_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    assert sandbox.described() == "all files, as there is no Landlock and the network, as there is no seccomp"
    sandbox.confine_files(sandbox.Room())
    sandbox.deny_calls()


def test_a_kernel_that_refuses_is_an_error_and_no_worker_runs_free(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        def syscall(self, number: int, *arguments: object) -> int:
            return 3 if arguments and arguments[0] is None else -1

        def prctl(self, *arguments: object) -> int:
            return 0

    monkeypatch.setattr(sandbox, "_libc", Kernel)
    monkeypatch.setattr(sandbox.sys, "platform", "linux")
    monkeypatch.setattr(sandbox.ctypes, "get_errno", lambda: errno.EPERM)
    with pytest.raises(PermissionError, match="refused to lock this process up"):
        sandbox.confine_files(sandbox.Room())


def test_numbers_of_calls_are_those_of_one_processor_each() -> None:
    for numbers in columns(sandbox.DENIED.values()):
        assert len(set(numbers)) == len(sandbox.DENIED)


def columns(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    return list(zip(*pairs, strict=True))


def test_a_worker_sees_videos_and_models_and_not_the_list_of_jobs_or_the_audit_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache" / name))
    (tmp_path / "cache").touch()  # as if there were no home: what cannot be made is left out
    (tmp_path / "boats").mkdir()
    room = room_for(tmp_path / "data", Limits(gigabytes=3, megabytes=10), ["default", str(tmp_path / "boats")])
    assert room.reads == (tmp_path / "data" / "videos", tmp_path / "data" / "models", tmp_path / "boats")
    assert room.writes[:3] == tuple(tmp_path / "data" / name for name in ("scratch", "temporary", "trainings"))
    assert (room.memory, room.file_bytes) == (3_000_000_000, 500_000_000)
    assert not any((tmp_path / "data").is_relative_to(path) for path in (*room.reads, *room.writes))
