"""Threads that survive errors: a loop calls one step again and again, and an exception is logged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

PAUSE = 0.1  # seconds after an error, so that a lasting one fills neither log nor processor

log = logging.getLogger("tubelet.web")


def repeat(step: Callable[[], bool], name: str) -> threading.Thread:
    """Call `step` in a daemon thread until it returns False; exceptions are logged and do not end the thread.

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
    last_error = ""
    while True:
        try:
            if not step():
                return
        except Exception as error:
            description = f"{type(error).__name__}: {error}"
            if description != last_error:  # an error that repeats is logged once
                log.error("%s goes on after an error", name, exc_info=error)
            last_error = description
            time.sleep(PAUSE)
