"""`tubelet bench vis`: all systems on the same videos, with the same budget, several seeds, and what that shows.

A run folder holds `sets/<set>-train|test`, made once, and `<set>/<row>-<seed>` for each trial; a trial that is finished
is never done again, so a comparison may be stopped, gone on with, and shared between processes that take other seeds.
`summarise` reads the folder into one small JSON, from which `comparison_tables` makes every table.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from tubelet import __version__
from tubelet.bench import video_sets
from tubelet.bench.trial import PREDICTIONS, TRIAL, cells, run_trial
from tubelet.core.atomic import replacing
from tubelet.core.config import Config
from tubelet.core.errors import InputError
from tubelet.core.types import Prediction, VideoSet
from tubelet.core.untrusted.documents import read_figures, read_json
from tubelet.core.untrusted.files import mapped, read
from tubelet.evaluation import ytvis as average
from tubelet.evaluation.cases import cases
from tubelet.evaluation.diagnosis import failures
from tubelet.evaluation.oracles import ORACLES, ceilings
from tubelet.evaluation.pairing import pair
from tubelet.evaluation.partners import Matches, match
from tubelet.evaluation.significance import Interval, compare_runs
from tubelet.evaluation.tables import Sheet, markdown
from tubelet.formats import ytvis
from tubelet.formats.ytvis.numbering import video_names
from tubelet.recipes import small
from tubelet.recipes.experiment import COCO, Experiment, YouTubeVIS

SetName = Literal["generated", "pasted"]
ROWS: dict[str, Experiment] = small.SYSTEMS | small.ABLATIONS
BASE = "masktrack"  # what every other row is compared with
# the published row of each system, whose figures stand beside ours
PUBLISHED = {
    "masktrack": "masktrack/ytvis2019",
    "sta": "sta/ytvis2019",
    "objprop": "objprop/ytvis2019",
    "objprop-neck": "objprop_attention/table1/attention-neck",
    "objprop-affinity": "objprop_attention/table1/weighted-affinity-shared",
    "compfeat": "compfeat/table5/compfeat",
    "mask2former": "mask2former_vis/table1/r50",
    "ifr": "ifr/table1/r50",
    "tags": "tags/ytvis2019",
    "videomt": "videomt/ytvis2019/s",
}


class Plan(Config):
    """How much: videos, budget, seeds. Of the pasted set, as many videos as of the generated set's grades together."""

    train: int = 20  # videos of each grade
    test: int = 5
    times: float = 1.0  # of the rows' own iterations
    seeds: tuple[int, ...] = (0, 1, 2)


PLANS = {
    "check": Plan(train=1, test=1, times=0.005, seeds=(0,)),  # that everything runs; its figures say nothing
    "cpu": Plan(),  # two cores, about two hours a set
    "long": Plan(train=60, test=10, times=6, seeds=(0, 1)),  # a core, about ten minutes a trial
    "full": Plan(train=150, test=30, times=40, seeds=(0, 1, 2, 3, 4)),  # for an accelerator
}


class Sets(NamedTuple):
    """The two parts of a set, written as YouTube-VIS folders."""

    train: Path
    test: Path


def prepare(out: Path, name: SetName, plan: Plan, images: Path | None = None, split: Path | None = None) -> Sets:
    """Write the set's videos where they are not there yet.

    The pasted set is made of the COCO JSON `images`; `split`, a JSON of two lists of image ids called train and val,
    says which are held out, else every fifth is. Raises InputError where images are needed and none are given, and
    where `out` holds another plan's videos or those of other images: its trials could not be compared.
    """
    if name == "pasted" and images is None:
        raise InputError("the pasted set is made of COCO images: expected --coco INSTANCES.json")
    made: dict[str, Any] = {"train": plan.train, "test": plan.test, "times": plan.times}
    made |= {"images": _digest(images), "split": _digest(split)} if name == "pasted" else {}
    note = out / "sets" / f"{name}.json"
    if not note.exists():
        with replacing(note) as temporary:
            temporary.write_text(json.dumps(made), encoding="utf-8")
    elif (held := read_json(note)) != made:
        raise InputError(f"{out} was begun with {held}, and now {made} is asked for: choose another --out")
    sets = Sets(train=out / "sets" / f"{name}-train", test=out / "sets" / f"{name}-test")
    part: video_sets.SplitName
    for part, place, each in (("train", sets.train, plan.train), ("test", sets.test, plan.test)):
        if not (place / "instances.json").is_file():
            ytvis.write_folder(place, _drawn(name, part, each, images, split))
    return sets


def _digest(path: Path | None) -> str | None:
    return None if path is None else hashlib.sha256(mapped(path)).hexdigest()[:16]


def _drawn(name: SetName, part: video_sets.SplitName, each: int, images: Path | None, split: Path | None) -> VideoSet:
    if name == "generated":
        return video_sets.generated(part, each)
    assert images is not None, "asked for before"
    return video_sets.pasted(chosen_images(part, images, split), part, each * len(video_sets.GRADES))


def chosen_images(part: video_sets.SplitName, images: Path, split: Path | None) -> VideoSet:
    """The images of a COCO JSON that training, or testing, may use: by the lists of `split`, else every fifth is held
    out."""
    if split is not None:
        if _overlap(read_json(split)):
            raise InputError(f"{split}: an image is in both lists, train and val")
        return COCO(annotations=str(images), split=str(split), part="train" if part == "train" else "val").read()
    held = COCO(annotations=str(images)).read()
    fifth = [n for n in range(len(held.videos)) if (n % 5 == 0) == (part == "test")]
    return VideoSet(videos=[held.videos[n] for n in fifth], classes=held.classes)


def _overlap(lists: Any) -> bool:
    """Whether train and val share an image; False for what is no such file, of which reading it tells more."""
    parts = [lists.get(name) for name in ("train", "val")] if isinstance(lists, dict) else []
    ids = [{str(id) for id in part} for part in parts if isinstance(part, list)]
    return len(ids) == 2 and not ids[0].isdisjoint(ids[1])


@dataclass(frozen=True, slots=True)
class Run:
    """One trial to do: a row of `ROWS`, a seed, the data and the place for it."""

    row: str
    seed: int
    sets: Sets
    out: Path
    times: float
    device: str

    def __call__(self) -> dict[str, float]:
        row = ROWS[self.row]
        if self.device == "cpu":
            torch.set_num_threads(1)  # so that several may run side by side
        iterations = max(1, round(row.train.iterations * self.times))
        experiment = row.but(
            data=YouTubeVIS(annotations=str(self.sets.train / "instances.json")),
            train=row.train.but(iterations=iterations, seed=self.seed),
        )
        return run_trial(experiment, ytvis.read(self.sets.test / "instances.json"), self.out, device=self.device)

    @property
    def done(self) -> bool:
        """Whether its figures are there."""
        return (self.out / TRIAL).is_file()


def runs(out: Path, name: SetName, sets: Sets, plan: Plan, rows: Sequence[str], device: str) -> list[Run]:
    """All trials, seed by seed, so that a comparison that is cut short still compares all rows."""
    return [
        Run(row, seed, sets, out / name / f"{row}-{seed}", plan.times, device) for seed in plan.seeds for row in rows
    ]


def compare(wanted: Sequence[Run], jobs: int, tell: Callable[[Run, dict[str, float]], None]) -> None:
    """Do what is not done, each trial in a process of its own, so that the memory measured is its own.

    The first that fails ends the comparison, once those are finished that have begun; raises InputError where a process
    was ended from outside, as for want of memory.
    """
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1)
    try:
        futures = {pool.submit(run): run for run in wanted if not run.done}
        for future in as_completed(futures):
            tell(futures[future], future.result())
    except BrokenProcessPool:
        raise InputError("the process of a trial was ended from outside; is there memory for so many?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def summarise(out: Path, name: SetName, plan: Plan, device: str = "cpu") -> dict[str, Any]:
    """Everything that the tables show of the finished trials in `out`, as plain JSON; raises InputError for none."""
    test = ytvis.read(out / "sets" / f"{name}-test" / "instances.json")
    folders = {row: _folders(out / name, row) for row in ROWS}
    found = {row: _read_row(folders[row], test, name) for row in ROWS if folders[row]}
    if not found:
        raise InputError(f"{out / name}: no finished trial; `tubelet bench vis --out {out}` makes some")
    rows = {}
    for row, held in found.items():
        shared = [seed for seed in held if seed in found.get(BASE, {})]
        gain = _gain([found[BASE][seed].matches for seed in shared], [held[seed].matches for seed in shared])
        rows[row] = {
            "about": ROWS[row].about.removeprefix("small "),
            "trials": [{"seed": seed, **one.figures, AGNOSTIC: one.agnostic} for seed, one in held.items()],
            "grades": [one.grades for one in held.values()],
            "failures": [one.failures for one in held.values()],
            "ceilings": [one.ceilings for one in held.values()],
            "gain": None if gain is None or row == BASE else [gain.value, gain.low, gain.high],
            "paper": published(row),
        }
    machine = {"processor": _processor(device), "torch": torch.__version__, "tubelet": __version__}
    truths = sum(not t.ignore for video in test.videos for t in video.tracks or ())
    size = {"videos": len(test.videos), "frames": sum(map(len, test.videos)), "objects": truths}
    return {"set": name, "plan": plan.model_dump(mode="json"), "test": size, "machine": machine, "rows": rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    figures: dict[str, float]
    grades: dict[str, float]  # AP of each grade
    failures: dict[str, int]
    ceilings: dict[str, float]  # AP with each oracle
    matches: Matches
    agnostic: float  # AP with all classes taken as one


def _folders(out: Path, row: str) -> dict[int, Path]:
    held = {}
    for place in out.glob(f"{row}-*"):
        seed = place.name.removeprefix(f"{row}-")
        if seed.isdecimal() and (place / TRIAL).is_file():
            held[int(seed)] = place
    return dict(sorted(held.items()))


def _read_row(folders: Mapping[int, Path], test: VideoSet, name: SetName) -> dict[int, _Trial]:
    return {seed: _read(place, test, name) for seed, place in folders.items()}


def _read(place: Path, test: VideoSet, name: SetName) -> _Trial:
    guesses = ytvis.read_predictions(place / PREDICTIONS, test)
    pairs = pair(test.videos, guesses)
    numbered = cases(pairs)
    counts = Counter(failure.kind for failure in failures(numbered))
    figures = read_figures(place / TRIAL)
    grades = _by_grade(test, guesses) if name == "generated" else {}
    agnostic = average.evaluate(test.videos, guesses, agnostic=True)["AP"]
    return _Trial(
        figures=figures,
        grades=grades,
        failures=dict(sorted(counts.items())),
        ceilings=ceilings(numbered),
        matches=match(pairs, average.AREAS[:1]),
        agnostic=agnostic,
    )


def _by_grade(test: VideoSet, guesses: Sequence[Prediction]) -> dict[str, float]:
    held = {guess.video: guess for guess in guesses}
    grades: dict[str, list[int]] = {}
    for n, name in enumerate(video_names(test)):
        grades.setdefault(video_sets.grade_of(name), []).append(n)
    answers = {}
    for grade, places in grades.items():
        videos = [test.videos[n] for n in places]
        answers[grade] = average.evaluate(videos, [held[v.id] for v in videos if v.id in held])["AP"]
    return answers


def _gain(base: Sequence[Matches], other: Sequence[Matches]) -> Interval | None:
    return compare_runs(base, other, np.random.default_rng(0)) if base else None


def published(row: str) -> dict[str, float]:
    """The paper's figures of a system in percent, on YouTube-VIS 2019 (STA: on its test set); none for ablations."""
    from tubelet.recipes import find

    return dict(find(PUBLISHED[row]).paper) if row in PUBLISHED else {}


def _processor(device: str) -> str:
    """What the machine computes with, in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    listed = Path("/proc/cpuinfo")
    lines = read(listed).decode(errors="replace").splitlines() if listed.is_file() else []
    models: Iterator[str] = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


SHARES = ("AP", "AP50", "AP75", "AR1", "AR10", "J&F")
AGNOSTIC = "AP, any class"
IDENTITY = (AGNOSTIC, "IDF1", "IDF1_best", "MOTA", "HOTA", "IDs")
COST = ("fps", "peak_mb", "parameters", "train_s")


def comparison_tables(summary: Mapping[str, Any], rows: Sequence[str]) -> str:
    """The tables of the chosen rows in Markdown: accuracy, identity, cost, AP with oracles, and AP by grade.

    The last two are left out where the summary does not have them.
    """
    held = {row: summary["rows"][row] for row in rows if row in summary["rows"]}
    head = ["system", *SHARES, "against MaskTrack R-CNN [95 %]", "paper's AP", "seeds"]
    accuracy = [
        [
            one["about"],
            *cells(one["trials"], SHARES),
            _told(one["gain"]),
            _paper(one["paper"]),
            str(len(one["trials"])),
        ]
        for one in held.values()
    ]
    identity = [[one["about"], *cells(one["trials"], IDENTITY)] for one in held.values()]
    cost = [[one["about"], *cells(one["trials"], COST)] for one in held.values()]
    parts = [
        _table(head, accuracy),
        _table(["system", *IDENTITY], identity),
        _table(["system", "frames a second", "MB", "M parameters", "s of training"], cost),
    ]
    with_oracles = [_with_oracles(one) for one in held.values() if "ceilings" in one]
    if with_oracles:
        parts.append(_table(["AP with", "prediction", *ORACLES], with_oracles))
    grades = list(next(iter(held.values()))["grades"][0]) if held else []
    if grades:
        lines = [[one["about"], *cells(one["grades"], grades)] for one in held.values()]
        parts.append(_table(["AP of", *grades], lines))
    return "\n\n".join(parts)


def _with_oracles(row: Mapping[str, Any]) -> list[str]:
    """A system's AP as it is, and with each oracle."""
    return [row["about"], *cells(row["trials"], ["AP"]), *cells(row["ceilings"], tuple(ORACLES))]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown(Sheet(columns=tuple(columns), rows=tuple(tuple(row) for row in rows)))


def _told(gain: Sequence[float] | None) -> str:
    if gain is None:
        return ""
    value, low, high = (100 * number for number in gain)
    told = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    return told if low <= 0 <= high else f"**{told}**"


def _paper(figures: Mapping[str, float]) -> str:
    return f"{figures['AP']:.1f}" if "AP" in figures else ""
