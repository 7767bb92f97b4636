"""What commands say: a progress bar on stderr, results on stdout, and every fault as one line with an exit code.

Names and ids from outside pass through `core.text.printable` here, on their way to the terminal, and nowhere before.
"""

from __future__ import annotations

import io
import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from tubelet.core.text import MOST_OF_A_CELL, printable

if TYPE_CHECKING:
    from rich.table import Table

FAULT, INTERRUPTED, TERMINATED = 2, 130, 143
LINE_EVERY = 10.0  # seconds between lines of progress, off a terminal
MOST_OF_A_RESULT = 10_000  # characters of a line on stdout: a row of Markdown may be long


_progress = logging.getLogger("tubelet.progress")  # of the library, too


class Leave(Exception):
    """Ends a command that has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run(command: Callable[[], object], *, quiet: bool = False) -> int:
    """Run a command; its exit code. Only a fault of ours ends in a traceback. `quiet` hides progress.

    2 and one line on stderr for what a user can cause: the errors of core/errors.py, wrong arguments, and whatever the
    system refuses (no such folder, no permission, a full disk). 130 after Ctrl-C.
    """
    _never_fail_to_print()
    _say_instead_of_log(quiet)
    try:
        code = command()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Leave as left:
        return left.code
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            print(str(error), file=sys.stderr)
            return FAULT
        line = _line(error)
        if line is None:
            raise
        say(line)
        return FAULT
    if code == INTERRUPTED:
        say("interrupted; nothing half-written is left")
    return code if isinstance(code, int) else 0


def say(line: str) -> None:
    """One line on stderr, of no more than a thousand characters."""
    print("tubelet:", printable(" ".join(line.split())), file=sys.stderr)


def terminate(number: int, frame: FrameType | None) -> None:
    """A signal handler: leave as on Ctrl-C, so that scratch files are removed."""
    raise SystemExit(TERMINATED)


def catch_termination() -> None:
    """Let SIGTERM unwind the program instead of cutting it off."""
    signal.signal(signal.SIGTERM, terminate)


class ProgressLines:
    """Says every ten seconds how far a command is: for nohup, Slurm and CI, where there is no bar."""

    def __init__(self, what: str, unit: str = "frames") -> None:
        self.what = what
        self.unit = unit
        self.begun = time.monotonic()
        self.last = self.begun

    def __call__(self, done: int, total: int) -> None:
        """Note that `done` of `total` are done; says a line where it is time for one."""
        now = time.monotonic()
        if now - self.last < LINE_EVERY:
            return
        self.last = now
        rate = done / (now - self.begun)
        left = round((total - done) / rate) if rate else 0
        text = (
            f"{self.what}: {done} of {total} {self.unit}, {rate:.3g} {self.unit}/s, {left // 60}:{left % 60:02d} left"
        )
        _progress.info("%s", text)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function of (done, total) that shows frames done, frames a second and time left on stderr.

    On a terminal that is a bar, elsewhere a line every ten seconds; nothing with --quiet.
    """
    if is_quiet():
        yield lambda done, total: None
        return
    if not sys.stderr.isatty():
        yield ProgressLines(what)
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None, rate="")

        def update(done: int, total: int) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f} frames/s" if speed else "")

        yield update


def table(*columns: str) -> Table:
    """A plain table; columns whose name starts with # are numbers, to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name.removeprefix("#"), justify="right" if name.startswith("#") else "left", no_wrap=True)
    return made


def show(*parts: Table | str) -> None:
    """Results on stdout; text from outside is never taken for markup, and long lines stay whole."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000  # a pipe has no edge to wrap or cut at
    for part in parts:
        if isinstance(part, str):
            lines = (printable(line, MOST_OF_A_RESULT) for line in part.split("\n"))
            console.print("\n".join(lines), markup=False, soft_wrap=True)
        else:
            console.print(part, markup=False)


def rows_of(made: Table, rows: Sequence[Sequence[object]]) -> Table:
    """The table with rows of plain text."""
    from rich.text import Text

    for row in rows:
        made.add_row(*(Text(printable(str(cell), MOST_OF_A_CELL)) for cell in row))
    return made


def _line(error: Exception) -> str | None:
    """What to tell a user of an error; None where the fault is ours."""
    from tubelet.core.errors import TubeletError

    if isinstance(error, TubeletError):
        return str(error)
    if isinstance(error, UnicodeEncodeError):
        name = error.object[error.start : error.end]
        return f"{name!r} is no name for a file where names are {sys.getfilesystemencoding()}; set PYTHONUTF8=1"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{(error.strerror or str(error)).lower()}"
    usage = getattr(error, "format_message", None)  # wrong arguments, in typer's classes or in click's
    if not callable(usage):
        return None
    return f"{usage().replace('Value error, ', '').rstrip('.')} (see tubelet --help)"


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _never_fail_to_print() -> None:
    """A terminal or a pipe that knows ASCII alone gets the rest escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_quiet() -> bool:
    """Whether the command was asked to show no progress."""
    return not _progress.isEnabledFor(logging.INFO)


def _say_instead_of_log(quiet: bool) -> None:
    """Warnings, of the library and of Python, and progress, as lines like all others."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("tubelet: %(message)s"))
    logging.getLogger("tubelet").handlers[:] = [handler]
    _progress.setLevel(logging.WARNING if quiet else logging.INFO)
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if category.__module__.startswith("tubelet") or category is UserWarning:
        say(str(message))
