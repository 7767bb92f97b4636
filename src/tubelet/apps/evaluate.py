"""`tubelet evaluate`, `report` and `submission`: predictions from anywhere, measured, explained and packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tubelet.apps.console import say, show

if TYPE_CHECKING:
    from tubelet.data.ytvis_json import Faults
    from tubelet.data.ytvis_set import AnnotatedSet
    from tubelet.evaluation.tables import Sheet

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Measure predictions against truth; nothing leaves the machine."
)

Truth = Annotated[Path, typer.Argument(metavar="TRUTH", help="A YouTube-VIS JSON.", show_default=False)]
Predictions = Annotated[
    Path, typer.Argument(metavar="PREDICTIONS", help="A result list or a data set.", show_default=False)
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers there too.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown in place of a table.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print LaTeX rows in place of a table.")]
Jobs = Annotated[int, typer.Option(metavar="N", min=1, help="Processes.")]
Lenient = Annotated[bool, typer.Option("--lenient", help="Leave out what is not right, and count it.")]


@app.command()
def ytvis(
    truth: Truth,
    predictions: Predictions,
    *,
    json: Json = None,
    markdown: Markdown = False,
    latex: Latex = False,
    jobs: Jobs = 1,
    lenient: Lenient = False,
    agnostic: Annotated[bool, typer.Option("--agnostic", help="Take all classes as one.")] = False,
    official_ids: Annotated[
        bool, typer.Option("--official-ids", help="Keep the official fault that a truth of id 0 counts as missed.")
    ] = False,
) -> None:
    """Average precision and recall by the rules of YouTube-VIS and OVIS."""
    from tubelet.evaluation import ytvis as measure
    from tubelet.evaluation.tables import sheet

    videos, answers = _read(truth, predictions, lenient)
    numbers = measure.evaluate(videos.videos, answers, agnostic=agnostic, official_ids=official_ids, jobs=jobs)
    first, second = list(numbers)[:6], list(numbers)[6:]
    sheets = [sheet("", {predictions.stem: numbers}, first), sheet("", {predictions.stem: numbers}, second)]
    _tell(sheets, numbers, json, markdown=markdown, latex=latex)


def report(
    truth: Truth,
    predictions: Annotated[
        list[Path],
        typer.Argument(metavar="PREDICTIONS ...", help="One file, or several to compare.", show_default=False),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where report.html goes.")],
    frames: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Frames for the film strips.", show_default="beside TRUTH")
    ] = None,
    jobs: Jobs = 1,
    lenient: Lenient = False,
) -> None:
    """One page that says how good predictions are and why they are not better; several are compared."""
    from tubelet.apps.report import write

    show(str(write(truth, predictions, out, frames=frames, jobs=jobs, lenient=lenient)))


def submission(
    predictions: Predictions,
    *,
    out: Annotated[Path, typer.Option(metavar="ZIP", help="The zip to write.")],
    truth: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="The set's JSON, annotations or not: its ids are used and checked."),
    ] = None,
    lenient: Lenient = False,
) -> None:
    """Pack predictions as the evaluation servers take them, checked before the file is written."""
    from tubelet.data import submission as packing
    from tubelet.data import ytvis as files
    from tubelet.data.ytvis_json import Faults

    tables = files.read(truth) if truth is not None else files.read_tables(predictions)
    faults = Faults(lenient=lenient)
    held = files.read_predictions(predictions, tables, faults=faults)
    _tell_faults(faults)
    packing.write(out, held, tables)
    tracks = sum(len(prediction.tracks) for prediction in held)
    show(f"{out}: {tracks} tracks of {sum(bool(p.tracks) for p in held)} videos")


def _read(truth: Path, predictions: Path, lenient: bool) -> tuple[AnnotatedSet, list]:
    from tubelet.data import ytvis as files
    from tubelet.data.ytvis_json import Faults

    faults = Faults(lenient=lenient)
    videos = files.read(truth, faults=faults)
    answers = files.read_predictions(predictions, videos, faults=faults)
    _tell_faults(faults)
    return videos, answers


def _tell_faults(faults: Faults) -> None:
    for kind, count in faults.counts.items():
        say(f"left out {count} for {kind}, the first: {faults.first[kind]}")


def _tell(
    sheets: Sequence[Sheet], numbers: Mapping[str, object], json: Path | None, *, markdown: bool, latex: bool
) -> None:
    from tubelet.evaluation import tables

    if json is not None:
        _write_json(json, numbers)
    for one in sheets:
        show(tables.markdown(one) if markdown else tables.latex(one) if latex else tables.screen(one))


def _write_json(path: Path, numbers: Mapping[str, object]) -> None:
    import json
    import os

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(numbers, indent=2) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
