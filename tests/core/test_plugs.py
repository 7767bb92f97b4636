"""Sockets take every subclass of their base, in files by kind; what does not fit is refused by name."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import pytest
from pydantic import ValidationError

from tubelet.core.config import Config
from tubelet.core.errors import ConfigError
from tubelet.core.plugs import PlugConfig


class Engine(PlugConfig):
    default_kind: ClassVar[str | None] = "steam"

    @abstractmethod
    def power(self) -> float: ...


class Steam(Engine):
    kind: Literal["steam"] = "steam"
    boilers: int = 1

    def power(self) -> float:
        return 10.0 * self.boilers


class Tool(PlugConfig):
    @abstractmethod
    def use(self) -> str: ...


class Saw(Tool):
    kind: Literal["saw"] = "saw"

    def use(self) -> str:
        return "cut"


class Workshop(Config):
    engine: Engine = Steam()
    tool: Tool | None = None


class Diesel(Engine):  # after the host, as another package would
    kind: Literal["diesel"] = "diesel"
    cylinders: tuple[int, ...] = (4,)

    def power(self) -> float:
        return float(sum(self.cylinders))


def test_a_plug_may_be_younger_than_its_host() -> None:
    config = Workshop(engine=Diesel(cylinders=(2, 2)), tool=Saw())
    assert config.model_dump(mode="json") == {
        "engine": {"kind": "diesel", "cylinders": [2, 2]},
        "tool": {"kind": "saw"},
    }
    assert Workshop.model_validate_json(config.model_dump_json()) == config
    assert config.override("engine.cylinders=[3]").engine.power() == 3


def test_a_file_without_a_kind_means_the_default_one() -> None:
    assert Workshop.from_tree({"engine": {"boilers": 2}}).engine.power() == 20
    with pytest.raises(ConfigError, match="tool: unknown kind None; known: saw"):
        Workshop.from_tree({"tool": {}})


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ('engine={"kind": "deisel"}', "engine: unknown kind 'deisel'; did you mean 'diesel'"),
        ('engine={"kind": "saw"}', "engine: unknown kind 'saw'"),
        ('engine={"kind": ["steam"]}', r"engine: unknown kind \['steam'\]"),
        ('engine={"kind": {}}', "engine: unknown kind {}"),
        ("engine=7", "engine: expected Engine or its fields by name, got 7"),
        ("engine.boilers=many", "engine.boilers: Input should be a valid integer"),
        ("engine.bolers=2", "no field 'bolers' in engine; did you mean 'boilers'"),
        ("engine.kind=diesl", "engine: unknown kind 'diesl'; did you mean 'diesel'"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Workshop().override(assignment)


def test_another_kind_starts_from_its_own_defaults() -> None:
    assert Workshop(engine=Steam(boilers=3)).override("engine.kind=diesel").engine == Diesel()


def test_a_plug_of_another_socket_does_not_fit() -> None:
    with pytest.raises(ValidationError, match="expected Engine"):
        Workshop.model_validate({"engine": Saw()})


def test_a_plug_without_a_name_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="expected a field that names it"):

        class Nameless(Tool):
            def use(self) -> str:
                return ""
