"""The queue's worker process: there is none once the queue is closed."""

from __future__ import annotations

from pathlib import Path

import pytest

import web_models
from tubelet.apps.web.jobs.queue import Jobs
from tubelet.apps.web.jobs.store import Store
from tubelet.apps.web.limits import Limits


def test_no_worker_starts_once_the_queue_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog may have been between its pause and the lock when the queue was closed."""
    store = Store(tmp_path)
    jobs = Jobs(store, Limits(), web_models.open_model, ["toy"])
    jobs.open()
    assert jobs.worker_pid is not None
    jobs.close()
    monkeypatch.setattr(jobs._stop, "wait", lambda seconds: False)
    assert jobs._watch() is False
    assert jobs.worker_pid is None
    store.close()
