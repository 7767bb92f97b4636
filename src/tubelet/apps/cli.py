"""The `tubelet` command. Whatever takes long to import is imported inside the commands."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from tubelet import __version__
from tubelet.apps import attend, bench, data, demo, doctor, edit, evaluate, export, predict, serve, stream
from tubelet.apps import table as table_command
from tubelet.apps.batch.command import batch
from tubelet.apps.console import catch_termination, rows_of, run, show, table
from tubelet.apps.train import train

QUIET = "--quiet"
OF_PAIRS = ("--window", "--overlay")  # options that take several key=value

app = typer.Typer(
    name="tubelet",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help in boxes costs 0.2 s of imports, thrice what the rest of `tubelet --help` takes
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(predict.predict)
app.command()(demo.demo)
app.command()(attend.attend)
app.command()(serve.serve)
app.command()(stream.stream)
app.command(cls=edit.InOrder)(edit.edit)
app.command()(batch)
app.command()(export.export)
app.command()(doctor.doctor)


class Listable(StrEnum):
    """What `tubelet list` can list."""

    recipes = "recipes"
    models = "models"
    backbones = "backbones"


class Purpose(StrEnum):
    """What a model can be listed for."""

    cpu = "cpu"
    gpu = "gpu"
    commercial = "commercial"


def _show_version(asked: bool) -> None:
    if asked:
        show(f"tubelet {__version__}")
        raise typer.Exit


@app.callback()
def tubelet(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", is_eager=True, callback=_show_version)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show no progress; may stand anywhere in a command.", is_eager=True)
    ] = False,
) -> None:
    """Find, outline, name and follow every object through a video."""


app.command()(train)
app.command()(data.synth)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(bench.app, name="bench")
app.command()(table_command.table)


@app.command("list")
def list_names(
    what: Annotated[Listable, typer.Argument(metavar="recipes|models|backbones", show_default=False)],
    purpose: Annotated[
        list[Purpose] | None,
        typer.Option(
            "--for",
            metavar="cpu|gpu|commercial",
            help="Only models that are of use without a GPU, those that want one, or those whose licence allows "
            "commercial use; may be given twice.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List what can be named. Accuracy is as published, not measured here."""
    from tubelet.core.errors import ConfigError

    if purpose and what is not Listable.models:
        raise ConfigError(f"--for: expected with models, got {what.value}")
    if what is Listable.models:
        _models(purpose or [])
    else:
        {Listable.recipes: _recipes, Listable.backbones: _backbones}[what]()


app.add_typer(data.app, name="data")
app.command()(evaluate.report)
app.command()(evaluate.submission)


def _recipes() -> None:
    from tubelet import recipes

    show(rows_of(table("recipe", "what"), [(name, recipes.find(name).about) for name in recipes.names()]))


def _models(purposes: Sequence[Purpose]) -> None:
    from tubelet.models.weights import ListedModel, list_models

    def fits(model: ListedModel) -> bool:
        fit = {Purpose.cpu: model.cpu, Purpose.gpu: not model.cpu, Purpose.commercial: model.commercial}
        return all(fit[purpose] for purpose in purposes)

    models = [model for model in list_models() if fits(model)]
    rows = [(m.name, m.where, f"{m.megabytes:.1f}", m.classes, m.published, m.licence) for m in models]
    show(rows_of(table("model", "where", "#MB", "#classes", "published", "licence"), rows))


def _backbones() -> None:
    from tubelet.models import backbones

    show(*backbones.names())


def main() -> None:
    """The entry point."""
    catch_termination()
    code = call(sys.argv[1:])
    group = sys.modules.get("torch.distributed")
    if group is not None and group.is_available() and group.is_initialized():
        # a fault has broken the group; its threads wait for a process that is gone, and would abort an ordinary end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def call(arguments: Sequence[str]) -> int:
    """One call of the command; its exit code."""
    spoken = [argument for argument in arguments if argument != QUIET]
    quiet = len(spoken) < len(arguments)
    return run(lambda: app(args=separated(spoken), prog_name="tubelet", standalone_mode=False), quiet=quiet)


def separated(arguments: Sequence[str]) -> list[str]:
    """`--window length=8 stride=4` -> `--window length=8 --window stride=4`, so that one option takes many pairs."""
    spread: list[str] = []
    option = ""  # whose pairs these are
    for argument in arguments:
        is_pair = re.match(r"[a-z_]+=", argument) is not None
        if option and is_pair and spread[-1] != option:
            spread.append(option)
        if argument in OF_PAIRS:
            option = argument
        elif not is_pair:
            option = ""
        spread.append(argument)
    return spread
