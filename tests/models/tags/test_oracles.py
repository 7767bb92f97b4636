"""The benchmark of oracles: truth in place of a stage gives that stage's figure of 100."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tubelet.core.types import VideoSet
from tubelet.models.tags.model import TagModel
from tubelet.synthetic import generator
from tubelet.synthetic.config import Synthetic

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "bench_tags_oracles.py"
Build = Callable[..., TagModel]


@pytest.fixture(scope="module")
def oracles() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_tags_oracles", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_tags_oracles"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def videos() -> VideoSet:
    world = Synthetic(
        height=48,
        width=64,
        frames=4,
        classes=("fish", "duck", "car"),
        objects=(2, 2),
        size=(0.4, 0.5),
        occluders=(0, 0),
        leaving=0,
        camera=0,
    )
    return generator.generate(world, 3, 2)


def figures(oracles: ModuleType, model: TagModel, videos: VideoSet, row: str) -> list[float]:
    oracle = oracles.oracle(model.config, model, oracles.ROWS[row])
    return [float(figure) for figure in oracles.cells(oracle, videos)]


def test_with_all_stages_true_every_object_is_found_and_counted(
    oracles: ModuleType, build: Build, videos: VideoSet
) -> None:
    model = build("input_size=[48,64]", "window.length=4", "tag_dim=2")
    ap, agnostic, regions, _, right, few, many = figures(oracles, model, videos, "all three")
    assert (right, few, many) == (100, 0, 0)
    assert ap > 80
    assert agnostic > 80
    assert regions > 85


def test_a_true_foreground_is_all_of_the_foreground_and_true_tags_change_none_of_it(
    oracles: ModuleType, build: Build, videos: VideoSet
) -> None:
    model = build("input_size=[48,64]", "window.length=4")
    with torch.no_grad():
        foreground = {row: figures(oracles, model, videos, row)[3] for row in oracles.ROWS}
    assert foreground["true foreground"] == foreground["foreground and tags"] == 100
    assert foreground["true tags"] == foreground["prediction"]
    assert foreground["prediction"] < 70
