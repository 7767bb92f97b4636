"""What a training says of itself: metrics.jsonl, a progress bar with time left, and a curve.

Each line of metrics.jsonl tells the means over the steps since the line before:
    {"step": 20, "lr": 0.005, "loss": 1.5, "loss_mask": 1.0, "loss_class": 0.5, "grad_norm": 3.1,
     "skipped": 0, "samples": 320, "samples_per_second": 41.2, "waiting": 0.03}
`loss` is the sum of the others; `skipped` counts the steps so far whose loss or gradient was not finite (no mean holds
them, and where all were skipped there is none), `samples` the clips so far, `waiting` is the share of the time spent
waiting for data. Only the last two differ when a training is repeated.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
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


class Log:
    """Of one process: rank 0's writes and shows, the others' keep silent. Used with `with`, for the bar's sake."""

    def __init__(self, path: Path, progress: TrainingProgress, *, iterations: int, main: bool) -> None:
        """Lines of `path` after the present step are cut off: a resumed training makes those steps again."""
        self.path, self.progress, self.main = path, progress, main
        self._waited = 0.0  # seconds since the last line
        self._since, self._samples = time.perf_counter(), progress.samples
        if main:
            _truncate(path, progress.step)
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, TimeRemainingColumn(), console=console, disable=not (main and console.is_terminal))
        self._task = self._bar.add_task("training", total=iterations, completed=progress.step)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for data."""
        begun = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begun

    def show(self, losses: dict[str, float]) -> None:
        """Move the bar to the present step."""
        self._bar.update(self._task, completed=self.progress.step, description=f"loss {sum(losses.values()):.3f}")

    def write(self, rate: float) -> None:
        """Append a line, and begin the sums anew."""
        now, progress = time.perf_counter(), self.progress
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
        if self.main:
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())  # a checkpoint that survives a power cut must not know more than the log
        self._since, self._samples, self._waited = now, progress.samples, 0.0
        progress.made, progress.losses, progress.grad_norm = 0, {}, 0.0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that a kill cut short is left out. Raises FormatError for any other."""
    lines = read_text(path).split("\n")
    records = []
    for number, line in enumerate(lines[:-1], 1):  # a complete line ends in a line feed
        try:
            record = decode_figures(line, str(path))
            int(record["step"])
        except (ValueError, KeyError, TypeError):
            raise FormatError(f"{path}, line {number}: expected a JSON object with a step, got {line[:80]!r}") from None
        records.append(record)
    return records


def _means(progress: TrainingProgress) -> dict[str, float]:
    if not progress.made:
        return {}
    losses = {f"loss_{name}": value / progress.made for name, value in progress.losses.items()}
    return {"loss": sum(losses.values()), **losses, "grad_norm": progress.grad_norm / progress.made}


def _truncate(path: Path, step: int) -> None:
    kept = [record for record in read_metrics(path) if record["step"] <= step] if path.exists() and step else []
    with writing(path), replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
