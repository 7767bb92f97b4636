"""Tables of results: on the screen, in Markdown, in LaTeX."""

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
    """A table: the first column names the row, the others contain values.

    Example:
        >>> from tubelet.evaluation.tables import Sheet, markdown
        >>> print(markdown(Sheet(columns=("system", "AP"), rows=(("STA", 0.25),))))
        | system | AP |
        |:--|--:|
        | STA | 25.0 |
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""


def sheet(
    first: str,
    rows: Mapping[str, Mapping[str, Cell]],
    keys: Sequence[str],
    title: str = "",
) -> Sheet:
    """Make a table from named rows of named values; a value that a row lacks is undefined.

    Args:
        first: Heading of the first column.
        rows: Row name -> column name -> value.
        keys: Columns to show, in order.
        title: Printed above the table on the screen.

    Example:
        >>> from tubelet.evaluation.tables import sheet
        >>> sheet("system", {"STA": {"AP": 0.25}}, ["AP", "AR1"]).rows
        (('STA', 0.25, None),)
    """
    cells = [(name, *(values.get(key) for key in keys)) for name, values in rows.items()]
    return Sheet(columns=(first, *keys), rows=tuple(cells), title=title)


def shown(cell: Cell) -> str:
    """Format a value: fractions in percent, counts as they are, a dash for -1 and None.

    Example:
        >>> from tubelet.evaluation.tables import shown
        >>> [shown(cell) for cell in (0.1234, 12, "STA", None)]
        ['12.3', '12', 'STA', '–']
    """
    if cell is None or (isinstance(cell, float) and (cell == -1 or cell != cell)):
        return UNDEFINED
    if isinstance(cell, float):
        percent = round(100 * cell, 1) + 0.0  # + 0.0: no "-0.0"
        return f"{percent:.1f}"
    return str(cell)


def screen(sheet: Sheet) -> Table:
    """Make the table for a terminal.

    Example:
        >>> from tubelet.evaluation.tables import Sheet, screen
        >>> table = screen(Sheet(columns=("system", "AP"), rows=(("STA", 0.25),)))
        >>> [column.header for column in table.columns], table.row_count
        (['system', 'AP'], 1)
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        header_style="bold",
        title=sheet.title or None,
        title_justify="left",
    )
    for n, name in enumerate(sheet.columns):
        heading = printable(name, MOST_OF_A_CELL)
        table.add_column(heading, justify="right" if n else "left", no_wrap=True)
    for row in sheet.rows:
        table.add_row(*(Text(printable(shown(cell), MOST_OF_A_CELL)) for cell in row))
    return table


def markdown(sheet: Sheet) -> str:
    """Format a table as Markdown, names to the left and values to the right.

    Example:
        >>> from tubelet.evaluation.tables import Sheet, markdown
        >>> print(markdown(Sheet(columns=("system", "AP"), rows=(("STA", 0.25),))))
        | system | AP |
        |:--|--:|
        | STA | 25.0 |
    """
    names = [_escape_markdown(name) for name in sheet.columns]
    alignment = [":--", *["--:"] * (len(sheet.columns) - 1)]
    lines = [f"| {' | '.join(names)} |", f"|{'|'.join(alignment)}|"]
    for row in sheet.rows:
        cells = [_escape_markdown(shown(cell)) for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def latex(sheet: Sheet) -> str:
    r"""Format the head and the rows of a LaTeX tabular, without its environment.

    Example:
        >>> from tubelet.evaluation.tables import Sheet, latex
        >>> print(latex(Sheet(columns=("system", "AP"), rows=(("STA", 0.25),))))
        system & AP \\
        STA & 25.0 \\
    """
    rows = [sheet.columns, *(tuple(shown(cell) for cell in row) for row in sheet.rows)]
    lines = [" & ".join(_escape_latex(cell) for cell in row) for row in rows]
    return "\n".join(line + r" \\" for line in lines)


def _escape_markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _escape_latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", UNDEFINED: "--"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text.replace("\n", " "))
