"""A process that reads strangers' files locks itself up first: which folders it sees, no network, how much it may use.

Linux does it, and for good: no later call of the process, nor of its children, takes any of it back.

- Landlock (since 5.19): files outside of the given folders cannot be opened, and other processes get no signals.
- seccomp: calls that open sockets, look into other processes, mount file systems or change the kernel fail with EPERM.
- Limits: memory, size of a written file, seconds of the processor; no core dumps.

Where the kernel has less, `described` says so, and what there is is used.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import tubelet

# where Python, its libraries and the devices of a network are
SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/proc", "/sys",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts",
    "/etc/resolv.conf", "/etc/ssl", "/etc/os-release", "/etc/mime.types", "/etc/fonts", "/etc/alternatives",
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/shm", "/dev/dri", "/dev/kfd")
GRAPHICS = "nvidia*"  # in /dev


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a process may use, beside Python and its libraries. Folders that are not there are left out."""

    reads: Sequence[Path] = ()
    writes: Sequence[Path] = ()
    temporary: Path | None = None  # for temporary files; one of `writes`
    memory: int | None = None  # bytes that it allocates
    address_space: int | None = None  # bytes; a GPU's driver reserves much more than it uses
    file_bytes: int | None = None  # of one file that it writes
    seconds: int | None = None  # of the processor


def described() -> str:
    """What of it this machine has, in words.

    >>> described() != ""
    True
    """
    landlock = landlock_version()
    files = f"its own folders alone (Landlock {landlock})" if landlock else "all files, as there is no Landlock"
    network = "no network (seccomp)" if has_seccomp() else "the network, as there is no seccomp"
    return f"{files} and {network}"


def lock_up(room: Room) -> None:
    """Bound what this process uses, and the files that it opens. Raises OSError if the kernel refuses.

    The network is left to `deny_calls`: a model may have to be fetched first.
    """
    limit(room)
    if room.temporary is not None:
        tempfile.tempdir = str(room.temporary)
        os.environ["TMPDIR"] = str(room.temporary)
        os.environ["MPLCONFIGDIR"] = str(room.temporary)  # matplotlib, which draws the curve, keeps a list of fonts
    confine_files(room)


# limits


def limit(room: Room) -> None:
    """Bound what this process uses; does nothing where there are no such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return

    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_DATA: room.memory,
        resource.RLIMIT_AS: room.address_space,
        resource.RLIMIT_FSIZE: room.file_bytes,
        resource.RLIMIT_CPU: room.seconds,
    }
    for kind, bound in bounds.items():
        if bound is not None:
            _, hardest = resource.getrlimit(kind)
            value = bound if hardest == resource.RLIM_INFINITY else min(bound, hardest)
            with suppress(ValueError, OSError):  # macOS has some of them in name alone
                resource.setrlimit(kind, (value, value))


# files

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on all processors
OLDEST_LANDLOCK = 2  # the first one that lets files move from folder to folder
PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_FOLDER, REMOVE_FILE, MAKE_FOLDER, MAKE_FILE, MAKE_LINK = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
MOVE, TRUNCATE = 1 << 13, 1 << 14
ALL_OF_2 = (1 << 14) - 1
READING = EXECUTE | READ_FILE | READ_FOLDER
WRITING = (
    READ_FILE | READ_FOLDER | WRITE_FILE | REMOVE_FOLDER | REMOVE_FILE | MAKE_FOLDER | MAKE_FILE | MAKE_LINK | MOVE
)
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
SIGNALS_AND_SOCKETS = 0b11  # scopes: abstract sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def landlock_version() -> int:
    """The version of Landlock that the kernel has; 0 for none that is of use."""
    if not sys.platform.startswith("linux"):
        return 0
    version = _libc().syscall(CREATE_RULESET, None, 0, 1)
    return version if version >= OLDEST_LANDLOCK else 0


def confine_files(room: Room) -> None:
    """Let this thread, and the threads and processes that it starts, open files of `room` and of the system alone.

    Does nothing without Landlock. Raises OSError if the kernel refuses.
    """
    version = landlock_version()
    if not version:
        return
    truncating = TRUNCATE if version >= 3 else 0
    scopes = SIGNALS_AND_SOCKETS if version >= 6 else 0
    rules = _Ruleset(files=ALL_OF_2 | truncating, network=0, scopes=scopes)
    size = 24 if version >= 6 else 8

    ruleset = _called(CREATE_RULESET, ctypes.byref(rules), size, 0)
    try:
        _allow(ruleset, [*map(Path, SYSTEM), *_python(), *room.reads], READING)
        _allow(ruleset, [*map(Path, DEVICES), *Path("/dev").glob(GRAPHICS), *room.writes], WRITING | truncating)
        _forbid_new_rights()
        _called(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _python() -> list[Path]:
    """Where Python's own files and its packages are. The folder that one happens to stand in is not one of them."""
    packages = [Path(entry) for entry in sys.path if entry and Path(entry) != Path.cwd()]
    prefixes = [Path(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)]
    libraries = [Path(entry) for entry in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if entry]
    return [*packages, *prefixes, *libraries, Path(tubelet.__file__).parent]


def _allow(ruleset: int, paths: Iterable[Path], access: int) -> None:
    for path in paths:
        try:
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # what is not there needs no leave
            continue
        try:
            allowed = access if path.is_dir() else access & OF_A_FILE
            rule = _Beneath(allowed=allowed, folder=folder)
            _called(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            os.close(folder)


# calls of the kernel

PROCESSORS = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}  # column, its name, number of seccomp
DENIED = {  # numbers on x86_64 and on aarch64
    "socket": (41, 198),
    "io_uring_setup": (425, 425),  # would open sockets by another way
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
}
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # instructions of a filter
NUMBER, PROCESSOR = 0, 4  # where a call's number and its processor are
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
OTHER_NUMBERS = 0x40000000  # x86_64 has a second set of numbers from here
SET_FILTER, ASK_ACTION, ALL_THREADS = 1, 2, 1
NO_NEW_PRIVILEGES = 38


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16), ("then", ctypes.c_uint8), ("otherwise", ctypes.c_uint8), ("value", ctypes.c_uint32),
    )  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("first", ctypes.POINTER(_Instruction)))


def has_seccomp() -> bool:
    """Whether the kernel can refuse calls, and this module knows the processor's numbers."""
    if not sys.platform.startswith("linux") or platform.machine() not in PROCESSORS:
        return False
    action = ctypes.c_uint32(REFUSE & 0xFFFF0000)
    _, _, seccomp = PROCESSORS[platform.machine()]
    return bool(_libc().syscall(seccomp, ASK_ACTION, 0, ctypes.byref(action)) == 0)


def deny_calls() -> None:
    """Have the calls of DENIED fail with EPERM, in all threads of this process and in all that it starts.

    Does nothing without seccomp. Raises OSError if the kernel refuses.
    """
    if not has_seccomp():
        return
    column, name, seccomp = PROCESSORS[platform.machine()]
    numbers = [pair[column] for pair in DENIED.values()]
    instructions = [
        (LOAD, 0, 0, PROCESSOR),
        (EQUAL, 1, 0, name),
        (RETURN, 0, 0, REFUSE),  # a call in the form of another processor
        (LOAD, 0, 0, NUMBER),
    ]
    for compare, number in [(AT_LEAST, OTHER_NUMBERS), *((EQUAL, number) for number in numbers)]:
        instructions += [(compare, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    instructions.append((RETURN, 0, 0, ALLOW))

    array = (_Instruction * len(instructions))(*(_Instruction(*entry) for entry in instructions))
    program = _Program(length=len(instructions), first=array)
    _forbid_new_rights()
    if _called(seccomp, SET_FILTER, ALL_THREADS, ctypes.byref(program)):
        raise OSError(errno.EBUSY, "a thread of this process has a filter of its own")


# both


def _forbid_new_rights() -> None:
    """A program with the rights of another user would get out of it."""
    if _libc().prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise _error()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _called(number: int, *arguments: object) -> int:
    """Call the kernel. Raises OSError if it refuses."""
    result: int = _libc().syscall(number, *arguments)
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"the kernel refused to lock this process up ({os.strerror(code)})")
