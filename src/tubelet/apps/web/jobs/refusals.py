"""Why a request cannot be granted now; each has a status of its own in the answer, and a text for the user."""

from __future__ import annotations

from typing import TypeVar

RETRY_AFTER = 20  # seconds after which a client may try again if the server is busy
FULL = "the server's disk is full"

Known = TypeVar("Known")


class Busy(Exception):
    """The server has as much to do as is allowed."""


class Full(Exception):
    """The disk is full, or what a user may keep on it."""


class Spent(Exception):
    """A user has asked for as much as is allowed in a time; `seconds` until more is."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


def known(value: Known | None) -> Known:
    """The value itself. Raises KeyError, which the server answers with 404, if it is None.

    Example:
        >>> from tubelet.apps.web.jobs.refusals import known
        >>> known("a video")
        'a video'
    """
    if value is None:
        raise KeyError
    return value
