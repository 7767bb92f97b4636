"""Grouping tags: perfect and noisy, one object and twenty, and tags that no training would give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tubelet.models.tags.clustering import ClusteringConfig, Clusters, cluster

GAP = 3.0
CONFIG = ClusteringConfig()


def tagged(sizes: list[int], noise: float = 0.0, dimensions: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tags [P, D] of objects a gap apart along a diagonal, shuffled, and whose each is."""
    generator = torch.Generator().manual_seed(seed)
    owners = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    owners = owners[torch.randperm(len(owners), generator=generator)]
    tags = owners[:, None].float() * GAP + noise * torch.randn(len(owners), dimensions, generator=generator)
    return tags, owners


def agreement(found: Clusters, owners: Tensor) -> float:
    """The least intersection over union of a real object with its best cluster."""
    overlaps = []
    for n in owners.unique():
        real = owners == n
        overlaps.append(max(float((real & (found.owners == m)).sum() / (real | (found.owners == m)).sum())
                            for m in range(len(found.centres))))  # fmt: skip
    return min(overlaps)


@given(st.lists(st.integers(20, 400), min_size=1, max_size=6), st.integers(0, 99), st.sampled_from([1, 2, 4]))
def test_perfect_tags_give_the_objects_back(sizes: list[int], seed: int, dimensions: int) -> None:
    tags, owners = tagged(sizes, dimensions=dimensions, seed=seed)
    found = cluster(tags, GAP, CONFIG)
    assert len(found.centres) == len(sizes)
    assert agreement(found, owners) == 1
    assert found.compactness == pytest.approx(torch.ones(len(sizes)), abs=1e-4)


@given(st.lists(st.integers(50, 400), min_size=1, max_size=6), st.integers(0, 99))
def test_noise_of_a_tenth_of_the_gap_changes_nothing(sizes: list[int], seed: int) -> None:
    tags, owners = tagged(sizes, noise=0.3, seed=seed)
    found = cluster(tags, GAP, CONFIG)
    assert len(found.centres) == len(sizes)
    assert agreement(found, owners) == 1


@pytest.mark.parametrize("dimensions", [1, 3])
def test_twenty_objects_are_twenty_and_more_are_the_largest_twenty(dimensions: int) -> None:
    tags, owners = tagged([100] * 20, noise=0.1, dimensions=dimensions)
    assert agreement(cluster(tags, GAP, CONFIG), owners) == 1
    sizes = [100] * 20 + [30] * 4
    tags, owners = tagged(sizes, noise=0.1)
    found = cluster(tags, GAP, CONFIG.but(leftover="drop"))
    assert len(found.centres) == 20
    assert (found.owners[owners >= 20] == -1).all()
    assert (found.owners[owners < 20] >= 0).all()


@given(st.floats(-1000, 1000), st.integers(0, 50))
def test_only_differences_of_tags_matter(shift: float, seed: int) -> None:
    tags, _ = tagged([90, 60, 30], noise=0.1, seed=seed)
    assert torch.equal(cluster(tags + shift, GAP, CONFIG).owners, cluster(tags, GAP, CONFIG).owners)


def test_objects_are_numbered_by_size() -> None:
    tags, owners = tagged([30, 300, 100])
    found = cluster(tags, GAP, CONFIG)
    assert [int(found.owners[owners == n].unique()) for n in range(3)] == [2, 0, 1]
    assert found.centres[:, 0].tolist() == pytest.approx([3, 6, 0], abs=1e-5)


def test_a_few_stray_pixels_are_no_object() -> None:
    tags, owners = tagged([2000, 1000, 3])
    kept = cluster(tags, GAP, CONFIG)
    assert len(kept.centres) == 2
    assert set(kept.owners[owners == 2].tolist()) == {int(kept.owners[owners == 1][0])}  # the nearest
    dropped = cluster(tags, GAP, CONFIG.but(leftover="drop"))
    assert set(dropped.owners[owners == 2].tolist()) == {-1}


def test_scattered_tags_are_less_compact() -> None:
    tight, loose = (cluster(tagged([500], noise=noise)[0], GAP, CONFIG).compactness for noise in (0.05, 0.4))
    assert 0 < float(loose[0]) < float(tight[0]) <= 1


@pytest.mark.parametrize("leftover", ["nearest", "drop"])
def test_no_foreground_is_no_object(leftover: str) -> None:
    found = cluster(torch.zeros(0, 1), GAP, ClusteringConfig(leftover=leftover))
    assert len(found.centres) == len(found.owners) == len(found.compactness) == 0


def test_values_that_are_not_numbers_belong_to_nobody() -> None:
    tags, _ = tagged([100, 50])
    tags[3], tags[7] = torch.nan, torch.inf
    found = cluster(tags, GAP, CONFIG)
    assert len(found.centres) == 2
    assert found.owners[[3, 7]].tolist() == [-1, -1]
    assert len(cluster(torch.full((5, 1), torch.nan), GAP, CONFIG).centres) == 0


def test_tags_all_over_the_place_stay_cheap() -> None:
    wild = torch.randn(60_000, 1, generator=torch.Generator().manual_seed(0)) * 1e5
    found = cluster(wild, GAP, CONFIG)
    assert len(found.centres) <= CONFIG.most
