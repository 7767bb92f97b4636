"""Threads that no error ends: what a loop does again and again is one step, and a step that fails is logged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

PAUSE = 0.1  # seconds after an error, so that one which stays fills no log and no processor

log = logging.getLogger("tubelet.web")


def repeat(step: Callable[[], bool], name: str) -> threading.Thread:
    """Call `step` in a daemon thread until it returns False, whatever it raises meanwhile.

    >>> left = [3, 2, 1]
    >>> thread = repeat(lambda: left.pop() < 3, "countdown")
    >>> thread.join()
    >>> left
    []
    """
    thread = threading.Thread(target=_loop, args=(step, name), name=name, daemon=True)
    thread.start()
    return thread


def _loop(step: Callable[[], bool], name: str) -> None:
    last = ""
    while True:
        try:
            if not step():
                return
        except Exception as error:
            line = f"{type(error).__name__}: {error}"
            if line != last:  # the same trouble again is told once
                log.error("%s goes on after an error", name, exc_info=error)
            last = line
            time.sleep(PAUSE)
