"""The papers' tables: which recipe, tested in which way, stands in which row."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from tubelet import recipes
from tubelet.core.errors import ConfigError, nearest
from tubelet.recipes.evaluations import own_evaluation
from tubelet.recipes.experiment import Evaluation


class TableRow(NamedTuple):
    """One line of a table: a recipe, and one way of testing it."""

    label: str
    recipe: str
    evaluation: Evaluation


# tables whose rows are not simply the recipes under their name: recipes and prefixes of recipes
_GATHERED: dict[str, tuple[str, ...]] = {
    "ifr/table1": ("mask2former_vis/table1/", "ifr/table1/"),
    "ifr/table2": ("mask2former_vis/table2/", "ifr/table2/"),
    "sta/table1": ("sta/baseline", "sta/ytvis2019"),
    "tags/table1": ("tags/ytvis2019",),
    "tags/table2": ("tags/davis",),
    "tags/table3": ("tags/davis", "tags/table3/"),
    # of the other data sets, the larger model alone is published
    "videomt/ytvis2021": ("videomt/ytvis2021/l",),
    "videomt/ytvis2022": ("videomt/ytvis2022/l",),
    "videomt/ovis": ("videomt/ovis/l",),
}


@cache
def tables() -> dict[str, tuple[TableRow, ...]]:
    """All tables by name, such as objprop_attention/table1, each with its rows in the paper's order.

    Example:
        >>> from tubelet.recipes.tables import tables
        >>> [row.label for row in tables()["ifr/table4"]][:2]
        ['ifr/table1/swin-l, T2', 'ifr/table1/swin-l, T5']
    """
    found: dict[str, list[TableRow]] = {}
    for name in _names():
        found[name] = [row for recipe in _members(name) for row in _rows(name, recipe)]
    for recipe in recipes.every():
        for way, evaluation in recipes.find(recipe).evaluations.items():
            table, slash, rest = way.partition("/")
            if slash:
                row = TableRow(f"{recipe}, {rest}", recipe, evaluation)
                found.setdefault(f"{recipe.partition('/')[0]}/{table}", []).append(row)
    return {name: tuple(rows) for name, rows in sorted(found.items())}


def find_table(name: str) -> tuple[TableRow, ...]:
    """The rows of a table; raises ConfigError, with the nearest right name, if there is none.

    Example:
        >>> from tubelet.recipes.tables import find_table
        >>> find_table("sta/table1")[1].evaluation.paper["AP"]
        40.0
    """
    if name not in tables():
        raise ConfigError(f"unknown table {name!r}; {nearest(name, tables())}")
    return tables()[name]


def _names() -> list[str]:
    prefixes = {name.rpartition("/")[0] for name in recipes.names() if name.count("/") == 2}
    return sorted(prefixes | set(_GATHERED))


def _members(table: str) -> list[str]:
    """The recipes of a table, in the order in which they are written down."""
    members: list[str] = []
    for entry in _GATHERED.get(table, (f"{table}/",)):
        members += [name for name in recipes.every() if name == entry or (entry[-1] == "/" and name.startswith(entry))]
    return members


def _rows(table: str, recipe: str) -> list[TableRow]:
    """A recipe's own figures, and its further evaluations that belong to the same table."""
    label = recipe.removeprefix(f"{table}/")
    row = recipes.find(recipe)
    own = own_evaluation(row)
    further = {
        way: evaluation
        for way, evaluation in row.evaluations.items()
        if "/" not in way and evaluation.paper and evaluation is not own
    }
    if not further:
        return [TableRow(label, recipe, own)]

    shown = {way: evaluation for way, evaluation in row.evaluations.items() if evaluation is own} | further
    if own not in shown.values():
        shown = {"": own, **shown}
    ways = [way for way in (["", *row.evaluations]) if way in shown]
    return [TableRow(f"{label}, {way}".removesuffix(", "), recipe, shown[way]) for way in ways]
