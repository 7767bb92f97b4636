"""What all evaluations do with their numbers: print them as tables, and write them as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tubelet.apps.console import show

if TYPE_CHECKING:
    from tubelet.evaluation.tables import Sheet


def check_outputs(*outputs: Path | None) -> None:
    """Raise InputError, before anything is measured, where a file cannot be written."""
    from tubelet.core.atomic import check_file

    for path in outputs:
        if path is not None:
            check_file(path)


def print_sheets(
    sheets: Sequence[Sheet],
    numbers: Mapping[str, object],
    json: Path | None,
    *,
    markdown: bool,
    latex: bool,
) -> None:
    """Print tables, plain, as Markdown or as LaTeX rows; write the numbers to `json`."""
    from tubelet.core.text import to_json
    from tubelet.evaluation import tables

    if json is not None:
        write_text(json, to_json(numbers, indent=2) + "\n")
    for sheet in sheets:
        show(tables.markdown(sheet) if markdown else tables.latex(sheet) if latex else tables.screen(sheet))


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    from tubelet.core.atomic import replacing

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
