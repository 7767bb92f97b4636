"""What a training reports: metrics.jsonl, and its progress on stderr.

Each line of metrics.jsonl holds the means over the steps since the line before:

    {"step": 20, "lr": 0.005, "loss": 1.5, "loss_mask": 1.0, "loss_class": 0.5, "grad_norm": 3.1,
     "skipped": 0, "samples": 320, "samples_per_second": 41.2, "waiting": 0.03}

or the numbers of a validation:

    {"step": 100, "validation_AP": 0.25, "validation_AP50": 0.41}

`loss` is the sum of the others. `skipped` counts the steps so far whose loss or gradient was not
finite; they enter no mean, and where all were skipped there is none. `samples` counts the clips so
far, `waiting` is the share of the time spent waiting for data. Only `samples_per_second` and
`waiting` differ when a training is repeated.

On a terminal stderr shows a bar; elsewhere (nohup, Slurm, CI) each line of the log is also sent to the
logger `tubelet.progress`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tubelet.core.atomic import replacing
from tubelet.core.errors import FormatError
from tubelet.core.untrusted.documents import decode_figures
from tubelet.core.untrusted.files import read_text
from tubelet.training.checkpoint import TrainingProgress, writing
from tubelet.training.trackers import Tracker
from tubelet.training.validation import Judgement

VALIDATION = "validation_"  # prefix of a validation's numbers
NOT_REPEATED = ("samples_per_second", "waiting")  # fields that depend on the clock

logger = logging.getLogger("tubelet.progress")  # its level INFO is what the command line shows


class Log:
    """The log of one process; only rank 0 writes and shows. A context manager, because of the bar."""

    def __init__(
        self,
        path: Path,
        progress: TrainingProgress,
        *,
        iterations: int,
        main: bool,
        quiet: bool = False,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        """Open the log; lines of `path` after the present step are removed, because they will be made again."""
        self.path = path
        self.progress = progress
        self.iterations = iterations
        self.main = main
        self.trackers = trackers
        self._waited = 0.0  # seconds since the last line
        self._since = time.perf_counter()
        self._samples = progress.samples
        self._verdict = ""  # of the last validation
        self._clock = Clock(progress.step)
        self.losses: list[float] = []  # the mean loss of each line
        if main:
            self.losses = [line["loss"] for line in _truncate(path, progress.step) if "loss" in line]

        console = Console(stderr=True)
        shows = main and not quiet
        self._prints_lines = shows and not console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=console, disable=not (shows and console.is_terminal))
        self._task = self._bar.add_task("training", total=iterations, completed=progress.step)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        for tracker in self.trackers:
            tracker.close()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        begun = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begun

    def show(self, losses: dict[str, float]) -> None:
        """Move the bar to the present step."""
        description = f"loss {sum(losses.values()):.3f}{self._verdict}"
        self._bar.update(self._task, completed=self.progress.step, description=description)

    def write(self, rate: float) -> None:
        """Append a line with the means since the last one."""
        now = time.perf_counter()
        progress = self.progress
        elapsed = max(now - self._since, 1e-9)
        line = {
            "step": progress.step,
            "lr": rate,
            **_means(progress),
            "skipped": progress.skipped,
            "samples": progress.samples,
            "samples_per_second": round((progress.samples - self._samples) / elapsed, 3),
            "waiting": round(self._waited / elapsed, 4),
        }
        self._append(line)
        if "loss" in line:
            self.losses.append(line["loss"])
        if self._prints_lines:
            seconds_left = self._clock.left(progress.step, self.iterations)
            logger.info(progress_line(line, self.iterations, seconds_left, self._verdict))

        self._since = now
        self._samples = progress.samples
        self._waited = 0.0
        progress.made = 0
        progress.losses = {}
        progress.grad_norm = 0.0

    def write_validation(self, judgement: Judgement) -> None:
        """Append a line with the numbers of a validation of the present step."""
        numbers = judgement.numbers
        self._append({"step": self.progress.step, **{f"{VALIDATION}{name}": value for name, value in numbers.items()}})
        self._verdict = f"  {next(iter(numbers))} {percent(judgement.deciding)}"
        if self._prints_lines:
            logger.info(validation_line(self.progress, numbers))

    def _append(self, line: Mapping[str, float]) -> None:
        if not self.main:
            return
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint that survives a power cut must not know more than the log
        numbers = {name: value for name, value in line.items() if name != "step"}
        for tracker in self.trackers:
            tracker.write(self.progress.step, numbers)


class Clock:
    """Estimates the time left from the steps made since it was started.

    Example:
        >>> from tubelet.training.log import Clock
        >>> clock = Clock(step=0, now=0.0)
        >>> clock.left(step=10, total=40, now=5.0)
        15.0
    """

    def __init__(self, step: int, now: float | None = None) -> None:
        self.step = step
        self.begun = time.perf_counter() if now is None else now

    def left(self, step: int, total: int, now: float | None = None) -> float:
        """Seconds until `total` steps are done."""
        elapsed = (time.perf_counter() if now is None else now) - self.begun
        return elapsed / max(step - self.step, 1) * (total - step)


def progress_line(line: Mapping[str, float], iterations: int, seconds_left: float, verdict: str = "") -> str:
    """One line of the log for people.

    Example:
        >>> from tubelet.training.log import progress_line
        >>> line = {"step": 20, "lr": 0.005, "loss": 1.5, "loss_mask": 1.0, "loss_class": 0.5}
        >>> progress_line({**line, "samples_per_second": 41.2}, iterations=1000, seconds_left=200)
        'step 20/1000  loss 1.500 (mask 1.000, class 0.500)  lr 0.005  41.2 clips/s  3:20 left'
    """
    parts = [f"step {line['step']}/{iterations}"]
    if "loss" in line:
        losses = [f"{name.removeprefix('loss_')} {line[name]:.3f}" for name in line if name.startswith("loss_")]
        parts.append(f"loss {line['loss']:.3f} ({', '.join(losses)})")
    if line.get("skipped"):
        parts.append(f"{line['skipped']} skipped")
    if verdict:
        parts.append(verdict.strip())
    parts.append(f"lr {line['lr']:.3g}")
    parts.append(f"{line['samples_per_second']:.3g} clips/s")
    parts.append(f"{clock(seconds_left)} left")
    return "  ".join(parts)


def validation_line(progress: TrainingProgress, numbers: Mapping[str, float]) -> str:
    """The numbers of a validation for people.

    Example:
        >>> from tubelet.training.checkpoint import TrainingProgress
        >>> from tubelet.training.log import validation_line
        >>> progress = TrainingProgress(step=200, best=0.31, best_step=100)
        >>> validation_line(progress, {"AP": 0.3, "AP50": 0.52})
        'step 200 validated: AP 30.0  AP50 52.0 (best 31.0 at step 100)'
    """
    values = "  ".join(f"{name} {percent(value)}" for name, value in numbers.items())
    best = "the best so far"
    if progress.best is not None and progress.best_step != progress.step:
        best = f"best {percent(progress.best)} at step {progress.best_step}"
    return f"step {progress.step} validated: {values} ({best})"


def percent(value: float) -> str:
    """A fraction in percent, a count as it is; -1 stands for a number that the truth cannot give.

    Example:
        >>> from tubelet.training.log import percent
        >>> percent(0.25), percent(12.0), percent(-1.0)
        ('25.0', '12', 'unknown')
    """
    if value == -1:
        return "unknown"
    return f"{100 * value:.1f}" if abs(value) <= 1 else f"{value:g}"


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, or hours and minutes.

    Example:
        >>> from tubelet.training.log import clock
        >>> clock(65), clock(3 * 3600 + 120)
        ('1:05', '3 h 02 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that a kill cut short is left out. Raises FormatError for any other."""
    lines = read_text(path).split("\n")
    records = []
    for number, line in enumerate(lines[:-1], 1):  # a complete line ends in a line feed
        try:
            record = decode_figures(line, str(path))
        except FormatError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise FormatError(f"{path}, line {number}: expected a JSON object with a step, got {line[:80]!r}")
        records.append(record)
    return records


def _means(progress: TrainingProgress) -> dict[str, float]:
    if not progress.made:
        return {}
    losses = {f"loss_{name}": value / progress.made for name, value in progress.losses.items()}
    return {"loss": sum(losses.values()), **losses, "grad_norm": progress.grad_norm / progress.made}


def _truncate(path: Path, step: int) -> list[dict[str, Any]]:
    """Remove the lines after a step; returns the others."""
    records = read_metrics(path) if path.exists() and step else []
    remaining = [record for record in records if record["step"] <= step]
    with writing(path), replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in remaining), encoding="utf-8")
    return remaining
