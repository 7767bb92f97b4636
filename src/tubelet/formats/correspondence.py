"""Which class of one list is which of another, where that is certain: a model meets another data set's truth."""

from __future__ import annotations

from collections.abc import Sequence

from tubelet.core.errors import ConfigError
from tubelet.formats.classes import CLASS_LISTS, DAVIS, MAPS

MOST_NAMED = 3  # classes in an error


def correspondence(source: Sequence[str], target: Sequence[str]) -> dict[str, str]:
    """Map the classes of `source` to those of `target`; a class without a counterpart is left out.

    Certain are, in this order: equal lists; a target with the one class "object", which every object
    is; two lists of `formats.classes` between which there is a map; and names that agree but for
    capitals, spaces and underscores, if all names of one list occur in the other.

    Raises ConfigError, with the names that do not agree, if it is not certain.

    Example:
        >>> from tubelet.formats.correspondence import correspondence
        >>> correspondence(("dog", "teddy bear", "cat"), ("Cat", "Dog"))
        {'dog': 'Dog', 'cat': 'Cat'}
    """
    if tuple(source) == tuple(target):
        return {name: name for name in source}
    if tuple(target) == DAVIS:
        return dict.fromkeys(source, DAVIS[0])

    first = _list_name(source)
    second = _list_name(target)
    if first is not None and second is not None:
        if (first, second) not in MAPS:
            raise ConfigError(f"no certain map of classes from {first} to {second}")
        return dict(MAPS[first, second])
    return _by_name(source, target)


def _list_name(classes: Sequence[str]) -> str | None:
    """The public class list that these are."""
    return next((name for name, known in CLASS_LISTS.items() if known == tuple(classes)), None)


def _by_name(source: Sequence[str], target: Sequence[str]) -> dict[str, str]:
    ours = {_plain(name): name for name in source}
    theirs = {_plain(name): name for name in target}
    shared = {ours[name]: theirs[name] for name in ours if name in theirs}

    ambiguous = len(ours) < len(source) or len(theirs) < len(target)
    contained = len(shared) == min(len(source), len(target)) > 0
    if ambiguous or not contained:
        unknown = [name for name in target if _plain(name) not in ours]
        names = ", ".join(unknown[:MOST_NAMED]) + (", ..." if len(unknown) > MOST_NAMED else "")
        raise ConfigError(
            f"no certain map of the {len(source)} classes ({', '.join(source[:MOST_NAMED])}, ...) to the "
            f"{len(target)} of the truth: {len(shared)} names agree, unknown: {names or 'none'}"
        )
    return shared


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()
