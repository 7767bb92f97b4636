"""`tubelet evaluate model`: predict a data set with a model and measure the predictions against its truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tubelet.apps.batch.command import fingerprint, outcomes_of, places, require_ray, videos_progress
from tubelet.apps.console import say, show
from tubelet.apps.numbers import check_outputs, print_sheets
from tubelet.apps.opening import load_model
from tubelet.apps.option_texts import CUTS_HELP, DEVICE_HELP, MODEL_HELP, TOP_HELP, VIEWS_HELP
from tubelet.apps.options import Classes, Engine, InputSize, Reading, class_names

if TYPE_CHECKING:
    from tubelet.core.protocol import Window
    from tubelet.inference.many.batch import OpenModel, Settings, VideoJob, VideoOutcome
    from tubelet.recipes.experiment import Evaluation


AS_HELP = "Test as a recipe does: RECIPE, EVALUATION or RECIPE/EVALUATION, e.g. table4/T2."
METRICS_HELP = "ap, jf, identity, overall (AP50 and IDF1 in one) or mot, with commas."


def model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)],
    *,
    data: Annotated[Path, typer.Option(metavar="TRUTH", help="An annotated data set: JSON, folder or archive.")],
    form: Annotated[str | None, typer.Option(metavar="FORM", help="Its form.", show_default="found out")] = None,
    frames: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Its frames.", show_default="beside the annotations")
    ] = None,
    as_: Annotated[str | None, typer.Option("--as", metavar="NAME", help=AS_HELP, show_default=False)] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAMES", help=METRICS_HELP, show_default="the paper's, else ap")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep predictions and numbers there.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the evaluation in DIR.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes.", show_default="one for each device, or core")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="CPU threads of each worker.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Share the work by Ray: local, auto or ray://...", show_default=False),
    ] = None,
    window: Reading = None,
    views: Annotated[int | None, typer.Option(min=1, metavar="N", help=VIEWS_HELP, show_default=False)] = None,
    top: Annotated[int | None, typer.Option(min=1, metavar="N", help=TOP_HELP, show_default=False)] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Leave out lower scores; AP wants all.")] = 0.0,
    no_cuts: Annotated[bool, typer.Option("--no-cuts", help=CUTS_HELP)] = False,
    classes: Classes = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    engine: Engine = "auto",
    input_size: InputSize = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers there too.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown in place of a table.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print LaTeX rows in place of a table.")] = False,
) -> None:
    """Predict a data set with a model and measure it: AP, J & F, identity, beside the paper's figures."""
    from tubelet.core.errors import InputError
    from tubelet.evaluation import measures
    from tubelet.inference.many.batch import Settings
    from tubelet.inference.many.evaluation import count_finished, evaluate_jobs, jobs_of_set

    if ray is not None:
        require_ray()
    if resume and out is None:
        raise InputError("--resume goes on with the evaluation in a folder: expected --out DIR too")
    check_outputs(json)
    test = find_test(model, as_)
    asked = tuple(metrics.split(",")) if metrics is not None else measures.metrics_of(test.paper) or ("ap",)
    measures.check(asked)

    devices = places(device, workers, threads)
    settings = Settings(
        model=fingerprint(model),
        threshold=threshold,
        window=(*_assignments(test.window), *(window or ())),
        views=views or test.views or 1,
        top=top or test.top,
        cuts=not no_cuts,
        classes=class_names(classes),
        video=False,
        device=devices[0].partition(":")[0],
        engine=engine,
        input_size=input_size,
        threads=threads,
    )
    open_model = partial(load_model, model, engine=engine, input_size=input_size)
    jobs = jobs_of_set(data, form, frames)
    check(model, data, jobs)
    with _folder(out) as folder, videos_progress(len(jobs), count_finished(jobs, folder)) as tell:
        numbers = evaluate_jobs(
            jobs,
            folder,
            settings,
            partial(_outcomes, open_model, folder, settings, devices, ray),
            metrics=asked,
            resume=resume,
            tell=tell,
        )
    print_sheets([comparison(numbers, test.paper, _row_of(model))], numbers, json, markdown=markdown, latex=latex)
    if out is not None:
        show(str(out))


def _outcomes(
    open_model: OpenModel,
    folder: Path,
    settings: Settings,
    devices: Sequence[str],
    ray: str | None,
    jobs: Sequence[VideoJob],
) -> Iterator[VideoOutcome]:
    """Predict here for one device, else by processes or by Ray."""
    from tubelet.inference.many.evaluation import in_this_process, predict_for_evaluation

    if ray is None and len(devices) == 1:
        return in_this_process(jobs, open_model, folder, settings, devices[0])
    return outcomes_of(jobs, open_model, folder, settings, devices, ray, predict_for_evaluation)


def check(model: str, data: Path, jobs: Sequence[VideoJob]) -> None:
    """Raise a TubeletError, before any work is done, unless model and truth can be compared.

    Says which classes of the truth the model does not know.
    """
    from tubelet.core.errors import InputError
    from tubelet.formats.correspondence import correspondence
    from tubelet.inference.evaluate import require_truth
    from tubelet.inference.many.batch import opened_set
    from tubelet.models import weights

    if not jobs:
        raise InputError(f"{data}: expected annotated videos, found none")
    videos = opened_set(jobs[0].source, jobs[0].form, jobs[0].frames)
    require_truth(videos, str(data))
    _ = videos.videos[0].frames[0]  # missing frames are noticed before a model is loaded

    classes = weights.load(model, device="cpu").classes
    known = set(correspondence(classes, videos.classes).values())
    unknown = [name for name in videos.classes if name not in known]
    if unknown:
        named = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        say(f"the model does not know {len(unknown)} of the truth's {len(videos.classes)} classes: {named}")


def find_test(model: str, name: str | None) -> Evaluation:
    """The evaluation of a name; without one that of the recipe which the model's file names, else a plain one."""
    from tubelet import recipes
    from tubelet.models import weights
    from tubelet.models.weights.contents import recipe_of
    from tubelet.recipes.evaluations import find_evaluation, own_evaluation
    from tubelet.recipes.experiment import Evaluation

    recipe = recipe_of(weights.find(model))
    recipe = recipe if recipe in recipes.names() else None
    if name is None:
        return Evaluation() if recipe is None else own_evaluation(recipes.find(recipe))
    found = find_evaluation(name, recipe)
    if found.recipe is None:
        say(f"several recipes have the evaluation {name!r}; --as RECIPE/{name} shows the figures of one")
    return found.evaluation


def _row_of(model: str) -> str:
    """The row of our numbers, with which weights of a training they are."""
    from tubelet.models import weights
    from tubelet.models.weights.contents import weights_of_training

    which = weights_of_training(weights.find(model))
    return "ours" if which is None else f"ours ({which})"


def comparison(numbers: Mapping[str, float], paper: Mapping[str, float], ours: str = "ours") -> Any:
    """A table of our numbers, in a row of the name `ours`, with the paper's below."""
    from tubelet.evaluation.tables import sheet

    counts = {name: round(value) for name, value in numbers.items() if name == "IDs"}
    rows: dict[str, dict[str, Any]] = {ours: {**numbers, **counts}}
    if paper:
        rows["paper"] = {name: f"{paper[name]:g}" for name in numbers if name in paper}
    return sheet("", rows, list(numbers))


def _assignments(window: Window | None) -> list[str]:
    """A whole window as the overrides that make it of any other."""
    from tubelet.core.text import to_json

    if window is None:
        return []
    return [f"{name}={to_json(value)}" for name, value in window.model_dump(mode="json").items()]


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    with TemporaryDirectory(prefix="tubelet-evaluation-") as folder:
        yield Path(folder)
