"""Arguments of the Python API: right ones pass, wrong ones are one line that says what was expected."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest

from tubelet.core import arguments
from tubelet.core.errors import ConfigError


def test_the_examples_are_true() -> None:
    assert doctest.testmod(arguments).failed == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 1.5, "x", None, [1], True, 10**400])
def test_what_is_no_fraction_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="threshold: expected a number from 0 to 1, got "):
        arguments.fraction("threshold", value)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), np.int64(1)])
def test_numbers_of_every_kind_are_taken(value: Any) -> None:
    assert arguments.fraction("threshold", value) == float(value)


@pytest.mark.parametrize("value", [0, 1.5, float("nan"), "3", None, True, pytest.param(10**5000, id="huge")])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"top: expected a whole number from 1 to 9, got .{1,90}$"):
        arguments.whole_between("top", value, 1, 9)


def test_what_came_is_shown_in_one_short_line() -> None:
    for value in ("a\nb" * 1000, [[[[[[[["deep"]]]]]]]] * 100, {"a": "x" * 9999}, np.zeros(9), 10**5000, b"\0" * 999):
        text = arguments.short(value)
        assert len(text) <= arguments.LONGEST
        assert text.isprintable()
