"""A model over the processes of a run: whole in one, a copy in each (DDP), or a slice in each (FSDP2).

All three give the same losses and steps for the same clips if a model's losses are means over the clips. For that,
sharding needs more than `fully_shard`:

    scalars             cannot be cut: each process keeps them, and their gradients are averaged here
    missing gradients   of a head that saw no object: zeros where another process has some, since all must send the same
                        tensors; none where none has any, so that the optimizer leaves the parameter alone
    the gradient's norm is that of all slices together
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tubelet.core.errors import ConfigError, nearest
from tubelet.core.types import Clip, Losses
from tubelet.training.sharded_tensors import is_slice, own


class Alone:
    """A model in the only process.

    Example:
        >>> from tubelet.training.parallel import Alone
        >>> model = Alone(torch.nn.Linear(1, 1, bias=False))
        >>> model.model(torch.full((1, 1), 3.0)).sum().backward()
        >>> model.bound_gradients(limit=1.0), round(float(model.model.weight.grad), 3)
        (3.0, 1.0)
    """

    sliced = False  # whether each process holds a part of the model and of the optimizer's state

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, clips: list[Clip]) -> Losses:
        """The model's losses; their backward pass averages gradients over the processes."""
        return self.model(clips)

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one part of a step: processes exchange gradients only with the last part."""
        return nullcontext()

    def bound_gradients(self, limit: float | None) -> float:
        """Scale the step's gradients down to a norm of `limit`; returns the norm before, the same in all processes."""
        return float(nn.utils.clip_grad_norm_(self.model.parameters(), limit or math.inf))


class Copies(Alone):
    """A copy of the model in each process; all start from rank 0's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        # a head may get no gradient in a step (no object in the batch), on some ranks only
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        self.spread = DistributedDataParallel(model, find_unused_parameters=True)

    def __call__(self, clips: list[Clip]) -> Losses:
        return self.spread(clips)

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.spread.no_sync()


class Slices(Alone):
    """A slice of every parameter, gradient and moment in each process; all start from rank 0's weights.

    The model is changed in place, and no longer runs by itself; the optimizer must be built afterwards. `units` are
    patterns of the names of modules whose parameters are together only while that module runs, which must be as often
    in each process; all others are together through forward and backward. Raises ConfigError for a bad pattern.
    """

    sliced = True

    def __init__(self, model: nn.Module, units: Sequence[str], device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        super().__init__(model)
        for tensor in [*model.parameters(), *model.buffers()]:
            dist.broadcast(tensor.detach(), 0)
        lone = {parameter for parameter in model.parameters() if parameter.ndim == 0}
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for unit in units_of(model, units):
            fully_shard(unit, mesh=mesh, ignored_params=lone)
        model.register_forward_hook(self._watch)  # before the sharding's own, so that it is called first
        fully_shard(model, mesh=mesh, ignored_params=lone)
        self.device = device
        self._missing: set[str] = set()  # parameters without a gradient of this process's own
        self._watching = self._last = True

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        self._last = last
        self.model.set_requires_gradient_sync(last)  # type: ignore[operator]
        return nullcontext()

    @torch.no_grad()
    def bound_gradients(self, limit: float | None) -> float:
        self._settle()
        gradients = [(p.grad, own(p.grad)) for p in self.model.parameters() if p.grad is not None]
        total = torch.zeros(2, dtype=torch.float64, device=self.device)  # squares of slices, and of what is whole
        for gradient, part in gradients:
            total[0 if is_slice(gradient) else 1] += part.double().square().sum()
        dist.all_reduce(total)
        norm = math.sqrt(float(total[0]) + float(total[1]) / dist.get_world_size())
        if limit is not None and not norm <= limit:
            for _, part in gradients:
                part.mul_(limit / (norm + 1e-6))
        return norm

    def _watch(self, model: nn.Module, given: object, losses: Losses) -> None:
        self._watching = True
        for loss in losses.values():
            if loss.requires_grad:
                loss.register_hook(self._at_end_of_backward)

    def _at_end_of_backward(self, gradient: Tensor) -> None:
        if self._watching:
            self._watching = False
            # in the order of the queue, and so before the sharding sends what gradients there are
            torch.autograd.Variable._execution_engine.queue_callback(self._fill)

    def _fill(self) -> None:
        """Zeros for the gradients that this process lacks; units have sent theirs already."""
        if not self._last:
            return
        together = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad and not is_slice(p)]
        self._missing = {name for name, parameter in together if parameter.grad is None}
        for name, parameter in together:
            if name in self._missing:
                parameter.grad = torch.zeros_like(parameter)

    def _settle(self) -> None:
        """Average the gradients of lone numbers, and drop those that no process has."""
        trained = [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        lone = [parameter for _, parameter in trained if parameter.ndim == 0]
        has = [float(p.grad is not None and name not in self._missing) for name, p in trained]
        numbers = [torch.zeros(()) if p.grad is None else p.grad.float().cpu() for p in lone]
        told = torch.tensor([*has, *map(float, numbers)], device=self.device)
        dist.all_reduce(told)
        for (_, parameter), processes in zip(trained, told.tolist(), strict=False):
            if not processes:
                parameter.grad = None
        for parameter, mean in zip(lone, told[len(has) :] / dist.get_world_size(), strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(mean)


def units_of(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Modules whose names fit a pattern, inner ones before those around them, as sharding wants it.

    Raises ConfigError where a pattern fits none, or a module that shares a parameter with what is outside it.
    """
    named = {name: module for name, module in model.named_modules() if name}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise ConfigError(f"train.sharding_units: no module is called {pattern!r}; {nearest(pattern, named)}")
    names = [name for name in named if any(fnmatchcase(name, pattern) for pattern in patterns)]
    every = list(model.named_parameters(remove_duplicate=False))
    for name in names:
        inside = {id(parameter) for parameter in named[name].parameters()}
        shared = [other for other, p in every if id(p) in inside and not other.startswith(f"{name}.")]
        if shared:
            raise ConfigError(f"train.sharding_units: {name} shares parameters with {shared[0]}: leave it out")
    return [named[name] for name in sorted(names, key=lambda name: -name.count("."))]
