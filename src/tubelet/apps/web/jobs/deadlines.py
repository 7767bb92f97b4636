"""How long the worker may take: in silence, over one video, and to stop after a cancellation."""

from __future__ import annotations

import time

from tubelet.apps.web.jobs.tasks import QueuedTask
from tubelet.apps.web.limits import Limits

SILENT = "nothing was heard of this video for too long, so it was given up; try it again, or with another model"


class Deadlines:
    """The times of the current task, and whether it has had too much of it. All are of `time.monotonic`.

    Example:
        >>> from tubelet.apps.web.jobs.deadlines import Deadlines
        >>> from tubelet.apps.web.limits import Limits
        >>> deadlines = Deadlines(Limits(silence=30))
        >>> deadlines.are_over(None, is_loading=True)
        False
        >>> deadlines.last_message -= 31
        >>> deadlines.are_over(None, is_loading=True), deadlines.reason[:17]
        (True, 'nothing was heard')
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.started = time.monotonic()
        self.last_message = time.monotonic()  # about the task, or of a worker that is loading its models
        self.cancelled: float | None = None
        self.reason: str | None = None  # one line for the user, once they are over

    def begin(self) -> None:
        """A task starts."""
        self.started = time.monotonic()
        self.last_message = self.started
        self.cancelled = None

    def note_message(self) -> None:
        """The worker has said how far it is."""
        self.last_message = time.monotonic()

    def cancel(self) -> None:
        """The task is cancelled, and has its grace to stop from now on."""
        self.cancelled = time.monotonic()

    def are_over(self, task: QueuedTask | None, *, is_loading: bool) -> bool:
        """Whether the worker must be killed; `is_loading` if it is a new one that loads its models."""
        now = time.monotonic()
        if self.cancelled is not None:
            return task is not None and now - self.cancelled > task.grace

        minutes = self._limits.minutes if task is not None and task.is_bounded else 0
        if (task is not None or is_loading) and now - self.last_message > self._limits.silence:
            self.reason = SILENT
        elif minutes and now - self.started > 60 * minutes:
            self.reason = f"this took longer than the {minutes} minutes that a video may take; its files are removed"
        return self.reason is not None
