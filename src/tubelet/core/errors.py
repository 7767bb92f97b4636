"""The exceptions that tubelet raises for anything a user can cause.

    ValueError
    └── TubeletError            one clear line: what was expected, what came, where
        ├── InputError          a path, video, image or stream that cannot be read as asked
        │   ├── TruncatedVideo  a video that ends early; what could be decoded is kept
        │   └── WriteError      a file or folder that the system does not let us write
        ├── FormatError         a file that is not of the form it claims (JSON, RLE, checkpoint)
        ├── ConfigError         an unknown recipe, field or value; names the nearest right one
        └── WeightsError        weights that do not fit the model, are not there, or are not safe to read

On the command line each becomes one line on stderr and exit code 2. Faults that only we can cause are assertions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tubelet.core.text import printable


class TubeletError(ValueError):
    r"""Base of every error that a user can cause.

    Its text is one line that is safe to print: what acts on a terminal is escaped, what is too long is cut.

    >>> print(InputError("no video called \x1b[2Jdog"))
    no video called \x1b[2Jdog
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class InputError(TubeletError):
    """A path, video, image or stream that cannot be read as asked."""


class TruncatedVideo(InputError):
    """A video that ends before its end; raised only where keeping the decoded part is impossible."""


class WriteError(InputError):
    """A file or folder that the system does not let us write; `code` is the system's number of the reason."""

    code: int | None = None


class FormatError(TubeletError):
    """A file that is not of the form it claims to be."""


class ConfigError(TubeletError):
    """An unknown recipe, field or value."""


class WeightsError(TubeletError):
    """Weights that are missing, unsafe to read, or made for another model."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint to end an error with: the closest of the known names, or all of them where none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown}"
