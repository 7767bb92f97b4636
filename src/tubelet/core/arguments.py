"""Check arguments of the Python API; a wrong one raises ConfigError, which says what was expected."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from typing import Any

from tubelet.core.errors import ConfigError, nearest

LONGEST = 80  # characters of a value in a message
_SHOWN = (str, bytes, int, float, list, tuple, dict)


def fraction(name: str, value: Any) -> float:
    """Convert to a float from 0 to 1. Raises ConfigError, with `name`, if it is not.

    Example:
        >>> from tubelet.core.arguments import fraction
        >>> fraction("threshold", 1)
        1.0
    """
    number = _real(value)
    if number is None or not 0 <= number <= 1:
        raise ConfigError(f"{name}: expected a number from 0 to 1, got {short(value)}")
    return number


def positive(name: str, value: Any) -> float:
    """Convert to a finite float above 0. Raises ConfigError, with `name`, if it is not.

    Example:
        >>> from tubelet.core.arguments import positive
        >>> positive("fps", -1)
        Traceback (most recent call last):
        ...
        tubelet.core.errors.ConfigError: fps: expected a positive number, got -1
    """
    number = _real(value)
    if number is None or not (math.isfinite(number) and number > 0):
        raise ConfigError(f"{name}: expected a positive number, got {short(value)}")
    return number


def not_negative(name: str, value: Any) -> float:
    """Convert to a finite float of at least 0. Raises ConfigError, with `name`, if it is not.

    Example:
        >>> from tubelet.core.arguments import not_negative
        >>> not_negative("min_seconds", 2)
        2.0
    """
    number = _real(value)
    if number is None or not (math.isfinite(number) and number >= 0):
        raise ConfigError(f"{name}: expected a number of at least 0, got {short(value)}")
    return number


def class_labels(classes: Collection[str], known: Sequence[str]) -> frozenset[int]:
    """Positions of class names in the list `known`.

    Raises ConfigError, with the nearest name, if one is unknown.

    Example:
        >>> from tubelet.core.arguments import class_labels
        >>> sorted(class_labels(["dog", "person"], ["person", "cat", "dog"]))
        [0, 2]
        >>> class_labels(["persn"], ["person", "cat"])
        Traceback (most recent call last):
        ...
        tubelet.core.errors.ConfigError: no class 'persn'; did you mean 'person'?
    """
    if isinstance(classes, str | bytes) or not isinstance(classes, Collection):
        raise ConfigError(f"classes: expected a list of class names such as ['person', 'dog'], got {short(classes)}")

    labels = []
    for name in classes:
        if not isinstance(name, str):
            raise ConfigError(f"classes: expected names such as 'person', got {short(name)}")
        if name not in known:
            raise ConfigError(f"no class {short(name)}; {nearest(name, known)}")
        labels.append(known.index(name))
    return frozenset(labels)


def whole_between(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Convert to an int from `least` to `most`. Raises ConfigError, with `name`, if it is not.

    Example:
        >>> from tubelet.core.arguments import whole_between
        >>> whole_between("top", 3, 1)
        3
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        expected = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name}: expected a whole number {expected}, got {short(value)}")
    return int(value)


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """Return the value. Raises ConfigError, with `name`, if it is not one of `known`.

    Example:
        >>> from tubelet.core.arguments import one_of
        >>> one_of("metric", "AP", ["AP", "AR"])
        'AP'
    """
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{name}: expected {' or '.join(known)}, got {short(value)}")
    return value


def short(value: Any) -> str:
    """Describe any value in one short line, for an error message.

    Example:
        >>> from tubelet.core.arguments import short
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
    """The number as a float; None if it is no number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
