"""Sockets: a field of a config that takes any config of one abstract base, told apart by `kind` in files.

A host types a field by the socket's base; a plug is a subclass of it, ours or another package's, as soon as its module
is imported. So a new plug changes no file of the host.
"""

from __future__ import annotations

from abc import ABC
from inspect import isabstract
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from tubelet.core.config import Config
from tubelet.core.errors import nearest


class PlugConfig(Config, ABC):
    """Base of the bases of sockets. A plug names itself: `kind: Literal["mine"] = "mine"`."""

    kind: str
    default_kind: ClassVar[str | None] = None  # of a file that names none

    @classmethod
    def kinds(cls) -> dict[str, type[PlugConfig]]:
        """The plugs that fit this socket, by name; of two with one name the later one."""
        known: dict[str, type[PlugConfig]] = {}
        for plug in cls.__subclasses__():
            if not isabstract(plug):
                known[plug.model_fields["kind"].default] = plug
            known |= plug.kinds()
        return known

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not isabstract(cls) and not isinstance(cls.model_fields["kind"].default, str):
            raise TypeError(f"{cls.__name__}: expected a field that names it, kind: Literal['...'] = '...'")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """An abstract class stands for the plugs that fit it, each written with all of its own fields."""
        if not isabstract(cls):
            return super().__get_pydantic_core_schema__(source, handler)
        return core_schema.no_info_plain_validator_function(cls._choose)

    @classmethod
    def _choose(cls, value: Any) -> PlugConfig:
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"expected {cls.__name__} or its fields by name, got {value!r}")
        kinds = cls.kinds()
        kind = value.get("kind", cls.default_kind)
        if kind not in kinds:
            raise ValueError(f"unknown kind {kind!r}; {nearest(str(kind), kinds)}")
        return kinds[kind].model_validate(value)
