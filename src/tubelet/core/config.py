"""Typed configuration: frozen pydantic classes, and dotted overrides such as `optim.lr=0.01`.

A config class sits beside the class it builds. A choice between parts is a union of config classes that carry a literal
`kind`; an ablation is a field; a row of a paper's table is a name in `recipes/`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tubelet.core.arguments import short
from tubelet.core.errors import ConfigError, FormatError, nearest
from tubelet.core.untrusted.documents import decode_json

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _Metaclass
else:
    _Metaclass = type(BaseModel)  # it has no public name

Configured = TypeVar("Configured", bound="Config")  # not Self: the shape checker cannot read it here


class _Explained(_Metaclass):
    """What is wrong when a config is built in Python is a ConfigError, not pydantic's own."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*args, **fields)
        except ValidationError as error:
            raise ConfigError(f"{cls.__name__}: {_first_fault(error)}") from None


class Config(BaseModel, metaclass=_Explained):
    """Base of every config class: immutable, its numbers are finite, and a field that does not exist is an error.

    Raises ConfigError, which names the field and what was expected, for a value that does not fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def but(self: Configured, **changes: object) -> Configured:
        """A copy with some fields replaced, and everything checked again.

        Raises ConfigError for a field that does not exist, naming the nearest one, and for a value of the wrong type.

        >>> from tubelet.core.protocol import Window
        >>> Window(length=4).but(stride=2)
        Window(length=4, stride=2, context=0, causal=False, spread=False)
        """
        known = type(self).model_fields
        for name in changes:
            if name not in known:
                raise ConfigError(f"no field {name!r} in {type(self).__name__}; {nearest(name, known)}")

        values = {name: getattr(self, name) for name in known}
        return self.from_tree({**values, **changes})

    def override(self: Configured, *assignments: str) -> Configured:
        """A copy with dotted assignments applied, e.g. `config.override("optim.lr=0.01", "model.neck=null")`.

        Values are JSON where they parse as JSON, plain strings otherwise. Raises ConfigError, which names the nearest
        field, for a name that does not exist, and for a value of the wrong type.
        """
        config, tree = self, self.model_dump(mode="json")
        for assignment in assignments:
            if not isinstance(assignment, str) or "=" not in assignment:
                raise ConfigError(f"expected key=value, got {short(assignment)}")
            path, _, text = assignment.partition("=")
            _assign(config, tree, path.strip().split("."), _parse(text.strip()), assignment)
            with contextlib.suppress(ConfigError):  # the whole is judged at the end; this is to look names up
                config = self.from_tree(tree)
                tree = config.model_dump(mode="json")
        return self.from_tree(tree)

    @classmethod
    def from_tree(cls: type[Configured], tree: dict[str, Any]) -> Configured:
        """Build from JSON values or from configs; raises ConfigError with the dotted path of the first fault."""
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(_first_fault(error)) from None


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["length=8", "stride=4"]` -> `{"length": 8, "stride": 4}`; raises ConfigError where a `=` is missing."""
    values = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"expected key=value, got {assignment!r}")
        values[key.strip()] = _parse(text.strip())
    return values


def _parse(text: str) -> Any:
    try:
        return decode_json(text, "a value")
    except FormatError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def _assign(config: Any, tree: Any, path: list[str], value: Any, assignment: str) -> None:
    for depth, name in enumerate(path):
        here = ".".join(path[:depth]) or type(config).__name__
        if not isinstance(tree, dict):
            raise ConfigError(f"{assignment}: {here} has no fields, it is {tree!r}")
        known = set(type(config).model_fields) if isinstance(config, Config) else set(tree)
        if isinstance(config, Config) and name not in known:
            raise ConfigError(f"{assignment}: no field {name!r} in {here}; {nearest(name, known)}")
        if depth == len(path) - 1:
            if name == "kind" and value != tree.get(name):
                tree.clear()  # another kind of part starts from its own defaults
            tree[name] = value
            return
        tree, config = tree.get(name), getattr(config, name, None)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    told = fault["msg"].removeprefix("Value error, ")
    came = "" if fault["type"] in ("extra_forbidden", "value_error") else f", got {short(fault['input'])}"
    others = len(error.errors()) - 1
    return f"{where}: {told}{came}".removeprefix(": ") + (f" (and {others} more)" if others else "")
