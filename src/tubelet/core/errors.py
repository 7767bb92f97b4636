"""The exceptions that tubelet raises for errors that a user can cause.

    ValueError
    └── TubeletError            one line: what was expected, what came, where
        ├── InputError          a path, video, image or stream that cannot be read
        │   ├── TruncatedVideo  a video that ends early and whose start is of no use
        │   └── WriteError      a file or folder that the system does not let us write
        ├── FormatError         invalid content of a file (JSON, RLE, checkpoint)
        ├── ConfigError         an unknown recipe, field or value; the message names the nearest one
        ├── WeightsError        weights that are missing, unsafe or of another model
        └── EngineError         an engine that is not installed, cannot run a model, or differs from torch

On the command line each becomes one line on stderr and exit code 2. Errors that only tubelet itself
can cause are assertions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tubelet.core.text import printable


class TubeletError(ValueError):
    r"""Base of all errors that a user can cause.

    Its text is one line that is safe to print: control characters are escaped and long text is
    shortened.

    Example:
        >>> from tubelet.core.errors import InputError
        >>> print(InputError("no video called \x1b[2Jdog"))
        no video called \x1b[2Jdog
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class InputError(TubeletError):
    """A path, video, image or stream that cannot be read.

    Example:
        >>> from tubelet.core.untrusted.files import read
        >>> read("missing.mp4")
        Traceback (most recent call last):
        ...
        tubelet.core.errors.InputError: missing.mp4: no such file
    """


class TruncatedVideo(InputError):
    """A video that ends early; raised only if the part that could be decoded is of no use.

    Example:
        >>> from tubelet.core.errors import InputError, TruncatedVideo
        >>> issubclass(TruncatedVideo, InputError)
        True
    """


class WriteError(InputError):
    """A file or folder that the system does not let us write.

    Example:
        >>> from tubelet.core.errors import WriteError
        >>> error = WriteError("out.json: cannot be written (no space left on device)")
        >>> error.code = 28
        >>> print(error)
        out.json: cannot be written (no space left on device)
    """

    code: int | None = None  # the system's errno


class FormatError(TubeletError):
    """A file with invalid content.

    Example:
        >>> from tubelet.core.untrusted.documents import decode_json
        >>> decode_json("[1, 2", "a.json")
        Traceback (most recent call last):
        ...
        tubelet.core.errors.FormatError: a.json: expected JSON, Input data was truncated
    """


class ConfigError(TubeletError):
    """An unknown recipe, field or value.

    Example:
        >>> tubelet.Window().override("strid=2")
        Traceback (most recent call last):
        ...
        tubelet.core.errors.ConfigError: strid=2: no field 'strid' in Window; did you mean 'stride'?
    """


class WeightsError(TubeletError):
    """Weights that are missing, unsafe to read, or of another model.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.tensors import read_tensors
        >>> read_tensors(Path("missing.safetensors"))
        Traceback (most recent call last):
        ...
        tubelet.core.errors.WeightsError: missing.safetensors: no such file
    """


class EngineError(TubeletError):
    """An engine that is not installed, cannot run a model, or disagrees with torch.

    Example:
        >>> from tubelet.engines.choice import use_engine
        >>> use_engine([], "onnx", torch.float32, torch.device("cpu"))
        Traceback (most recent call last):
        ...
        tubelet.core.errors.EngineError: engine onnx: this kind of model runs with torch only; use engine torch
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for an error message: the closest known name, or the first 12 if none is close.

    Example:
        >>> from tubelet.core.errors import nearest
        >>> nearest("strid", ["length", "stride"])
        "did you mean 'stride'?"
        >>> nearest("x", ["length", "stride"])
        'known: length, stride'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"

    shown = names[:12]
    if len(names) > 12:
        shown.append("...")
    return f"known: {', '.join(shown)}"
