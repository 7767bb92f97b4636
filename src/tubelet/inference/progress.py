"""Progress of a prediction as a bar: in a notebook below the cell, elsewhere on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def progress_bar() -> Callable[[int, int], None]:
    """A function of (done, total) that shows a bar; what `progress=True` stands for.

    >>> from tubelet.inference.progress import progress_bar
    >>> callable(progress_bar())
    True
    """
    return _NotebookBar() if _in_notebook() else _TerminalBar()


class _NotebookBar:
    """A bar of HTML that replaces itself, without widgets."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, done: int, total: int) -> None:
        from IPython import display

        html: Any = display.HTML  # IPython has no types
        show: Any = display.display
        bar = html(f"<progress value='{done}' max='{total}'></progress> {done} of {total} frames")
        if self._handle is None:
            self._handle = show(bar, display_id=True)
        else:
            self._handle.update(bar)


class _TerminalBar:
    """A line on stderr that is written anew."""

    width = 30

    def __call__(self, done: int, total: int) -> None:
        full = self.width * done // max(total, 1)
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r{'#' * full}{'.' * (self.width - full)} {done} of {total} frames{end}")
        sys.stderr.flush()


def _in_notebook() -> bool:
    """Whether this is a notebook's kernel: IPython is running, and not on a terminal."""
    if "ipykernel" not in sys.modules:
        return False
    import IPython

    find_shell: Any = IPython.get_ipython  # without types
    shell = find_shell()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
