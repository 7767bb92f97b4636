"""Why a request cannot be granted now; each has a status of its own in the answer, and a text for the user."""

from __future__ import annotations


class Busy(Exception):
    """The server has as much to do as is allowed."""


class Full(Exception):
    """The disk is full, or what a user may keep on it."""


class Spent(Exception):
    """A user has asked for as much as is allowed in a time; `seconds` until more is."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds
