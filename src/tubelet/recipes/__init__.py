"""Every row of the papers' tables, and our own models, by name: `find("default").run(out)`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from tubelet.core.arguments import short
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
        videomt,
    )

    modules = (default, masktrack, sta, objprop, objprop_attention, compfeat, mask2former, ifr, videomt, small, tags)
    return {name: row for module in modules for name, row in module.RECIPES.items()}


def names() -> list[str]:
    """All recipe names, sorted.

    >>> from tubelet import recipes
    >>> "default" in recipes.names()
    True
    """
    return sorted(_all())


def every() -> tuple[str, ...]:
    """All recipe names, family by family, rows in the order of their tables.

    >>> from tubelet import recipes
    >>> recipes.every()[0]
    'ssdlite-start'
    """
    return tuple(_all())


def find(name: str) -> Experiment:
    """Find a recipe by name; raises ConfigError, with the nearest name, if there is none.

    >>> from tubelet import recipes
    >>> recipes.find("sta/ytvis2019").paper["AP"]
    40.0
    """
    if not isinstance(name, str) or name not in _all():
        raise ConfigError(f"unknown recipe {short(name)}; {nearest(str(name), names())}")
    return _all()[name]
