"""CLEAR, ID measures and HOTA by the rules of TrackEval, against numbers that TrackEval 1.3.0 gave on random tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from overlap_tables import RandomTable, random_classes
from rectangles import scene, track

from tubelet.core.errors import ConfigError
from tubelet.evaluation import identity
from tubelet.evaluation.frame_overlaps import Overlaps

STORED = json.loads((Path(__file__).parents[1] / "oracles" / "trackeval_numbers.json").read_text())
HERE = (10, 10, 10, 10)


def counts(table: RandomTable) -> identity.Counts:
    scores = np.ones(table.predictions.shape[1])
    overlaps = Overlaps(similarity=table.similarity, truths=table.truths, predictions=table.predictions, scores=scores)
    return identity.count(overlaps, "trackeval")


@pytest.mark.parametrize("seed", range(len(STORED)))
def test_all_numbers_are_those_of_trackeval(seed: int) -> None:
    totals = {
        str(k): sum((counts(table) for table in videos), identity.Counts.none())
        for k, videos in enumerate(random_classes(seed))
    }
    for k, expected in enumerate(STORED[seed]["classes"]):
        found = identity.numbers(totals[str(k)], "trackeval")
        assert found == pytest.approx(expected, abs=1e-9, rel=1e-9)

    rows = identity.class_numbers(totals, "trackeval")
    for name in ("class average", "detection average"):
        assert rows.get(name, {}) == pytest.approx(STORED[seed][name], abs=1e-9, rel=1e-9)


def test_only_the_partner_of_the_previous_frame_is_kept() -> None:
    predictions = [track(1, [HERE, None, (10, 10, 6, 10)]), track(2, [None, (50, 40, 8, 8), HERE])]
    scenario = scene([track(1, [HERE] * 3)], predictions)
    assert identity.evaluate(*scenario)["IDs"] == 0
    assert identity.evaluate(*scenario, rules="trackeval")["IDs"] == 1


def test_undefined_measures_are_zero_by_the_rules_of_trackeval() -> None:
    scenario = scene([track(1, [HERE])], [])
    assert identity.evaluate(*scenario)["IDP"] == -1
    numbers = identity.evaluate(*scenario, rules="trackeval")
    assert (numbers["IDP"], numbers["LocA"]) == (0, 1)


def test_classes_are_measured_by_themselves_and_averaged() -> None:
    truths = [track(1, [HERE] * 4, label=0), track(2, [(50, 40, 8, 8)] * 2 + [None] * 2, label=2)]
    predictions = [track(1, [HERE] * 2 + [None] * 2, label=0), track(2, [(50, 40, 8, 8)] * 2 + [None] * 2, label=2)]
    rows = identity.by_class(*scene(truths, predictions), names=("a", "b", "c"))
    assert list(rows) == ["a", "c", "class average", "detection average"]
    assert (rows["a"]["MOTA"], rows["c"]["MOTA"]) == (0.5, 1)
    assert rows["class average"]["MOTA"] == 0.75
    assert rows["detection average"]["MOTA"] == pytest.approx(4 / 6)
    assert rows["class average"]["FN"] == rows["detection average"]["FN"] == 2


def test_unknown_rules_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown rules 'trackevl'.*trackeval"):
        identity.evaluate([], [], rules="trackevl")  # type: ignore[arg-type]
