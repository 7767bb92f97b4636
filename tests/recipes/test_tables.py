"""The papers' tables: every row is a recipe with a way of testing it, and carries the paper's figures."""

from __future__ import annotations

import pytest

from tubelet import recipes
from tubelet.core.errors import ConfigError
from tubelet.evaluation.measures import metrics_of
from tubelet.recipes.small_versions import small_version
from tubelet.recipes.tables import find_table, tables

PUBLISHED = ("compfeat", "ifr", "mask2former_vis", "objprop_attention", "sta", "tags", "videomt")
ROWS = {
    "compfeat/table1": 2,
    "compfeat/table2": 7,
    "compfeat/table3": 4,
    "compfeat/table4": 16,
    "compfeat/table5": 3,
    "ifr/table1": 6 + 7 + 1,
    "ifr/table2": 6 + 7 + 1,
    "ifr/table3": 10,
    "ifr/table4": 4,
    "objprop_attention/table1": 8 + 1,
    "sta/table1": 2,
    "tags/table1": 1,
    "tags/table2": 1,
    "tags/table3": 12,
    "videomt/ytvis2019": 3,
    "videomt/ytvis2021": 1,
    "videomt/ytvis2022": 1,
    "videomt/ovis": 1,
}


@pytest.mark.parametrize(("name", "count"), ROWS.items())
def test_a_table_has_all_rows_of_its_paper(name: str, count: int) -> None:
    assert len(find_table(name)) == count
    assert len({row.label for row in find_table(name)}) == count


def test_every_row_but_our_own_carries_figures_that_can_be_measured() -> None:
    bare = [row.recipe for name in ROWS for row in find_table(name) if not metrics_of(row.evaluation.paper)]
    assert bare == ["objprop_attention/table1/weighted-affinity-shared"]


def test_every_published_figure_of_a_recipe_is_in_a_table() -> None:
    listed = {row.recipe for rows in tables().values() for row in rows}
    for name in recipes.names():
        if recipes.find(name).paper and name.partition("/")[0] in PUBLISHED:
            assert name in listed, name


def test_rows_are_tested_as_their_table_says() -> None:
    per_clip = {row.label: row.evaluation for row in find_table("ifr/table4")}
    window = per_clip["ifr/table2/swin-l, T5"].window
    assert window is not None
    assert window.length == 5
    augmented = next(row for row in find_table("ifr/table1") if row.label.endswith("augmentation"))
    assert (augmented.recipe, augmented.evaluation.views) == ("ifr/table1/swin-l", 4)
    supports = [row.evaluation.window for row in find_table("compfeat/table4")[:4]]
    assert [window.context for window in supports if window is not None] == [2, 3, 4, 5]
    assert all(row.evaluation.top is None for row in find_table("ifr/table3"))


def test_an_unknown_table_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ifr/table3'"):
        find_table("ifr/tabel3")


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_differ_still_differ_in_small(name: str) -> None:
    """But for backbones, which are one small trunk."""
    whole, small = {}, {}
    for row in find_table(name):
        if "swin" in row.recipe or "r101" in row.recipe or "tuning-1" in row.recipe or name == "tags/table1":
            continue
        whole[row.recipe] = recipes.find(row.recipe).model.model_dump_json()
        small[row.recipe] = small_version(row.recipe, 10).model.model_dump_json()
        assert small_version(row.recipe, 10).train.iterations == 10
    if not name.startswith(("ifr/", "videomt/")):
        assert len(set(small.values())) == len(set(whole.values()))
