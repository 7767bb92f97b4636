"""Classes of a model and of a truth are brought together where that is certain."""

from __future__ import annotations

import pytest

from tubelet.core.errors import ConfigError
from tubelet.formats.classes import COCO, COCO_TO_YTVIS_2019, OVIS, YTVIS_2019, YTVIS_2021
from tubelet.formats.correspondence import correspondence


def test_public_lists_use_the_published_map_and_not_their_names() -> None:
    names = correspondence(COCO, YTVIS_2019)
    assert names == COCO_TO_YTVIS_2019
    assert "mouse" not in names, "a computer's mouse is no animal"


def test_everything_is_an_object() -> None:
    assert correspondence(("cat", "dog"), ("object",)) == {"cat": "object", "dog": "object"}


def test_names_agree_whatever_their_spelling() -> None:
    assert correspondence(("Giant_panda", "Dog"), ("dog", "giant panda")) == {
        "Giant_panda": "giant panda",
        "Dog": "dog",
    }


@pytest.mark.parametrize(
    ("source", "target"),
    [(("cat", "dog"), ("cat",)), (("cat",), ("cat", "dog"))],
)
def test_one_list_within_the_other_is_certain(source: tuple[str, ...], target: tuple[str, ...]) -> None:
    assert correspondence(source, target) == {"cat": "cat"}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (("cat", "dog"), ("cat", "fox")),  # each has a class of its own
        (("cat",), ("fox",)),
        (("cat", "Cat"), ("cat",)),
        (YTVIS_2021, YTVIS_2019),
        (OVIS, COCO),
    ],
)
def test_what_is_not_certain_is_refused(source: tuple[str, ...], target: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="no certain map of"):
        correspondence(source, target)
