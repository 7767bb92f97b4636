"""A part of `make faults`, and that it would notice a careless command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.places import Fault, run, watching
from faults.scenarios import SCENARIOS, Scenario, broken, contents, reference, try_fault

TESTS = Path(__file__).resolve().parents[1]
QUICK = ("edit", "data split", "synth")


def test_nothing_is_lost_whatever_fails() -> None:
    command = [sys.executable, "-m", "faults", "--most", "3", *QUICK]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = re.search(r"\| all: (\d+) \|", done.stdout)
    assert counts is not None
    assert int(counts[1]) == len(QUICK) * (3 * 3 + 7)


@dataclass(frozen=True)
class Careless(Scenario):
    """Writes a file in two steps under its own name, and removes an input first."""

    def command(self, *, again: bool = False) -> Callable[[], int]:
        def write() -> int:
            Path("input.txt").unlink(missing_ok=True)
            with open("out.json", "w") as file:
                file.write('{"dogs": ')
                file.flush()
                os.fsync(file.fileno())
                file.write("2}")
            Path("input.txt").write_text("as it was")
            return 0

        return write


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "input.txt").write_text("as it was")
    return tmp_path / "inputs"


def test_a_careless_command_is_noticed(tmp_path: Path, inputs: Path) -> None:
    scenario = Careless("careless", ())
    expected, places = reference(scenario, tmp_path / "reference", inputs)
    assert places == 4  # remove, open, sync, open
    wrong = [
        try_fault(scenario, tmp_path / str(place), inputs, expected, Fault("kill", place)) for place in range(places)
    ]
    assert wrong[0] == []
    assert wrong[1] == ["the input input.txt was changed"]
    assert wrong[2][1].startswith("out.json looks finished and is not")
    assert wrong[3] == ["the input input.txt was changed"]


def test_errors_reach_the_command(tmp_path: Path) -> None:
    def write() -> int:
        try:
            Path("a").mkdir()
        except OSError as error:
            return error.errno or 0
        return 0

    assert [run(write, tmp_path, Fault(kind, 0)).code for kind in ("none", "full", "broken", "kill")] == [0, 28, 5, -9]
    (tmp_path / "a").rmdir()
    assert run(write, tmp_path, Fault("full", 1)).code == 0


def test_files_end_at_a_limit(tmp_path: Path) -> None:
    def write() -> int:
        try:
            Path("long.txt").write_text("x" * 100)
        except OSError:
            return 1
        return 0

    assert run(write, tmp_path, Fault("limit", 10)).code == 1
    assert (tmp_path / "long.txt").stat().st_size <= 10


def test_what_looks_finished_is_read() -> None:
    assert broken("a.json", b"{}") == ""
    assert broken("a.json", b"{") != ""
    assert broken("a.mp4", b"nothing") != ""
    assert broken("a.html", b"<html>") != ""
    assert broken("notes.txt", b"") == ""


def test_every_command_that_writes_is_tried() -> None:
    tried = {scenario.arguments[0] for scenario in SCENARIOS}
    commands = "predict batch train edit data synth report evaluate submission table export"
    assert set(commands.split()) <= tried


def test_places_are_counted_and_fail_in_a_process_that_goes_on(tmp_path: Path) -> None:
    def write() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a").rmdir()

    with watching(tmp_path, Fault()) as places:
        write()
    assert places.seen == 2
    with watching(tmp_path, Fault("full", 0)), pytest.raises(OSError, match="No space left"):
        write()
    write()
    assert places.seen == 2


def test_ids_of_the_page_become_numbers(tmp_path: Path) -> None:
    for name in ("jobs/00000000000000ff/a", "videos/00000000000000ff/b", "videos/00000000000000aa/b"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert sorted(contents(tmp_path)) == ["jobs/id0/a", "videos/id0/b", "videos/id1/b"]
