"""Find a named way of testing: a row of a table, or one of a row's further evaluations, by name."""

from __future__ import annotations

from typing import NamedTuple

from tubelet import recipes
from tubelet.core.errors import ConfigError, nearest
from tubelet.recipes.experiment import Evaluation, Experiment


class FoundEvaluation(NamedTuple):
    """How a model is tested, and the published figures of that test."""

    recipe: str | None  # None: several recipes have this evaluation, and their figures differ
    evaluation: Evaluation


def own_evaluation(recipe: Experiment) -> Evaluation:
    """The evaluation that gives the row's own figures: an evaluation that carries them, else the model's own way.

    Example:
        >>> from tubelet import recipes
        >>> from tubelet.recipes.evaluations import own_evaluation
        >>> own_evaluation(recipes.find("ifr/table1/r50")).top
        10
    """
    for evaluation in recipe.evaluations.values():
        if evaluation.paper and evaluation.paper == recipe.paper:
            return evaluation
    return Evaluation(paper=recipe.paper)


def find_evaluation(name: str, recipe: str | None = None) -> FoundEvaluation:
    """Find an evaluation by the name of a recipe, of an evaluation, or of both joined by a slash.

    Args:
        name: "ifr/table1/swin-l", "table4/T2" or "ifr/table1/swin-l/table4/T2".
        recipe: The recipe that the model was trained with, where that is known; its evaluations go first.

    Raises ConfigError, with the nearest right name, if there is none, or if several recipes give the
    name to tests that differ.

    Example:
        >>> from tubelet.recipes.evaluations import find_evaluation
        >>> found = find_evaluation("ifr/table1/swin-l/table4/T2")
        >>> found.evaluation.window.length, found.evaluation.paper
        (2, {'AP': 61.6})
    """
    if name in recipes.names():
        return FoundEvaluation(name, own_evaluation(recipes.find(name)))

    ways = {
        (row, way): evaluation for row in recipes.names() for way, evaluation in recipes.find(row).evaluations.items()
    }
    if recipe is not None and (recipe, name) in ways:
        return FoundEvaluation(recipe, ways[recipe, name])
    for (row, way), evaluation in ways.items():
        if name == f"{row}/{way}":
            return FoundEvaluation(row, evaluation)

    same_name = {row: evaluation for (row, way), evaluation in ways.items() if way == name}
    if not same_name:
        known = {way for _, way in ways} | {f"{row}/{way}" for row, way in ways} | set(recipes.names())
        raise ConfigError(f"unknown evaluation {name!r}; {nearest(name, known)}")
    return _shared(name, same_name)


def _shared(name: str, same_name: dict[str, Evaluation]) -> FoundEvaluation:
    """The test that several recipes call by one name; its figures only if one recipe has it."""
    if len(same_name) == 1:
        (row,) = same_name
        return FoundEvaluation(row, same_name[row])

    tests = [evaluation.but(paper={}) for evaluation in same_name.values()]
    if any(test != tests[0] for test in tests):
        example = next(iter(same_name))
        raise ConfigError(f"{len(same_name)} recipes have an evaluation {name!r}; name one, such as {example}/{name}")
    return FoundEvaluation(None, tests[0])
