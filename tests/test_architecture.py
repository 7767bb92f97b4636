"""ARCHITECTURE.md says where things are: every place that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "tubelet"
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
INDEX = PAGE.split("## Where is ...")[1].split("\n## ")[0]
ROWS = [line.strip("| ").split(" | ") for line in INDEX.splitlines() if line.startswith("| ")][1:]


def places(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def names_in(path: Path) -> set[str]:
    """Functions, classes and methods of a module."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_the_index_has_thirty_concepts_in_order() -> None:
    concepts = [row[0].lower() for row in ROWS]
    assert len(concepts) >= 30
    assert len(set(concepts)) == len(concepts)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_place_of_the_index_exists(row: list[str]) -> None:
    found = places(row[1])
    assert found

    for place in found:
        file, _, name = place.partition(":")
        assert (PACKAGE / file).exists(), place
        assert not name or name in names_in(PACKAGE / file), place


def test_every_room_of_the_table_exists() -> None:
    table = PAGE.split("## Rooms")[1].split("\n## ")[0]
    rooms = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(rooms) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
