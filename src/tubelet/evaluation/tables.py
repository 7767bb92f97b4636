"""Results as rows: on the screen, in Markdown, in LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tubelet.core.text import MOST_OF_A_CELL, printable

if TYPE_CHECKING:
    from rich.table import Table

Cell = str | int | float | None
UNDEFINED = "\N{EN DASH}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table: the first column names the row, the others hold values."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""


def sheet(first: str, rows: Mapping[str, Mapping[str, Cell]], keys: Sequence[str], title: str = "") -> Sheet:
    """Named rows of named values; a value that a row lacks is undefined."""
    return Sheet(
        columns=(first, *keys),
        rows=tuple((name, *(values.get(key) for key in keys)) for name, values in rows.items()),
        title=title,
    )


def shown(cell: Cell) -> str:
    """Fractions in percent with one digit, counts as they are, a dash for -1 and for nothing."""
    if cell is None or (isinstance(cell, float) and (cell == -1 or cell != cell)):
        return UNDEFINED
    return f"{round(100 * cell, 1) + 0.0:.1f}" if isinstance(cell, float) else str(cell)  # + 0.0: no "-0.0"


def screen(sheet: Sheet) -> Table:
    """The table for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", title=sheet.title or None, title_justify="left")
    for n, name in enumerate(sheet.columns):
        made.add_column(printable(name, MOST_OF_A_CELL), justify="right" if n else "left", no_wrap=True)
    for row in sheet.rows:
        made.add_row(*(Text(printable(shown(cell), MOST_OF_A_CELL)) for cell in row))
    return made


def markdown(sheet: Sheet) -> str:
    """A table in Markdown, names to the left and values to the right."""
    lines = [f"| {' | '.join(_plain(name) for name in sheet.columns)} |"]
    lines.append("|" + "|".join([":--", *["--:"] * (len(sheet.columns) - 1)]) + "|")
    lines += [f"| {' | '.join(_plain(shown(cell)) for cell in row)} |" for row in sheet.rows]
    return "\n".join(lines)


def latex(sheet: Sheet) -> str:
    """The head and the rows of a tabular, without its frame."""
    rows = [sheet.columns, *(tuple(shown(cell) for cell in row) for row in sheet.rows)]
    return "\n".join(" & ".join(_escaped(cell) for cell in row) + r" \\" for row in rows)


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", UNDEFINED: "--"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text.replace("\n", " "))
