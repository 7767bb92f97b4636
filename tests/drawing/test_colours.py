"""Colours: one for each identity, told apart by all eyes."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tubelet.drawing.colours import colour, readable_on

# how the screen looks to those without red (protan) and without green (deutan) cones: Machado, Oliveira and
# Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009; on linear RGB
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
CONES = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
CONES += [[0.0883024619, 0.2817188376, 0.6299787005]]
OKLAB = [[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099]]
OKLAB += [[0.0259040371, 0.7827717662, -0.808675766]]


def seen(rgb: tuple[int, int, int], eyes: list[list[float]] | np.ndarray) -> np.ndarray:
    """Where a colour lies in OKLab for some eyes: distances there are differences as seen."""
    share = np.array(rgb) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.array(OKLAB) @ np.cbrt(np.array(CONES) @ np.clip(np.array(eyes) @ linear, 0, 1))


def least_difference(count: int, eyes: list[list[float]] | np.ndarray) -> float:
    points = [seen(colour(id), eyes) for id in range(count)]
    return min(float(np.linalg.norm(first - second)) for first, second in combinations(points, 2))


@given(st.integers(-(10**12), 10**12))
def test_any_id_has_a_colour_that_stays(id: int) -> None:
    given_colour = colour(id)
    assert all(isinstance(value, int) and 0 <= value <= 255 for value in given_colour)
    colour.cache_clear()
    assert colour(id) == given_colour


def test_the_first_colours_are_the_same_in_every_version() -> None:
    assert [colour(id) for id in range(3)] == [(203, 73, 162), (38, 217, 233), (195, 120, 8)]


def test_identities_are_told_apart_by_usual_and_by_colour_blind_eyes() -> None:
    assert least_difference(8, np.eye(3)) > 0.1
    assert least_difference(8, PROTAN) > 0.06
    assert least_difference(8, DEUTAN) > 0.06


def test_one_after_another_never_looks_alike() -> None:
    points = [seen(colour(id), np.eye(3)) for id in range(200)]
    assert min(np.linalg.norm(a - b) for a, b in pairwise(points)) > 0.15


def test_a_hundred_identities_have_a_hundred_colours() -> None:
    assert len({colour(id) for id in range(100)}) == 100


def test_text_is_readable_on_every_identity() -> None:
    assert readable_on((255, 255, 255)) == (0, 0, 0)
    assert readable_on((20, 20, 40)) == (255, 255, 255)

    def luminance(rgb: tuple[int, int, int]) -> float:
        share = np.array(rgb) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for id in range(60):
        dark, light = sorted([luminance(colour(id)), luminance(readable_on(colour(id)))])
        assert (light + 0.05) / (dark + 0.05) > 4.5, "WCAG's contrast for text"
