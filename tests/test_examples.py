"""The examples in docstrings run, and print what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
import torch

import tubelet

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    """Every module of the package, without the page's server, which needs an extra."""
    names = [module.name for module in pkgutil.walk_packages(tubelet.__path__, "tubelet.")]
    return [name for name in names if not name.startswith("tubelet.apps.web") and not name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_print_what_they_show(name: str) -> None:
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    shown: list[str] = []
    names = {**vars(module), "torch": torch, "np": np, "tubelet": tubelet}
    for example in finder.find(module, name, globs=names):
        runner.run(example, out=shown.append)
    assert runner.failures == 0, "".join(shown)
