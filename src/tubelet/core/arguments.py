"""Arguments of the Python API, checked where they enter: a wrong one is a ConfigError that says what was expected."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from tubelet.core.errors import ConfigError

LONGEST = 80  # characters of a value in a message
_SHOWN = (str, bytes, int, float, list, tuple, dict)


def fraction(name: str, value: Any) -> float:
    """The value as a float from 0 to 1; raises ConfigError, which calls it `name`.

    >>> fraction("threshold", 1)
    1.0
    """
    number = _real(value)
    if number is None or not 0 <= number <= 1:
        raise ConfigError(f"{name}: expected a number from 0 to 1, got {short(value)}")
    return number


def positive(name: str, value: Any) -> float:
    """The value as a finite float above 0; raises ConfigError, which calls it `name`."""
    number = _real(value)
    if number is None or not (math.isfinite(number) and number > 0):
        raise ConfigError(f"{name}: expected a positive number, got {short(value)}")
    return number


def whole_between(name: str, value: Any, least: int, most: int | None = None) -> int:
    """The value as an integer from `least` to `most`; raises ConfigError, which calls it `name`.

    >>> whole_between("top", 3, 1)
    3
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        expected = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name}: expected a whole number {expected}, got {short(value)}")
    return int(value)


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """The value where it is among `known`; raises ConfigError, which calls it `name`."""
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{name}: expected {' or '.join(known)}, got {short(value)}")
    return value


def short(value: Any) -> str:
    """How a message shows what came: in one short line, whatever it is.

    >>> short([1, "two"])
    "[1, 'two']"
    >>> short(object())
    'something of type object'
    """
    if not isinstance(value, _SHOWN) and value is not None:
        return f"something of type {type(value).__name__}"
    try:
        text = " ".join(reprlib.repr(value).split())
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _real(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
