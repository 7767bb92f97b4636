"""Every user's fault is a ValueError, and a wrong name is told the nearest right one."""

from __future__ import annotations

import inspect

import pytest

from tubelet.core import errors


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("defualt", "did you mean 'default'?"),
        ("default", "did you mean 'default'?"),
        ("zzz", "known: default, large, tiny"),
        ("", "known: default, large, tiny"),
    ],
)
def test_a_wrong_name_is_told_the_nearest_or_all(name: str, hint: str) -> None:
    assert errors.nearest(name, ["tiny", "default", "large"]) == hint


def test_a_long_list_of_names_is_cut() -> None:
    hint = errors.nearest("zzz", [f"model-{i:02}" for i in range(40)])
    assert hint.count("model") == 12
    assert hint.endswith(", ...")


def test_every_error_is_a_value_error_and_stands_in_the_drawn_tree() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    assert len(classes) >= 6
    for one in classes:
        assert issubclass(one, errors.TubeletError)
        assert issubclass(one, ValueError)
        assert one.__name__ in (errors.__doc__ or "")


def test_an_error_is_one_line_that_is_safe_to_print() -> None:
    told = str(errors.WeightsError("model.safetensors: no tensor \x1b[31mevil\n" + "x" * 100_000))
    assert told.isprintable()
    assert len(told) <= 1000
    assert told.startswith(r"model.safetensors: no tensor \x1b[31mevil\n")
