"""`tubelet batch`: segment many videos on several processes or a cluster, with one folder of results each."""

from __future__ import annotations

import csv
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tubelet.apps.console import Leave, rows_of, say, show, table
from tubelet.apps.opening import load_model
from tubelet.apps.option_texts import (
    CUTS_HELP,
    DEVICE_HELP,
    MODEL_HELP,
    THRESHOLD_HELP,
    TOP_HELP,
    VIEWS_HELP,
)
from tubelet.apps.options import (
    Anchor,
    Classes,
    Distinct,
    End,
    Engine,
    Every,
    InputSize,
    Lines,
    Overlay,
    Reading,
    Region,
    Results,
    Start,
    Unknown,
    Zones,
    class_names,
    counting_of,
    region,
    results_form,
)

if TYPE_CHECKING:
    from tubelet.inference.many.batch import OpenModel, Segment, Settings, VideoJob, VideoOutcome
    from tubelet.inference.many.remote import RemoteResults

SUMMARY = "summary"  # .csv and .parquet
SOME_FAILED = 1
MOST_WORKERS = 16  # where their number is left to us and they compute on the CPU
SUMMED = ("objects", "frames")  # sums of the report
COLUMNS = ("video", "folder", "status", "objects", "frames", "seconds", "note")


def batch(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUTS ...]",
            help="Videos, folders, globs ('films/**/*.mp4'), addresses (s3://bucket/films) or @LIST.",
            show_default=False,
        ),
    ] = None,
    *,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Where results go: a folder for each video. Or an address: s3://bucket/results."
        ),
    ],
    lists: Annotated[
        list[Path] | None, typer.Option("--list", metavar="FILE", help="Inputs, one a line.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help=MODEL_HELP)] = "default",
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes.", show_default="one for each device, or core")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, metavar="N", help="CPU threads of each worker; part of the settings.")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Share the work by Ray: local, auto or ray://...", show_default=False),
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help=THRESHOLD_HELP)] = 0.5,
    window: Reading = None,
    views: Annotated[int, typer.Option(min=1, metavar="N", help=VIEWS_HELP)] = 1,
    top: Annotated[int | None, typer.Option(min=1, metavar="N", help=TOP_HELP, show_default=False)] = None,
    distinct: Distinct = None,
    classes: Classes = None,
    roi: Region = None,
    start: Start = None,
    end: End = None,
    every: Every = 1,
    line: Lines = None,
    zone: Zones = None,
    anchor: Anchor = "centre",
    overlay: Overlay = None,
    results: Results = "auto",
    unknown: Unknown = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    engine: Engine = "auto",
    input_size: InputSize = None,
    no_cuts: Annotated[bool, typer.Option("--no-cuts", help=CUTS_HELP)] = False,
    no_video: Annotated[bool, typer.Option("--no-video", help="Write no overlay.mp4.")] = False,
) -> None:
    """Segment many videos. When started again, finished ones are skipped."""
    from tubelet.inference.many.batch import Settings

    if ray is not None:
        require_ray()
    folder, remote = destination(out)
    devices = places(device, workers, threads)
    settings = Settings(
        model=fingerprint(model),
        threshold=threshold,
        window=tuple(window or ()),
        views=views,
        top=top,
        distinct=distinct,
        unknown=unknown,
        cuts=not no_cuts,
        classes=class_names(classes),
        roi=region(roi),
        start=start,
        end=end,
        every=every,
        results=results_form(results),
        counting=counting_of(line, zone, anchor),
        video=not no_video,
        overlay=tuple(overlay or ()),
        device=devices[0].partition(":")[0],
        engine=engine,
        input_size=input_size,
        threads=threads,
    )
    open_model = partial(load_model, model, engine=engine, input_size=input_size)
    failed = work(inputs or (), lists or (), folder, open_model, settings, devices, ray=ray, remote=remote)
    if failed:
        raise Leave(SOME_FAILED)


def destination(out: str) -> tuple[Path, RemoteResults | None]:
    """The folder of this machine where results are written, and the address that they are sent to, if it is one.

    Raises InputError or WriteError if results cannot be written.
    """
    from tubelet.core.atomic import check_folder
    from tubelet.core.errors import InputError
    from tubelet.core.remote import is_remote
    from tubelet.core.untrusted.addresses import is_web_address
    from tubelet.inference.many.remote import RemoteResults

    if is_web_address(out):
        raise InputError(f"{out}: expected a folder or an address such as s3://bucket/results, found a web address")
    remote = RemoteResults(out) if is_remote(out) else None
    if remote is not None:
        remote.folder.check()
    folder = Path(out) if remote is None else remote.staging
    check_folder(folder)
    return folder, remote


def work(
    inputs: Sequence[str],
    lists: Sequence[Path],
    out: Path,
    open_model: OpenModel,
    settings: Settings,
    devices: Sequence[str],
    *,
    ray: str | None = None,
    remote: RemoteResults | None = None,
) -> int:
    """Find the videos of the inputs and segment those that are not finished; returns the number that failed."""
    from tubelet.apps.batch.inputs import find_jobs

    jobs = find_jobs(inputs, lists, out if remote is None else remote.address)
    return work_through(jobs, out, open_model, settings, devices, ray=ray, remote=remote)


def work_through(
    jobs: Sequence[VideoJob],
    out: Path,
    open_model: OpenModel,
    settings: Settings,
    devices: Sequence[str],
    *,
    ray: str | None = None,
    remote: RemoteResults | None = None,
) -> int:
    """Segment the videos that are not finished, write the summary, print a report; returns the number that failed.

    With `remote`, `out` is a folder of each machine from which results are sent there.
    """
    from tubelet.inference.many.batch import fresh

    finished, left = sort(jobs, out, settings, remote)
    segment = None if remote is None else remote.segment
    for job in jobs:
        fresh(job, out)

    outcomes = list(finished)
    start = time.perf_counter()
    try:
        with (
            videos_progress(len(jobs), len(finished)) as tell,
            # an error ends the workers
            closing(outcomes_of(left, open_model, out, settings, devices, ray, segment)) as results,
        ):
            for outcome in results:
                outcomes.append(outcome)
                tell(outcome)
    finally:  # also if interrupted
        files = write_summary(out, outcomes)
        if remote is not None:
            remote.send_summary(files)
    _report(outcomes, str(out) if remote is None else remote.shown, time.perf_counter() - start)
    return sum(outcome.status == "failed" for outcome in outcomes)


def places(device: str, workers: int | None, threads: int) -> list[str]:
    """Choose the device of each worker: all CUDA devices in turn, or the named one for every worker."""
    import torch

    from tubelet.core.devices import choose_device

    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        devices = [f"cuda:{n}" for n in range(torch.cuda.device_count())]
        count = len(devices)
    else:
        devices, count = [str(chosen)], 1
        if chosen.type == "cpu":
            count = min(max((os.cpu_count() or 1) // threads, 1), MOST_WORKERS)
    return [devices[n % len(devices)] for n in range(workers or count)]


def fingerprint(name: str) -> str:
    """SHA-256 of a model's weights file, whatever its path and name."""
    import hashlib

    from tubelet.core.untrusted.files import opened
    from tubelet.models import weights

    with opened(weights.find(name)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_ray() -> None:
    """Raise InputError, with what to install, if the extra `ray` is missing."""
    from tubelet.core.errors import InputError

    if find_spec("ray") is None:
        raise InputError("--ray needs Ray: install the extra, pip install 'tubelet[ray]'")


def sort(
    jobs: Sequence[VideoJob], out: Path, settings: Settings, remote: RemoteResults | None = None
) -> tuple[list[VideoOutcome], list[VideoJob]]:
    """Split the jobs into finished and remaining ones; prints why finished videos are segmented again."""
    from tubelet.inference.many.batch import earlier

    results = [earlier(job, out, settings) for job in jobs] if remote is None else remote.earlier(jobs, settings)
    finished = []
    left = []
    reasons: Counter[str] = Counter()
    for job, result in zip(jobs, results, strict=True):
        if result.outcome is None:
            left.append(job)
            reasons[result.reason] += bool(result.reason)
        else:
            finished.append(result.outcome)
    for reason, count in (+reasons).items():
        say(f"{_videos(count)} done before {'is' if count == 1 else 'are'} done again: {reason}")
    return finished, left


def write_summary(out: Path, outcomes: Sequence[VideoOutcome]) -> list[Path]:
    """Write summary.csv, and summary.parquet if pyarrow is installed, sorted by folder; returns the paths."""
    from tubelet.core.atomic import together
    from tubelet.core.text import plain_tree

    rows = [plain_tree(asdict(outcome)) for outcome in sorted(outcomes, key=lambda outcome: outcome.folder)]
    for row in rows:
        row["seconds"] = round(row["seconds"], 3)
    with together(out) as folder:
        with (folder / f"{SUMMARY}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        if find_spec("pyarrow") is not None:
            _write_parquet(folder / f"{SUMMARY}.parquet", rows)
        names = sorted(path.name for path in folder.iterdir())
    return [out / name for name in names]


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = {"objects": pyarrow.int64(), "frames": pyarrow.int64(), "seconds": pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    with path.open("wb") as file:  # pyarrow refuses paths that are not UTF-8
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), file)


def outcomes_of(
    jobs: Sequence[VideoJob],
    open_model: OpenModel,
    out: Path,
    settings: Settings,
    devices: Sequence[str],
    ray: str | None,
    segment: Segment | None = None,
) -> Generator[VideoOutcome, None, None]:
    """Share videos among processes, or by Ray; yields each outcome as it comes.

    `segment(model, job, out, settings)` is called for each video; None: write a folder of results.
    """
    if not jobs:
        return
    if ray is not None:
        from tubelet.apps.batch.cluster import share_by_ray

        yield from share_by_ray(jobs, open_model, out, settings, devices, ray, segment)
        return

    from tubelet.inference.many import batch, workers

    yield from workers.share(jobs, open_model, out, settings, devices, segment or batch.segment)


@contextmanager
def videos_progress(total: int, finished: int) -> Iterator[Callable[[VideoOutcome], None]]:
    """A progress bar over videos on a terminal; failures are printed as lines of their own in any case."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tubelet.core.text import printable

    console = Console(stderr=True)
    columns = (
        TextColumn("videos"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    start, frames = time.perf_counter(), 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("videos", total=total, completed=finished, rate="")

        def tell(outcome: VideoOutcome) -> None:
            nonlocal frames
            frames += outcome.frames
            bar.update(task, advance=1, rate=f"{frames / (time.perf_counter() - start):.1f} frames/s")
            if outcome.note:
                video = printable(outcome.video)
                note = printable(outcome.note)
                say(f"{video}: {note.removeprefix(f'{video}: ')}")

        yield tell


def _report(outcomes: Sequence[VideoOutcome], out: str, seconds: float) -> None:
    counts = Counter(outcome.status for outcome in outcomes)
    new = [outcome for outcome in outcomes if outcome.status == "done"]
    frames = sum(outcome.frames for outcome in new)
    rows = [
        (status, counts[status], *(sum(getattr(o, what) for o in outcomes if o.status == status) for what in SUMMED))
        for status in ("done", "skipped", "failed")
        if counts[status]
    ]
    show(rows_of(table("status", "#videos", *(f"#{what}" for what in SUMMED)), rows))
    if new:
        show(f"{seconds:.1f} s, {frames / seconds:.1f} frames/s, {60 * len(new) / seconds:.1f} videos/min")
    show(f"{out}/{SUMMARY}.csv")


def _videos(count: int) -> str:
    return f"{count} video{'s' * (count != 1)}"
