"""What is promised of Pythons and versions: pyproject.toml, the files of versions and the README agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import matrix

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = [matrix.PINNED, matrix.LOWEST]


def required() -> list[Requirement]:
    """What pyproject.toml asks for: dependencies, extras and development tools."""
    groups = [
        PROJECT["dependencies"],
        *PROJECT["optional-dependencies"].values(),
        PYPROJECT["dependency-groups"]["dev"],
    ]
    return [Requirement(line) for group in groups for line in group]


def pins(file: str) -> dict[str, list[Version]]:
    """Package -> its versions in a file, of which there is one for each marker."""
    versions: dict[str, list[Version]] = {}
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        pin = Requirement(line)
        (specifier,) = pin.specifier
        versions.setdefault(canonicalize_name(pin.name), []).append(Version(specifier.version))
    return versions


# Pythons


def test_the_oldest_python_that_is_named_is_the_oldest_that_is_allowed() -> None:
    assert PROJECT["requires-python"] == f">={matrix.promised()[0]}"


def test_no_python_between_two_that_are_named_is_left_out() -> None:
    minors = [int(version.split(".")[1]) for version in matrix.promised()]
    assert minors == list(range(minors[0], minors[-1] + 1))


def test_the_readme_names_the_pythons_of_the_classifiers() -> None:
    start = README.partition("## Start")[2].partition("## ")[0]
    assert re.findall(r"3\.\d+", start) == matrix.promised()


# versions


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_versions_holds_nothing_else(file: str) -> None:
    pin = re.compile(r"[a-z0-9-]+==[0-9a-z.]+( ; [a-z_0-9 '.<>=()!]+)?", re.IGNORECASE)
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not pin.fullmatch(line)] == []


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("requirement", required(), ids=lambda requirement: requirement.name)
def test_every_requirement_is_pinned_within_its_bounds(requirement: Requirement, file: str) -> None:
    versions = pins(file)[canonicalize_name(requirement.name)]
    assert [version for version in versions if version not in requirement.specifier] == []


@pytest.mark.parametrize("requirement", required(), ids=lambda requirement: requirement.name)
def test_the_lowest_version_is_the_one_that_is_tried(requirement: Requirement) -> None:
    (bound,) = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
    assert pins(matrix.LOWEST)[canonicalize_name(requirement.name)] == [bound]


# the matrix

OLD = matrix.Python(version=(3, 11, 7), path="old")
MIDDLE = matrix.Python(version=(3, 12, 1), path="middle")
NEW = matrix.Python(version=(3, 13, 0), path="new")


def names(pythons: list[matrix.Python], *, short: bool) -> list[str]:
    return [cell.name for cell in matrix.choose_cells(pythons, short=short)]


def test_the_matrix_tries_every_python_and_the_lowest_versions_on_the_oldest() -> None:
    every = names([OLD, MIDDLE, NEW], short=False)
    assert every == ["3.11.7-pinned", "3.12.1-pinned", "3.13.0-pinned", "3.11.7-lowest"]


def test_the_short_matrix_tries_the_newest_python_and_the_lowest_versions_on_the_oldest() -> None:
    assert names([OLD, MIDDLE, NEW], short=True) == ["3.13.0-pinned", "3.11.7-lowest"]


def test_the_matrix_goes_on_with_one_python_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert names([OLD], short=True) == ["3.11.7-pinned", "3.11.7-lowest"]
    assert "only one Python is at hand" in capsys.readouterr().out


def test_an_interpreter_of_another_version_or_that_does_not_run_is_not_taken(tmp_path: Path) -> None:
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    assert matrix.probe(str(shim), "3.12") is None
    assert matrix.probe(str(tmp_path / "absent"), "3.12") is None
    assert matrix.probe(matrix.sys.executable, "3.1") is None
