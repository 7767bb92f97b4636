from __future__ import annotations

import io

import pytest
from rich.console import Console

from tubelet.evaluation import tables
from tubelet.evaluation.tables import sheet, shown

ROWS = {"a_b|c": {"AP": 0.12345, "IDs": 7}, "50%": {"AP": -1.0}}


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (0.5, "50.0"),
        (1.0, "100.0"),
        (-0.016, "-1.6"),
        (-0.0001, "0.0"),
        (7, "7"),
        (-1.0, "\N{EN DASH}"),
        (None, "\N{EN DASH}"),
        ("x", "x"),
    ],
)
def test_fractions_are_percent_and_counts_are_counts(cell: tables.Cell, text: str) -> None:
    assert shown(cell) == text


def test_markdown_keeps_its_columns_whatever_names_hold() -> None:
    lines = tables.markdown(sheet("model", ROWS, ["AP", "IDs"])).splitlines()
    assert lines[0] == "| model | AP | IDs |"
    assert lines[1] == "|:--|--:|--:|"
    assert lines[2] == "| a_b\\|c | 12.3 | 7 |"
    assert lines[3] == "| 50% | \N{EN DASH} | \N{EN DASH} |"


def test_latex_escapes_what_it_would_read_otherwise() -> None:
    lines = tables.latex(sheet("model", ROWS, ["AP", "IDs"])).splitlines()
    assert lines[1] == r"a\_b|c & 12.3 & 7 \\"
    assert lines[2] == r"50\% & -- & -- \\"


def test_the_screen_shows_every_cell() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(tables.screen(sheet("model", ROWS, ["AP", "IDs"], title="numbers")))
    text = console.file.getvalue()
    assert all(part in text for part in ("numbers", "model", "a_b|c", "12.3", "7", "\N{EN DASH}"))
