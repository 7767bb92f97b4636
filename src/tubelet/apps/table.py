"""`tubelet table`: a paper's table with our figures beside the paper's, and what is missing to fill it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tubelet.apps.console import rows_of, say, show
from tubelet.apps.console import table as plain_table
from tubelet.apps.numbers import check_outputs, print_sheets
from tubelet.apps.option_texts import DEVICE_HELP

if TYPE_CHECKING:
    from tubelet.bench.paper_tables import FilledRow, Training
    from tubelet.recipes.tables import TableRow

RUNS, SMALL_RUNS = Path("runs/tables"), Path("runs/small-tables")


def table(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="E.g. ifr/table3; without it all are listed.", show_default=False),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE ...]", help="Fields of every recipe, e.g. init=...", show_default=False),
    ] = None,
    *,
    runs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where trainings are.", show_default="runs/tables")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Trainings of each row, seeds 0 to N - 1.")] = 1,
    rows: Annotated[str, typer.Option(metavar="GLOB", help="Only rows like this, e.g. '2019-*'.")] = "*",
    data: Annotated[
        Path | None, typer.Option(metavar="TRUTH", help="The annotated set to test on.", show_default=False)
    ] = None,
    train_data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The set to train on.", show_default=False)
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Train what is missing, in order; goes on after a stop.")
    ] = False,
    small: Annotated[
        bool, typer.Option("--small", help="In small, on generated videos: minutes on two cores. Implies --train.")
    ] = False,
    no_estimate: Annotated[bool, typer.Option("--no-estimate", help="Time no step of what is missing.")] = False,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Trainings at once.")] = 1,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers there too.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown in place of a table.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print LaTeX rows in place of a table.")] = False,
) -> None:
    """Print a paper's table with our figures beside it; say what is missing, or train it."""
    if name is None:
        list_tables()
        return

    from tubelet.bench import paper_tables
    from tubelet.core.devices import choose_device
    from tubelet.core.errors import InputError
    from tubelet.recipes.tables import find_table

    check_outputs(json)
    chosen = [row for row in find_table(name) if fnmatch(row.label, rows)]
    if not chosen:
        raise InputError(
            f"--rows {rows}: no row of {name} is like this; {', '.join(r.label for r in find_table(name))}"
        )
    where = str(choose_device(device))

    if small:
        if data is not None or train_data is not None or overrides:
            raise InputError("--small generates its videos and sets its sizes: it takes no data and no fields")
        folder = runs or SMALL_RUNS
        plan = paper_tables.SmallPlan()
        train_data, data = paper_tables.small_videos(folder, plan)
        needed = paper_tables.small_trainings(chosen, folder, seeds, plan, train_data)
    else:
        needed = paper_tables.trainings(chosen, runs or RUNS, seeds, overrides or (), train_data)

    missing = [training for training in needed if not training.finished]
    if missing and (train or small):
        say(f"{len(needed)} trainings, {len(missing)} to do")
        paper_tables.train_missing(missing, jobs, where, say_trained)
    elif missing:
        say_missing(missing, None if no_estimate else where)

    filled = fill(chosen, needed, data, where)
    title = "in small, on generated videos: compare our rows with each other, not with the paper's" if small else ""
    numbers = {row.label: {"paper": dict(row.paper), "ours": [dict(each) for each in row.ours]} for row in filled}
    print_sheets([paper_tables.table_sheet(filled, title)], numbers, json, markdown=markdown, latex=latex)
    if title and (markdown or latex):
        say(title)


def list_tables() -> None:
    """Print the names of all tables and how many rows they have."""
    from tubelet.recipes.tables import tables

    show(rows_of(plain_table("table", "#rows"), [(name, str(len(rows))) for name, rows in tables().items()]))


def say_missing(missing: Sequence[Training], device: str | None) -> None:
    """Say how to make what is missing, and how many hours that takes; None: no step is timed."""
    from tubelet.bench.paper_tables import estimated_hours

    hours: dict[str, float] = {}  # by all that decides the cost
    total = 0.0
    for training in missing:
        if device is None:
            show(training.command)
            continue
        experiment = training.experiment
        cost = experiment.but(about="", paper={}, evaluations={}, train=experiment.train.but(seed=0))
        key = cost.model_dump_json()
        if key not in hours:
            hours[key] = estimated_hours(experiment, device)
        total += hours[key]
        show(f"{training.command}  # about {hours[key]:.3g} h")

    method = "the second of two steps of one clip, times batch and iterations, reading of data not counted"
    estimate = f", about {total:.3g} h on {device}: {method}" if device is not None else ""
    count = f"{len(missing)} training{' is' if len(missing) == 1 else 's are'}"
    say(f"{count} missing{estimate}")


def say_trained(training: Training, seconds: float) -> None:
    """Say that a training is finished."""
    say(f"{training.recipe}, seed {training.seed}: trained in {seconds:.0f} s")


def fill(rows: Sequence[TableRow], trainings: Sequence[Training], data: Path | None, device: str) -> list[FilledRow]:
    """Measure each row of which there are trainings; without a truth nothing can be measured, which is said once."""
    from tubelet.bench.paper_tables import FilledRow, evaluate_training

    finished = [training for training in trainings if training.finished]
    if finished and data is None:
        say(f"{len(finished)} trainings are there; --data TRUTH measures them")

    filled = []
    for row in rows:
        seeds = [training for training in finished if training.recipe == row.recipe and data is not None]
        ours = []
        for training in seeds:
            assert data is not None
            ours.append(evaluate_training(training, row.evaluation, data, device))
        filled.append(FilledRow(label=row.label, paper=row.evaluation.paper, ours=tuple(ours)))
    return filled
