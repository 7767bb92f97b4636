"""Sockets and plugs: config fields that accept any subclass of an abstract config class.

The host annotates the field with the abstract class, the socket. Every subclass, here or in another
package, is a plug as soon as its module is imported; in files, `kind` names it. So a new plug needs
no change in the host.
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
    """Base of all sockets. A plug has a name: `kind: Literal["mine"] = "mine"`.

    Example:
        >>> from abc import abstractmethod
        >>> from typing import Literal
        >>> from tubelet.core.plugs import PlugConfig
        >>> class Neck(PlugConfig):
        ...     @abstractmethod
        ...     def build(self): ...
        >>> class Identity(Neck):
        ...     kind: Literal["identity"] = "identity"
        ...     def build(self):
        ...         return torch.nn.Identity()
        >>> list(Neck.kinds())  # what a field `neck: Neck` of a host accepts
        ['identity']
    """

    kind: str
    default_kind: ClassVar[str | None] = None  # for a file without `kind`

    @classmethod
    def kinds(cls) -> dict[str, type[PlugConfig]]:
        """Return the plugs of this socket by name; the later of two with the same name."""
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
        """Validate an abstract class as any of its plugs, and write a plug with all of its own fields."""
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
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"unknown kind {kind!r}; {nearest(str(kind), kinds)}")
        return kinds[kind].model_validate(value)
