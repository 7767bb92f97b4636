"""The base of all config classes: frozen pydantic models with dotted overrides.

A config class is in the same file as the class it builds. A choice between parts is a union of
config classes with a literal `kind`, an ablation is a field, and a row of a paper's table is a name
in `recipes/`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tubelet.core.arguments import short
from tubelet.core.errors import ConfigError, FormatError, nearest
from tubelet.core.untrusted.documents import decode_json

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _Metaclass
else:
    _Metaclass = type(BaseModel)  # it has no public name

Configured = TypeVar("Configured", bound="Config")  # beartype cannot resolve Self here


class _ConfigMeta(_Metaclass):
    """Make a call of the class raise ConfigError instead of pydantic's ValidationError."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*args, **fields)
        except ValidationError as error:
            raise ConfigError(f"{cls.__name__}: {_first_issue(error)}") from None


class Config(BaseModel, metaclass=_ConfigMeta):
    """Base of every config class: immutable, with finite numbers and no unknown fields.

    Raises ConfigError, which names the field and what was expected, if a value does not fit.

    Example:
        >>> from tubelet.core.config import Config
        >>> class Optim(Config):
        ...     lr: float = 0.1
        >>> Optim(lr=0.01)
        Optim(lr=0.01)
        >>> Optim(lr="fast")
        Traceback (most recent call last):
        ...
        tubelet.core.errors.ConfigError: Optim: lr: Input should be a valid number, ... got 'fast'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def but(self: Configured, **changes: object) -> Configured:
        """Return a copy with some fields replaced; all fields are validated again.

        Raises ConfigError if a field does not exist, with the nearest name, or if a value does not
        fit.

        Example:
            >>> tubelet.Window(length=4).but(stride=2)
            Window(length=4, stride=2, context=0, causal=False, spread=False)
        """
        known = type(self).model_fields
        for name in changes:
            if name not in known:
                raise ConfigError(f"no field {name!r} in {type(self).__name__}; {nearest(name, known)}")

        values = {name: getattr(self, name) for name in known}
        return self.from_tree({**values, **changes})

    def override(self: Configured, *assignments: str) -> Configured:
        """Return a copy with assignments such as "optim.lr=0.01" or "model.neck=null" applied.

        A value is parsed as JSON; if that fails, it is a string. Raises ConfigError if a name does
        not exist, with the nearest field, or if a value does not fit.

        Example:
            >>> tubelet.Window().override("length=4", "causal=true")
            Window(length=4, stride=1, context=0, causal=True, spread=False)
        """
        config = self
        tree = self.model_dump(mode="json")
        for assignment in assignments:
            if not isinstance(assignment, str) or "=" not in assignment:
                raise ConfigError(f"expected key=value, got {short(assignment)}")

            path, _, text = assignment.partition("=")
            _assign(config, tree, path.strip().split("."), _parse(text.strip()), assignment)

            # the next assignment looks its names up here; whether all values fit is checked at the end
            with contextlib.suppress(ConfigError):
                config = self.from_tree(tree)
                tree = config.model_dump(mode="json")
        return self.from_tree(tree)

    @classmethod
    def from_tree(cls: type[Configured], tree: dict[str, Any]) -> Configured:
        """Build from a tree of JSON values or configs.

        Raises ConfigError with the dotted path of the first field that does not fit.

        Example:
            >>> tubelet.Window.from_tree({"length": 8, "stride": 4}).length
            8
        """
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(_first_issue(error)) from None


def at_default(config: Config) -> set[str]:
    """Return the dotted names of the fields whose value is the default of their class; in a tuple, by number.

    Example:
        >>> from tubelet.core.config import at_default
        >>> sorted(at_default(tubelet.Window(length=4, stride=2)))
        ['causal', 'context', 'spread']
    """
    names = set()
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if value == field.get_default(call_default_factory=True):
            names.add(name)
        names.update(f"{name}.{inner}" for inner in _inside(value))
    return names


def _inside(value: Any) -> set[str]:
    """The names of `at_default` in the value of a field."""
    if isinstance(value, Config):
        return at_default(value)
    parts = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list | tuple) else {}
    return {f"{key}.{inner}" for key, part in parts.items() for inner in _inside(part)}


def _parse(text: str) -> Any:
    try:
        return decode_json(text, "a value")
    except FormatError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def _assign(config: Any, tree: Any, path: list[str], value: Any, assignment: str) -> None:
    """Set the field at `path` in `tree`; `config` is built from `tree` and gives the known names."""
    for depth, name in enumerate(path):
        here = ".".join(path[:depth]) or type(config).__name__
        if not isinstance(tree, dict):
            raise ConfigError(f"{assignment}: {here} has no fields, it is {tree!r}")

        known = set(type(config).model_fields) if isinstance(config, Config) else set(tree)
        if isinstance(config, Config) and name not in known:
            raise ConfigError(f"{assignment}: no field {name!r} in {here}; {nearest(name, known)}")

        is_last = depth == len(path) - 1
        if is_last:
            if name == "kind" and value != tree.get(name):
                tree.clear()  # a part of another kind starts from its own defaults
            tree[name] = value
            return

        tree = tree.get(name)
        config = getattr(config, name, None)


def _first_issue(error: ValidationError) -> str:
    """One line: the field, what was expected, what came, and the number of other issues."""
    issue = error.errors()[0]
    where = ".".join(str(part) for part in issue["loc"])
    message = issue["msg"].removeprefix("Value error, ")

    message_is_complete = issue["type"] in ("extra_forbidden", "value_error")
    got = "" if message_is_complete else f", got {short(issue['input'])}"

    others = len(error.errors()) - 1
    more = f" (and {others} more)" if others else ""
    return f"{where}: {message}{got}".removeprefix(": ") + more
