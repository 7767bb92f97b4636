"""Whether tensors fit the model that a config describes, found out without building it in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from tubelet.core.errors import ConfigError, WeightsError
from tubelet.models.weights.families import ModelConfig


def check_fit(config: ModelConfig, classes: tuple[str, ...], tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise WeightsError unless all tensors fit the model; the message counts those that do not.

    The model is built on the meta device, and only as large as the file: its config may be hostile.
    `where` names the file in messages.
    """
    try:
        with torch.device("meta"), Unfilled(), _at_most(2 * len(tensors) + 100):
            expected = config.build(classes).state_dict()
    except (RuntimeError, ConfigError, ValueError) as error:
        raise WeightsError(f"{where}: its config cannot be built: {str(error).splitlines()[0]}") from None

    counters = {name for name in expected if name.endswith("num_batches_tracked")}  # a file may leave them out
    missing = sorted(expected.keys() - tensors.keys() - counters)
    unknown = sorted(tensors.keys() - expected.keys())
    common = expected.keys() & tensors.keys()
    shapes = sorted(name for name in common if expected[name].shape != tensors[name].shape)
    if missing or unknown or shapes:
        raise WeightsError(
            f"{where}: weights of another model: {len(missing)} missing, {len(unknown)} unknown, "
            f"{len(shapes)} of another shape ({_first(missing + unknown + shapes)})"
        )


def _first(names: list[str], shown: int = 3) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


class Unfilled(TorchFunctionMode):
    """Leaves new tensors unfilled: on the meta device they hold nothing, but random numbers there need the compiler."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init" or function in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else named["tensor"]
        return function(*args, **named)


@contextmanager
def _at_most(parameters: int) -> Iterator[None]:
    """Stop building a model that has more parameters than this: a hostile config may ask for a billion layers."""
    count = 0

    def limit(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += 1
        if count > parameters:
            raise ConfigError("it asks for more tensors than the file has")

    handle = register_module_parameter_registration_hook(limit)
    try:
        yield
    finally:
        handle.remove()
