"""`tubelet train`: a recipe becomes a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tubelet.apps.console import INTERRUPTED, Leave, is_quiet, show
from tubelet.apps.option_texts import DEVICE_HELP


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A name that `tubelet list recipes` shows.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE ...]", help="Fields of the recipe, e.g. optim.lr=0.01.", show_default=False),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where checkpoints, metrics and the model go.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the latest checkpoint in DIR.")] = False,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
) -> None:
    """Train a recipe, one row of a paper's table or our own."""
    from tubelet.recipes.training import adjusted, name_of

    experiment = adjusted(recipe, *(overrides or ()))
    name = name_of(recipe, experiment)
    outcome = experiment.run(out, resume=resume, device=device, quiet=is_quiet(), name=name)
    if outcome.model is None:
        raise Leave(INTERRUPTED)  # the training has said where it stands and how to go on
    if os.environ.get("RANK", "0") == "0":  # torchrun starts this command several times
        show(str(outcome.model))
