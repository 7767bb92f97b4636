"""`tubelet bench`: train the systems side by side on videos that anyone can generate again, and compare them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tubelet.apps.console import say, show
from tubelet.core.errors import FormatError, InputError, nearest

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Compare the systems on videos made here.")


class SetChoice(StrEnum):
    """Sets of videos to compare on."""

    generated = "generated"
    pasted = "pasted"


Out = Annotated[Path, typer.Option(metavar="DIR", help="Videos, trials and the summary go there.")]


@app.command()
def vis(
    *,
    out: Out,
    videos: Annotated[
        SetChoice, typer.Option("--set", help="Procedural videos, or videos pasted from COCO images.")
    ] = SetChoice.generated,
    coco: Annotated[
        Path | None, typer.Option(metavar="JSON", help="COCO instances, for the pasted set.", show_default=False)
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="Lists train and val of image ids.", show_default="every fifth held out"),
    ] = None,
    rows: Annotated[
        str, typer.Option(metavar="NAMES", help="systems, ablations, all, or names with commas.")
    ] = "systems",
    plan: Annotated[str, typer.Option(help="How much: check, cpu, long or full.")] = "cpu",
    seeds: Annotated[str | None, typer.Option(metavar="N,N", help="Seeds.", show_default="the plan's")] = None,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Trials at once, each on one core.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
) -> None:
    """Train and test small versions of the systems, print tables and write DIR/<set>.json. Resumes where it stopped."""
    from tubelet.bench import runner
    from tubelet.core.atomic import check_folder

    check_folder(out)
    chosen = _rows(rows)
    budget = _plan(plan, seeds)

    if videos is SetChoice.generated and (coco or split):
        raise InputError("--coco and --split are for --set pasted: the generated set needs no images")
    sets = runner.prepare(out, videos.value, budget, coco, split)
    runs = runner.runs(out, videos.value, sets, budget, chosen, device)
    left = sum(not run.done for run in runs)
    say(f"{len(runs)} trials, {left} to do")

    def tell(run: runner.Run, figures: dict[str, float]) -> None:
        say(f"{run.row}, seed {run.seed}: AP {100 * figures['AP']:.1f} after {figures['train_s']:.0f} s of training")

    runner.compare(runs, jobs, tell)
    summary = runner.summarise(out, videos.value, budget, device)
    _write(out / f"{videos.value}.json", summary)
    show(runner.comparison_tables(summary, chosen))


@app.command()
def tables(
    summary: Annotated[Path, typer.Argument(metavar="JSON", help="What `bench vis` wrote.", show_default=False)],
    *,
    rows: Annotated[str, typer.Option(metavar="NAMES", help="systems, ablations, all, or names with commas.")] = "all",
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw accuracy over speed and the failures there.")
    ] = None,
) -> None:
    """Print the tables of an earlier comparison from its summary file."""
    from tubelet.bench import runner
    from tubelet.core.atomic import check_folder, together

    if pictures is not None:
        check_folder(pictures)
    results = _read(summary)
    chosen = [row for row in _rows(rows) if row in results["rows"]]
    if not chosen:
        raise InputError(f"{summary}: holds none of these rows; it has {', '.join(results['rows'])}")
    if pictures is not None:
        from tubelet.drawing.comparison import accuracy_over_speed, failure_bars

        systems = {row: results["rows"][row] for row in chosen}
        drawn = {f"{results['set']}-speed.png": accuracy_over_speed, f"{results['set']}-failures.png": failure_bars}
        with together(pictures) as scratch:
            for name, draw in drawn.items():
                draw(systems, scratch / name)
        for name in drawn:
            say(str(pictures / name))
    show(runner.comparison_tables(results, chosen))


def _rows(names: str) -> list[str]:
    from tubelet.recipes import small

    groups = {"systems": small.SYSTEMS, "ablations": small.ABLATIONS, "all": small.SYSTEMS | small.ABLATIONS}
    chosen: dict[str, None] = {}
    for name in names.split(","):
        if name not in groups and name not in groups["all"]:
            raise InputError(f"--rows: no system {name!r}; {nearest(name, [*groups, *groups['all']])}")
        chosen |= dict.fromkeys(groups.get(name, [name]))
    return list(chosen)


def _plan(name: str, seeds: str | None) -> Any:
    from tubelet.bench.runner import PLANS

    if name not in PLANS:
        raise InputError(f"--plan: no plan {name!r}; {nearest(name, PLANS)}")
    if seeds is None:
        return PLANS[name]
    numbers = seeds.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise InputError(f"--seeds: expected whole numbers with commas, such as 0,1,2, got {seeds!r}")
    return PLANS[name].but(seeds=tuple(dict.fromkeys(int(number) for number in numbers)))


def _read(path: Path) -> dict[str, Any]:
    from tubelet.core.untrusted.documents import read_figures

    results = read_figures(path)
    rows = results.get("rows") if isinstance(results, dict) else None
    if not isinstance(rows, dict) or "set" not in results:
        raise FormatError(f"{path}: expected the summary of a comparison, an object with set and rows")
    for name, row in rows.items():
        if not isinstance(row, dict) or not row.keys() >= {"about", "trials", "grades", "failures", "gain", "paper"}:
            raise FormatError(f"{path}: row {name!r} is not one of a comparison's summary")
    return results


def _write(path: Path, summary: dict[str, Any]) -> None:
    from tubelet.core.atomic import replacing
    from tubelet.core.text import to_json

    with replacing(path) as temporary:
        temporary.write_text(to_json(summary, indent=1) + "\n", encoding="utf-8")
