"""Links to results in the list of jobs: a random word for a job, until it is withdrawn or the job is removed."""

from __future__ import annotations

import secrets
import time

from tubelet.apps.web.jobs.joblist import JobList

WORD_BYTES = 16


class SharedLinks:
    """The links of a list. Thread-safe."""

    def __init__(self, joblist: JobList) -> None:
        self._list = joblist

    def make(self, job: str) -> str:
        """The word of a job's link, which is made if there is none."""
        word = self.word_of(job)
        if word is None:
            word = secrets.token_urlsafe(WORD_BYTES)
            self._list.add("INSERT INTO links VALUES (?, ?, ?)", job, word, time.time())
        return word

    def word_of(self, job: str) -> str | None:
        """The word of a job's link; None if it has none."""
        rows = self._list.read("SELECT word FROM links WHERE job = ?", job)
        return rows[0]["word"] if rows else None

    def job_of(self, word: str) -> str | None:
        """The job that a word leads to, compared in constant time; None if it leads to none."""
        found = None
        for row in self._list.read("SELECT job, word FROM links"):
            if secrets.compare_digest(row["word"].encode(), word.encode()):
                found = row["job"]
        return found

    def withdraw(self, job: str) -> None:
        """End the link of a job, if it has one."""
        self._list.change("DELETE FROM links WHERE job = ?", job)
