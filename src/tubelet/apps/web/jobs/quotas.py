"""What one user may use of a server: jobs that wait, jobs of a day, bytes that are kept."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tubelet.apps.web.jobs.refusals import Busy, Full, Spent
from tubelet.apps.web.jobs.store import DAY, Job, Store
from tubelet.apps.web.jobs.trainings import TrainingJob
from tubelet.apps.web.limits import MEGABYTE
from tubelet.apps.web.users import User


def check_waiting(user: User, waiting: Sequence[Job | TrainingJob], store: Store) -> None:
    """Raise Busy if as many jobs of a user wait as are allowed."""
    if user.waiting is None:
        return
    owners = [job.owner if isinstance(job, TrainingJob) else store.owner("jobs", job.id) for job in waiting]
    if owners.count(user.name) >= user.waiting:
        raise Busy(f"busy: {user.waiting} of your videos are waiting already; try again in a while")


def check_day(user: User, store: Store) -> None:
    """Raise Spent if a user has asked for as many jobs in 24 hours as are allowed."""
    now = time.time()
    asked = store.asked(user.name, now)
    if user.jobs_a_day is None or len(asked) < user.jobs_a_day:
        return
    seconds = max(asked[-user.jobs_a_day] + DAY - now, 1)
    hours = seconds / 3600
    raise Spent(
        f"your {user.jobs_a_day} jobs of a day are used; the next can be asked for in {hours:.1f} hours", seconds
    )


def check_bytes(user: User, store: Store, more: int = 0) -> None:
    """Raise Full if the files of a user, and `more` bytes, are more than may be kept."""
    if user.megabytes is None:
        return
    kept = store.bytes_of(user.name)
    if kept + more > user.megabytes * MEGABYTE:
        line = f"your videos, results and models take {kept / MEGABYTE:,.0f} of {user.megabytes:,} MB"
        raise Full(f"{line}, and this would be more; remove some first")
