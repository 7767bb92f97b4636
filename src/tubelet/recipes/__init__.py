"""Every row of the papers' tables, and our own models, by name: `find("default").run(out)`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from tubelet.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from tubelet.recipes.experiment import Experiment


@cache
def _all() -> dict[str, Experiment]:
    from tubelet.recipes import (
        compfeat,
        default,
        ifr,
        mask2former,
        masktrack,
        objprop,
        objprop_attention,
        small,
        sta,
        tags,
    )

    modules = (default, masktrack, sta, objprop, objprop_attention, compfeat, mask2former, ifr, small, tags)
    return {name: row for module in modules for name, row in module.RECIPES.items()}


def names() -> list[str]:
    """All recipe names."""
    return sorted(_all())


def find(name: str) -> Experiment:
    """The recipe of a name; raises ConfigError with the nearest one."""
    if name not in _all():
        raise ConfigError(f"unknown recipe {name!r}; {nearest(name, names())}")
    return _all()[name]
