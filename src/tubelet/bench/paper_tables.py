"""A paper's table with our figures beside the paper's: which trainings are there or missing, and what they gave.

A folder of runs contains, for each recipe and seed,

    <recipe>/seed-<seed>/                        the folder of the training, as `tubelet train` makes it
    <recipe>/seed-<seed>/evaluations/<test>/     predictions and metrics.json of one way of testing it

so tables that share a recipe share its trainings. A training goes on where it was stopped, and an evaluation too; what
is finished is only read.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from tubelet.bench.trial import spread
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.text import to_json
from tubelet.core.types import VideoSet
from tubelet.core.untrusted.documents import decode_json, read_figures
from tubelet.core.untrusted.files import opened
from tubelet.core.untrusted.tensors import read_metadata
from tubelet.data.clips import ClipDataset
from tubelet.evaluation.measures import metrics_of
from tubelet.evaluation.tables import Cell, Sheet
from tubelet.formats import ytvis
from tubelet.formats.classes import YTVIS_2019
from tubelet.formats.contents import digest
from tubelet.inference.evaluate import METRICS
from tubelet.inference.many.batch import Settings, VideoJob, VideoOutcome
from tubelet.inference.many.evaluation import evaluate_jobs, in_this_process, jobs_of_set
from tubelet.models import weights
from tubelet.recipes import find, small
from tubelet.recipes.experiment import COCO, AnyForm, Evaluation, Experiment, Generated, WithImages, YouTubeVIS
from tubelet.recipes.small_versions import small_version
from tubelet.recipes.tables import TableRow
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate
from tubelet.training.loop import CHECKPOINTS

MODEL = "model.safetensors"
FRAMES_TO_TIME = 40  # of the generated video on which a step is timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training that a table needs: a recipe with its seed and data, and its folder."""

    recipe: str
    seed: int
    experiment: Experiment
    folder: Path
    overrides: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether its model is there."""
        return (self.folder / MODEL).is_file()

    @property
    def command(self) -> str:
        """The command that makes it; what is not known yet is written in capitals."""
        words = ["tubelet", "train", self.recipe, f"train.seed={self.seed}", *self.overrides]
        if not any(field.startswith("data.") for field in self.overrides):
            words += data_overrides(self.recipe, Path("TRAIN"))
        if self.experiment.init is None:
            words.append("init=WEIGHTS")
        words.append("--resume")
        return shlex.join([*words, "--out", str(self.folder)])

    def __call__(self, device: str) -> float:
        """Train, or go on; the seconds it took."""
        began = time.perf_counter()
        if device == "cpu":
            torch.set_num_threads(1)  # so that several may run side by side
        resume = (self.folder / CHECKPOINTS).is_dir()
        if self.experiment.run(self.folder, device=device, resume=resume).model is None:
            raise KeyboardInterrupt  # the training was asked to end, and has said how to go on
        return time.perf_counter() - began


def trainings(
    rows: Sequence[TableRow],
    runs: Path,
    seeds: int,
    overrides: Sequence[str] = (),
    data: Path | None = None,
) -> list[Training]:
    """The trainings of a table, seed by seed, so that a table that is cut short has all its rows.

    A recipe that starts from a run of another has that one before it, and starts from its folder.

    Args:
        rows: Of the table.
        runs: The folder of all runs.
        seeds: How many trainings of each recipe.
        overrides: Fields of every recipe.
        data: The set to train on, for the field of each recipe's data.
    """
    found: dict[tuple[str, int], Training] = {}
    for seed in range(seeds):
        for row in rows:
            _add(found, row.recipe, seed, runs, overrides, data)
    return list(found.values())


def _add(
    found: dict[tuple[str, int], Training],
    name: str,
    seed: int,
    runs: Path,
    overrides: Sequence[str],
    data: Path | None,
) -> None:
    if (name, seed) in found:
        return
    fields = [*overrides, *(() if data is None else data_overrides(name, data))]
    experiment = find(name).override(*fields)
    if experiment.init is None and experiment.init_recipe is not None:
        of_data = [field for field in overrides if field.startswith(("data.", "train."))]
        _add(found, experiment.init_recipe, seed, runs, of_data, data)
        fields.append(f"init={_folder(runs, experiment.init_recipe, seed)}")

    found[name, seed] = Training(
        recipe=name,
        seed=seed,
        experiment=find(name).override(*fields, f"train.seed={seed}"),
        folder=_folder(runs, name, seed),
        overrides=tuple(fields),
    )


def _folder(runs: Path, recipe: str, seed: int) -> Path:
    return runs / recipe / f"seed-{seed}"


def data_overrides(recipe: str, data: Path) -> list[str]:
    """The field of a recipe's data that a path stands for.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.bench.paper_tables import data_overrides
        >>> data_overrides("tags/davis", Path("DAVIS"))
        ['data.path=DAVIS']
    """
    source = find(recipe).data
    fields: dict[type, str] = {
        YouTubeVIS: "data.annotations",
        COCO: "data.annotations",
        AnyForm: "data.path",
        WithImages: "data.videos.annotations",
    }
    if isinstance(source, Generated):
        return []
    return [f"{fields[type(source)]}={data}"]


# small versions


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallPlan:
    """How much a small table costs: videos made, and iterations of its shortest row."""

    train: int = 60
    test: int = 12
    iterations: int = 150


def small_videos(runs: Path, plan: SmallPlan) -> tuple[Path, Path]:
    """Write generated videos to train and to test on, where they are not there yet; the two JSON files."""
    paths = []
    for part, count, seed in (("train", plan.train, 2000), ("test", plan.test, 9000)):
        folder = runs / "videos" / f"{part}-{count}"
        if not (folder / "instances.json").is_file():
            ytvis.write_folder(folder, generate(small.PLAIN, seed, count))
        paths.append(folder / "instances.json")
    return paths[0], paths[1]


def small_trainings(rows: Sequence[TableRow], runs: Path, seeds: int, plan: SmallPlan, data: Path) -> list[Training]:
    """The trainings of a table at a small size; rows that the paper trains longer stay longer."""
    names = list(dict.fromkeys(row.recipe for row in rows))
    shortest = min(find(name).train.iterations for name in names)
    found = []
    for seed in range(seeds):
        for name in names:
            longer = find(name).train.iterations / shortest
            row = small_version(name, max(1, round(plan.iterations * longer)))
            experiment = row.but(
                data=YouTubeVIS(annotations=str(data)),
                train=row.train.but(seed=seed),
            )
            training = Training(recipe=name, seed=seed, experiment=experiment, folder=_folder(runs, name, seed))
            found.append(training)
    return found


# training


def train_missing(missing: Sequence[Training], jobs: int, device: str, tell: Callable[[Training, float], None]) -> None:
    """Train in order, each in a process of its own, `jobs` of them at a time; those that others start from go first.

    The first that fails ends the rest, once those that have begun are finished. Raises InputError if a
    process was ended from outside, as for want of memory.
    """
    folders = {str(training.folder) for training in missing}
    first = [training for training in missing if training.experiment.init not in folders]
    later = [training for training in missing if training.experiment.init in folders]
    _train(first, jobs, device, tell)
    if later:
        train_missing(later, jobs, device, tell)


def _train(trainings: Sequence[Training], jobs: int, device: str, tell: Callable[[Training, float], None]) -> None:
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1)
    try:
        futures = {pool.submit(training, device): training for training in trainings}
        for future in as_completed(futures):
            tell(futures[future], future.result())
    except BrokenProcessPool:
        raise InputError("the process of a training was ended from outside; is there memory for so many?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def estimated_hours(experiment: Experiment, device: str = "cpu") -> float:
    """How long a training takes on this machine, from one step of one clip.

    A clip of a generated video of 640x360 goes through the recipe's transforms and forward and backward
    through its network, twice; the second is timed, and multiplied by the clips of a batch and the number
    of iterations. Reading real frames, and what a device saves on a batch, are not in it.
    """
    sample = experiment.data.read() if isinstance(experiment.data, Generated) else _stand_in()
    clips = ClipDataset(sample, experiment.sampler, experiment.transforms, 0, keep_ignored=True)
    torch.manual_seed(0)
    model = experiment.model.build(sample.classes).to(device).train()

    seconds = 0.0
    for number in range(2):
        began = time.perf_counter()
        losses = model([clips[number].to(torch.device(device))])
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
    return seconds * experiment.train.batch_size * experiment.train.iterations / 3600


def _stand_in() -> VideoSet:
    """A generated video of the size of YouTube-VIS, with its number of classes."""
    world = Synthetic(height=360, width=640, frames=FRAMES_TO_TIME, objects=(2, 2))
    return replace(generate(world, 0, 2), classes=YTVIS_2019)


# figures


def evaluate_training(training: Training, evaluation: Evaluation, truth: Path, device: str = "cpu") -> dict[str, float]:
    """The numbers of one test of a training, read where they are there, else measured.

    Raises ConfigError if the folder has a model of another recipe.
    """
    check_model_of(training)
    settings = _settings(training, evaluation, device)
    metrics = metrics_of(evaluation.paper) or ("ap",)
    described = settings.model_dump(mode="json") | {"truth": digest(truth), "metrics": metrics}
    name = hashlib.sha256(to_json(described).encode()).hexdigest()[:12]
    folder = training.folder / "evaluations" / name
    if (folder / METRICS).is_file():
        numbers: dict[str, float] = read_figures(folder / METRICS)
        return numbers

    open_model = partial(_open, training.folder)
    jobs = jobs_of_set(truth)

    def outcomes_of(left: Sequence[VideoJob]) -> Generator[VideoOutcome, None, None]:
        return in_this_process(left, open_model, folder, settings, device)

    return evaluate_jobs(jobs, folder, settings, outcomes_of, metrics=metrics, resume=True)


def check_model_of(training: Training) -> None:
    """Raise ConfigError unless the trained model has the config of its row."""
    path = training.folder / MODEL
    config = decode_json(read_metadata(path).get("config", "null"), str(path))
    if training.experiment.but(model=config).model != training.experiment.model:
        raise ConfigError(f"{path}: a model of another config than {training.recipe}; remove it or choose other --runs")


def _open(folder: Path, device: str) -> weights.AnyModel:
    return weights.load(folder, device=device)


def _settings(training: Training, evaluation: Evaluation, device: str) -> Settings:
    window = {} if evaluation.window is None else evaluation.window.model_dump(mode="json")
    with opened(training.folder / MODEL) as file:
        model = hashlib.file_digest(file, "sha256").hexdigest()
    return Settings(
        model=model,
        threshold=0.0,
        window=tuple(f"{name}={to_json(value)}" for name, value in window.items()),
        views=evaluation.views or 1,
        top=evaluation.top,
        video=False,
        device=device.partition(":")[0],
    )


# the table


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledRow:
    """A row with the paper's figures, in percent, and ours, a mapping of fractions for each seed."""

    label: str
    paper: Mapping[str, float]
    ours: tuple[Mapping[str, float], ...]


def table_sheet(rows: Sequence[FilledRow], title: str = "") -> Sheet:
    """Make the table: two lines for each row, the paper's figures and ours, mean and deviation over seeds.

    Example:
        >>> from tubelet.bench.paper_tables import FilledRow, table_sheet
        >>> row = FilledRow(label="STA", paper={"AP": 40.0}, ours=({"AP": 0.25}, {"AP": 0.27}))
        >>> table_sheet([row]).rows
        (('STA', 'paper', '40', ''), ('', 'ours', '26.0 ± 1.4', '2'))
    """
    names = list(dict.fromkeys(name for row in rows for name in row.paper)) or ["AP", "AP50", "AP75", "AR1", "AR10"]
    names.sort(key=lambda name: name != "AP")
    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        paper = [f"{row.paper[name]:g}" if name in row.paper else None for name in names]
        lines.append((row.label, "paper", *paper, ""))
        means = spread(row.ours) if row.ours else {}
        ours = [_cell(name, *means[name], seeds=len(row.ours)) if name in means else None for name in names]
        lines.append(("", "ours", *ours, str(len(row.ours))))
    return Sheet(columns=("row", "", *names, "seeds"), rows=tuple(lines), title=title)


def _cell(name: str, mean: float, deviation: float, seeds: int) -> str:
    factor = 1 if name == "IDs" else 100
    shown = f"{mean * factor:.1f}"
    return f"{shown} ± {deviation * factor:.1f}" if seeds > 1 else shown
