"""Optimizers, learning rate schedules, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, nearest
from tubelet.training.sharded_tensors import cut_like

Number = TypeVar("Number", int, float)
Default = TypeVar("Default")


class Constant(Config):
    """A constant learning rate.

    Example:
        >>> from tubelet.training.optim import Constant
        >>> Constant().factor(500, iterations=1000)
        1.0
    """

    kind: Literal["constant"] = "constant"

    def factor(self, iteration: int, iterations: int) -> float:
        """Always 1."""
        return 1.0


class Steps(Config):
    """Multiply the learning rate by `factor_each` at each of the iterations `at`.

    Example:
        >>> from tubelet.training.optim import Steps
        >>> Steps(at=(60, 90), factor_each=0.5).factor(95, iterations=100)
        0.25
    """

    kind: Literal["steps"] = "steps"
    at: tuple[Annotated[int, Field(ge=0)], ...]
    factor_each: float = Field(default=0.1, gt=0)

    def factor(self, iteration: int, iterations: int) -> float:
        """`factor_each` to the power of the number of steps so far."""
        return self.factor_each ** sum(iteration >= at for at in self.at)


class Cosine(Config):
    """Half a cosine wave from the full learning rate to `final` of it at the last iteration.

    Example:
        >>> from tubelet.training.optim import Cosine
        >>> Cosine().factor(50, iterations=100)
        0.5
    """

    kind: Literal["cosine"] = "cosine"
    final: float = Field(default=0.0, ge=0, le=1)

    def factor(self, iteration: int, iterations: int) -> float:
        """1 at iteration 0, `final` at `iterations`."""
        wave = 0.5 * (1 + math.cos(math.pi * min(iteration / max(iterations, 1), 1.0)))
        return self.final + (1 - self.final) * wave


class Polynomial(Config):
    """The share of the iterations that are left, to the power of `power`.

    Example:
        >>> from tubelet.training.optim import Polynomial
        >>> Polynomial(power=2).factor(50, iterations=100)
        0.25
    """

    kind: Literal["polynomial"] = "polynomial"
    power: float = Field(default=0.9, gt=0)

    def factor(self, iteration: int, iterations: int) -> float:
        """1 at iteration 0, 0 at `iterations`."""
        left = 1 - min(iteration / max(iterations, 1), 1.0)
        return float(left**self.power)


Schedule = Annotated[Constant | Steps | Cosine | Polynomial, Field(discriminator="kind")]


class _Optim(Config):
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    decay_all: bool = True  # false: norms, biases and other vectors are not decayed
    # what is not decayed although its shape says so; embeddings are learned tables, such as queries
    spared: tuple[Literal["norms", "embeddings"], ...] = ()
    warmup: int = Field(default=500, ge=0)  # iterations of a linear rise
    warmup_from: float = Field(default=1 / 3, ge=0, le=1)  # share of the rate at iteration 0
    schedule: Schedule = Constant()
    # rate multipliers by prefix of the parameters' names; the longest prefix wins
    parts: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    # iterations of the rise by prefix, where it is another than `warmup`; the longest prefix wins
    warmups: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)

    def factor(self, iteration: int, iterations: int, warmup: int | None = None) -> float:
        """The factor of the base rate at an iteration (from 0): schedule times warm-up.

        `warmup` is that of a part, where it has its own.
        """
        warmup = self.warmup if warmup is None else warmup
        rise = min(iteration / warmup, 1.0) if warmup else 1.0
        return self.schedule.factor(iteration, iterations) * (self.warmup_from + (1 - self.warmup_from) * rise)

    def set_rate(self, optimizer: Optimizer, iteration: int, iterations: int) -> float:
        """Set the rates of all groups for an iteration (from 0); returns the rate of parts with a multiplier of 1."""
        for group in optimizer.param_groups:
            group["lr"] = self.lr * self.factor(iteration, iterations, group["warmup"]) * group["multiplier"]
        return self.lr * self.factor(iteration, iterations)


class SGD(_Optim):
    """Stochastic gradient descent with momentum; the defaults are those of MaskTrack R-CNN.

    Example:
        >>> from tubelet.training.optim import SGD
        >>> SGD(lr=0.01, parts={"backbone": 0.1}).build(torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2)}))
        SGD (
        ...
    """

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.005, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False

    def build(self, model: nn.Module) -> Optimizer:
        """Build it for the parameters that require gradients; raises ConfigError for a part that the model lacks."""
        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(_groups(self, model), lr=self.lr, momentum=self.momentum, nesterov=nesterov)


class AdamW(_Optim):
    """Adam with decoupled weight decay; the defaults are those of the mask transformers.

    Example:
        >>> from tubelet.training.optim import AdamW
        >>> AdamW(warmup=100, warmup_from=0.0).factor(25, iterations=1000)
        0.25
    """

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    decay_all: bool = False
    warmup: int = Field(default=10, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)

    def build(self, model: nn.Module) -> Optimizer:
        """Build it for the parameters that require gradients; raises ConfigError for a part that the model lacks."""
        return torch.optim.AdamW(_groups(self, model), lr=self.lr, betas=self.betas, eps=self.eps)


OptimConfig = Annotated[SGD | AdamW, Field(discriminator="kind")]


class WeightAverage:
    """An exponential moving average of weights and floating-point buffers; other buffers are copied.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the random start is soon forgotten.

    Example:
        >>> from tubelet.training.optim import WeightAverage
        >>> model = torch.nn.Linear(1, 1)
        >>> average = WeightAverage(model, decay=0.999)
        >>> average.update(model, number=1)
        >>> torch.equal(average.weights["weight"], model.weight)
        True
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, number: int) -> None:
        """Move towards the model's weights; `number` counts the updates from 1."""
        share = 1 - min(self.decay, (1 + number) / (10 + number))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.weights[name].lerp_(tensor, share)
            else:
                self.weights[name].copy_(tensor)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Continue from saved weights of the same names and shapes."""
        for name, tensor in self.weights.items():
            tensor.copy_(cut_like(weights[name], tensor))


def state_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as tensors named `parameter/key`."""
    tensors = {}
    for name, parameter in _named(optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{key}"] = value
    return tensors


def load_state_tensors(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load what `state_tensors` returned; each tensor goes to its parameter's device.

    Raises KeyError for an unknown parameter, RuntimeError for a tensor of another shape or one that is missing.
    """
    parameters = {name: (index, parameter) for index, (name, parameter) in enumerate(_named(optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition("/")
        index, parameter = parameters[name]
        if tensor.ndim and tensor.shape != parameter.shape:
            raise RuntimeError(f"{full_name} is {tuple(tensor.shape)}, expected {tuple(parameter.shape)}")
        state.setdefault(index, {})[key] = cut_like(tensor, parameter)
    if len({frozenset(values) for values in state.values()}) > 1:
        raise RuntimeError("parameters of an optimizer with unequal states: some tensors are missing")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _named(optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    for group in optimizer.param_groups:
        yield from zip(group["param_names"], group["params"], strict=True)


def _groups(config: _Optim, model: nn.Module) -> list[dict[str, Any]]:
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for field, prefixes in (("parts", config.parts), ("warmups", config.warmups)):
        for prefix in prefixes:
            if not any(_within(name, prefix) for name, _ in named):
                heads = {name.split(".")[0] for name, _ in named}
                raise ConfigError(
                    f"optim.{field}: no trained parameter begins with {prefix!r}; {nearest(prefix, heads)}"
                )
    groups: dict[tuple[float, int | None, float, bool], list[tuple[str, Tensor]]] = {}
    spared = _spared(config, model)
    for name, parameter in named:
        # a lone number (STA's gamma, a temperature) is a gate, not a weight
        decays = parameter.ndim > 1 or (config.decay_all and parameter.ndim == 1)
        decay = config.weight_decay if decays and name not in spared else 0.0
        whole = parameter.ndim == 0  # also where all others are in slices, which no one call may mix with whole ones
        key = (_of_longest(config.parts, name, 1.0), _of_longest(config.warmups, name, None), decay, whole)
        groups.setdefault(key, []).append((name, parameter))
    return [
        {"params": members, "multiplier": multiplier, "warmup": warmup, "weight_decay": decay}
        for (multiplier, warmup, decay, _), members in groups.items()
    ]


_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_TABLES = ("relative_position_bias_table", "level_embed")  # embeddings that are parameters and no modules


def _spared(config: _Optim, model: nn.Module) -> set[str]:
    """Names of the parameters of norms or embeddings that are not decayed."""
    names = set()
    for prefix, module in model.named_modules():
        parameters = [f"{prefix}.{name}".removeprefix(".") for name, _ in module.named_parameters(recurse=False)]
        if "norms" in config.spared and isinstance(module, _NORMS):
            names.update(parameters)
        if "embeddings" in config.spared:
            is_table = isinstance(module, nn.Embedding)
            names.update(name for name in parameters if is_table or name.endswith(_TABLES))
    return names


def _of_longest(by_prefix: Mapping[str, Number], name: str, otherwise: Default) -> Number | Default:
    """The value of the longest prefix that a name begins with."""
    matching = [prefix for prefix in by_prefix if _within(name, prefix)]
    return by_prefix[max(matching, key=len)] if matching else otherwise


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")
