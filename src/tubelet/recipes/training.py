"""`tubelet.train`: train a recipe from Python, in the words of the command line."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tubelet import recipes
from tubelet.core.config import Config
from tubelet.core.untrusted.files import as_path
from tubelet.recipes.experiment import Experiment
from tubelet.training.advice import far_rate
from tubelet.training.loop import TrainingOutcome

logger = logging.getLogger("tubelet.training")


def train(
    recipe: str | Experiment,
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    quiet: bool = False,
    **overrides: object,
) -> TrainingOutcome:
    """Train a recipe into the folder `out`; the result says where its model is.

        outcome = tubelet.train("finetune", "runs/boats", data={"annotations": "boats/train.json", "hold_out": 0.1})
        model = tubelet.load(outcome.best)

    Off a terminal, progress goes to the logger `tubelet.progress`, at the level INFO.

    Args:
        recipe: a name that `tubelet list recipes` shows, or an experiment of one's own.
        out: gets checkpoints, metrics.jsonl, curve.png, README.md, model.safetensors and, where there
            are videos to validate on, best.safetensors.
        resume: go on from the latest checkpoint in `out`.
        overrides: fields of the recipe. A dict changes some fields of a part, as in
            `optim={"lr": 0.01}`, and leaves the others.

    Raises:
        TubeletError: for whatever the command says in one line, such as a field that does not exist.
    """
    experiment = adjusted(recipe, *assignments(overrides))
    folder = as_path(out, "the folder of a training")
    name = name_of(recipe, experiment)
    return experiment.run(folder, resume=resume, device=device, quiet=quiet, name=name)


def name_of(recipe: str | Experiment, experiment: Experiment) -> str | None:
    """The name of a recipe if an experiment has its model, so that the paper's figures may stand beside it.

    Example:
        >>> from tubelet.recipes.training import adjusted, name_of
        >>> name_of("masktrack/ytvis2019", adjusted("masktrack/ytvis2019", "optim.lr=0.01"))
        'masktrack/ytvis2019'
        >>> name_of("masktrack/ytvis2019", adjusted("masktrack/ytvis2019", "model.vote=score"))
    """
    if not isinstance(recipe, str) or recipes.find(recipe).model != experiment.model:
        return None
    return recipe


def adjusted(recipe: str | Experiment, *changes: str) -> Experiment:
    """A recipe with fields changed, as in `"optim.lr=0.01"`; warns where its learning rate no longer fits the batch.

    Example:
        >>> from tubelet.recipes.training import adjusted
        >>> adjusted("masktrack/ytvis2019", "train.batch_size=8", "optim.lr=0.0025").optim.lr
        0.0025
    """
    base = recipes.find(recipe) if isinstance(recipe, str) else recipe
    experiment = base.override(*changes)
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # of torchrun
    advice = far_rate(
        experiment.optim.lr,
        experiment.train.batch_size * experiment.train.accumulate * processes,
        recipe_rate=base.optim.lr,
        recipe_clips=base.train.batch_size * base.train.accumulate,
    )
    if advice is not None and experiment.optim.kind == base.optim.kind and os.environ.get("RANK", "0") == "0":
        logger.warning("%s", advice)
    return experiment


def assignments(overrides: Mapping[str, object]) -> list[str]:
    """Fields by keyword as the assignments of the command line.

    Example:
        >>> from tubelet.recipes.training import assignments
        >>> assignments({"optim": {"lr": 0.01}, "init": "none"})
        ['optim.lr=0.01', 'init="none"']
    """
    return list(_flat(overrides, ""))


def _flat(values: Mapping[str, object], prefix: str) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Config):
            value = value.model_dump(mode="json")
            yield f"{prefix}{name}={json.dumps(value)}"
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={json.dumps(value, default=str)}"
