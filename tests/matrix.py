"""The demo and the tests on every Python that is promised, and with the oldest libraries: `make matrix`.

Each Python that pyproject.toml's classifiers name and that is at hand, pyenv's included, gets an environment of its own
in .matrix/ with the versions of constraints.txt, the oldest a second one with those of constraints-lowest.txt.
`--short` runs less, and only on the newest Python and with the oldest libraries.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".matrix"
PINNED = "constraints.txt"
LOWEST = "constraints-lowest.txt"
CLASSIFIER = "Programming Language :: Python :: 3."
SHORT_TESTS = [
    "tests/video",
    "tests/field/test_videos.py",
    "tests/apps/test_cli.py",
    "tests/apps/test_demo.py",
    "tests/test_packaging.py",
]
IMPORT_ALL = """
import importlib, pkgutil, tubelet
for module in pkgutil.walk_packages(tubelet.__path__, "tubelet."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""

Version = tuple[int, int, int]


class MatrixError(Exception):
    """An environment that cannot be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """An interpreter of this machine."""

    version: Version
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One environment: a Python with one file of versions."""

    python: Python
    constraints: str

    @property
    def name(self) -> str:
        numbers = ".".join(map(str, self.python.version))
        return f"{numbers}-{'lowest' if self.constraints == LOWEST else 'pinned'}"

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def executable(self) -> str:
        return str(self.folder / "bin" / "python")


def main() -> int:
    parser = argparse.ArgumentParser(description="The demo and the tests on every Python that is promised.")
    parser.add_argument("--short", action="store_true", help="a part of the tests, on two environments")
    parser.add_argument("--jobs", type=int, default=2, help="processes that test")
    arguments = parser.parse_args()

    pythons = find_pythons()
    if not pythons:
        sys.exit(f"matrix: none of Python {', '.join(promised())} is at hand")
    cells = choose_cells(pythons, short=arguments.short)

    results = {cell.name: run_cell(cell, short=arguments.short, jobs=arguments.jobs) for cell in cells}

    for name, result in results.items():
        say(f"{name}: {result}")
    return int(any(not result.startswith("passed") for result in results.values()))


def promised() -> list[str]:
    """The minor versions that the classifiers name, oldest first: "3.11", ..."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    minors = [int(line.removeprefix(CLASSIFIER)) for line in project["classifiers"] if line.startswith(CLASSIFIER)]
    return [f"3.{minor}" for minor in sorted(minors)]


def find_pythons() -> list[Python]:
    """One interpreter for each promised minor version that is at hand, oldest first; says which are missing."""
    pythons = []
    for minor in promised():
        found = next(filter(None, (probe(path, minor) for path in candidates(minor))), None)
        if found is None:
            say(f"no Python {minor} is at hand: not tried")
        else:
            pythons.append(found)
    return pythons


def candidates(minor: str) -> Iterator[str]:
    """Paths at which an interpreter of this version may be."""
    yield getattr(sys, "_base_executable", sys.executable)

    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for path in sorted(root.glob(f"versions/{minor}.*/bin/python")):
        yield str(path)

    for folder in os.get_exec_path():
        path = Path(folder) / f"python{minor}"
        if path.is_file():
            yield str(path)


def probe(path: str, minor: str) -> Python | None:
    """The interpreter at a path, or None where it does not run, as pyenv's shims may, or is of another version."""
    command = [path, "-c", "import sys; print(*sys.version_info[:3])"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        major, second, micro = (int(number) for number in done.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if f"{major}.{second}" != minor:
        return None
    return Python(version=(major, second, micro), path=path)


def choose_cells(pythons: list[Python], *, short: bool) -> list[Cell]:
    """The environments to try: constraints-lowest.txt is resolved for the oldest Python."""
    oldest = pythons[0]
    newest = pythons[-1]
    if oldest == newest:
        say("only one Python is at hand: nothing newer or older is tried")

    tried = [newest] if short else pythons
    pinned = [Cell(python=python, constraints=PINNED) for python in tried]
    return [*pinned, Cell(python=oldest, constraints=LOWEST)]


def run_cell(cell: Cell, *, short: bool, jobs: int) -> str:
    """Make the environment and run both commands' work in it; one line that says how it went."""
    started = time.monotonic()
    try:
        install(cell)
    except MatrixError as error:
        return f"FAILED: {error}"
    installed = time.monotonic()

    for name, command in work(cell, short=short, jobs=jobs).items():
        say(f"{cell.name}: {name}")
        if subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode:
            return f"FAILED: {name}"
    return f"passed ({installed - started:.0f} s to install, {time.monotonic() - installed:.0f} s to run)"


def install(cell: Cell) -> None:
    """Make the environment, or keep the one that the same files made before. Raises MatrixError."""
    stamp = cell.folder / ".installed"
    files = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", cell.constraints))
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == files:
        return

    uv = find_uv(cell.python)
    say(f"{cell.name}: installing")
    call([uv, "venv", "--quiet", "--clear", "--python", cell.python.path, str(cell.folder)])
    extras = ",".join(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    what = ["--editable", f".[{extras}]", "--group", "dev", "--constraints", cell.constraints]
    lowest = ["--resolution", "lowest-direct"] if cell.constraints == LOWEST else []
    call([uv, "pip", "install", "--quiet", "--python", cell.executable, *what, *lowest])
    stamp.write_text(files, encoding="utf-8")


def find_uv(python: Python) -> str:
    """uv of this machine, else one installed into .matrix/uv."""
    known = shutil.which("uv")
    if known:
        return known

    folder = FOLDER / "uv"
    if not (folder / "bin" / "uv").is_file():
        say("installing uv")
        call([python.path, "-m", "venv", "--clear", str(folder)])
        call([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"])
    return str(folder / "bin" / "uv")


def call(command: list[str]) -> None:
    if subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode:
        raise MatrixError(f"could not run {' '.join(command[:3])}; what it said is above")


def environment() -> dict[str, str]:
    """This process's variables without those that would mix in other packages."""
    mixing = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in mixing} | {"OMP_NUM_THREADS": "1"}


def work(cell: Cell, *, short: bool, jobs: int) -> dict[str, list[str]]:
    """Commands by what they are called in messages."""
    demo = [cell.executable, "-m", "tubelet", "demo", "--out", str(cell.folder / "demo")]
    test = [cell.executable, "-m", "pytest", "-n", str(jobs), "--dist", "worksteal", "-p", "no:cacheprovider"]
    if not short:
        return {"demo": demo, "test": test}
    return {"import": [cell.executable, "-c", IMPORT_ALL], "demo": demo, "test": [*test, *SHORT_TESTS]}


def say(line: str) -> None:
    sys.stdout.write(f"matrix: {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
