"""A pretend accelerator: tensors that say they live on another device, with their numbers on the CPU.

No machine of ours has a GPU. What goes wrong on the first one is nearly always one of these, and all can be seen
without it: an operator that mixes tensors of two devices, a float64 (Apple's GPUs have none), an operator without a
kernel there, and code that waits for the device again and again.

`install()` adds the device to torch for the rest of the process, so it belongs in a process of its own. Inside
`with Pretend():` every operator on a far tensor is noted in `LEDGER`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "far"

# they need a number, or a size, that only the device knows
WAITING = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::equal",
    "aten::is_nonzero",
    "aten::repeat_interleave.Tensor",
    "torchvision::nms",
}
INDEXING = {
    "aten::index.Tensor",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
    "aten::_unsafe_index.Tensor",
}
MOVING = {"aten::copy_", "aten::_to_copy"}
MAY_MIX = MOVING | {"aten::_copy_from", "aten::set_", "aten::lift_fresh", "aten::detach"}


@dataclass
class Ledger:
    """What was seen; keys name the operator and the line of our code that called it."""

    operators: Counter[str] = field(default_factory=Counter)  # by name alone
    dtypes: dict[str, set[str]] = field(default_factory=dict)  # of each operator's far tensors
    mixed: Counter[str] = field(default_factory=Counter)
    doubles: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)  # for a number or a size
    uploads: Counter[str] = field(default_factory=Counter)  # of tensors and lists to the device


LEDGER = Ledger()


def start_again() -> None:
    """Forget what was noted so far."""
    vars(LEDGER).update(vars(Ledger()))


def device() -> torch.device:
    """The pretend device."""
    return torch.device(NAME, 0)


class Far(torch.Tensor):
    """A tensor that says it is on the pretend device; `near` has its numbers."""

    near: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Far:
        """Wrap a tensor of the CPU."""
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            layout=near.layout,
            device=device(),
        )
        tensor.near = near
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, outside `Pretend` too."""
        return dispatch(func, args, kwargs or {})

    def __getitem__(self, index: Any) -> Any:
        """Index, with lists as tensors of this device: torch does so where no mode sees it."""
        return torch.Tensor.__getitem__(self, _on_device(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        """Set, with lists as tensors of this device."""
        if not isinstance(value, torch.Tensor):
            value = torch.full((), value, dtype=self.dtype, device=device())
        torch.Tensor.__setitem__(self, _on_device(index), value)

    def tolist(self) -> Any:
        """The numbers: a wait."""
        _note(LEDGER.waits, "tolist")
        return self.near.detach().tolist()

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:
        """A tensor of this type and device."""
        options.setdefault("dtype", self.dtype)
        options.setdefault("device", self.device)
        return torch.tensor(data, **options)

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, as a GPU's tensors do."""
        raise TypeError("can't convert a tensor of the pretend device to numpy: use .cpu() first")

    __array__ = numpy

    def __repr__(self, **options: Any) -> str:
        """Shape and type; the numbers would be a wait."""
        return f"Far({tuple(self.shape)}, {self.dtype})"


class Pretend(TorchDispatchMode):
    """Inside it, tensors made on the pretend device are `Far`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: nothing is compiled here, and to skip the compiler is to import it and ask it at every operator."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator."""
        return dispatch(func, args, kwargs or {})


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the CPU, note what a device would make of it, and wrap what lives there."""
    flat = [*_leaves(args), *_leaves(kwargs)]
    far = [value for value in flat if isinstance(value, Far)]
    asked = _asked_device(flat, kwargs)
    on_device = asked.type == NAME if asked is not None else bool(far)
    if not far and not on_device:
        return func(*args, **kwargs)

    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with Pretend():
            made_of_others = func.decompose(*args, **kwargs)
        if made_of_others is not NotImplemented:
            return made_of_others

    name = _name(func, args)
    if func._schema.name == "aten::_local_scalar_dense":
        on_device = False
    near = [value for value in flat if isinstance(value, torch.Tensor) and not isinstance(value, Far)]
    _note_operator(name, func, args, far, near, on_device)

    result = func(*_mapped(_near, args), **_mapped(_near, kwargs))
    written = _written(func, args, kwargs)
    if written is not None:
        return written
    return _mapped(lambda value: _far(value, name), result) if on_device else result


def _leaves(value: Any) -> Iterator[Any]:
    """All that is in an operator's arguments, in any depth."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, dict):
        yield from _leaves(list(value.values()))
    else:
        yield value


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Arguments or results with everything in them changed; torch's own `tree_map` takes three times as long."""
    if isinstance(value, list | tuple):
        return type(value)([_mapped(change, part) for part in value])
    if isinstance(value, dict):
        return {name: _mapped(change, part) for name, part in value.items()}
    return change(value)


def _asked_device(flat: list[Any], kwargs: dict[str, Any]) -> torch.device | None:
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    return next((value for value in flat if isinstance(value, torch.device)), None)


def _name(func: Any, args: Any) -> str:
    if func._schema.name == "aten::convolution" and args[6]:
        return f"aten::convolution, transposed, of {args[0].ndim - 2} dimensions"
    overload = func._schema.overload_name
    return f"{func._schema.name}.{overload}" if overload else str(func._schema.name)


def _near(value: Any) -> Any:
    if isinstance(value, Far):
        return value.near
    is_here = isinstance(value, torch.device) and value.type == NAME
    return torch.device("cpu") if is_here else value


def _far(value: Any, name: str) -> Any:
    if not isinstance(value, torch.Tensor) or isinstance(value, Far):
        return value
    if value.dtype == torch.float64:
        _note(LEDGER.doubles, name)
    return Far(value)


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an in-place or `out=` operator returns: the tensors that it was given; None for other operators."""
    returned = [value.alias_info for value in func._schema.returns]
    if not any(alias is not None and alias.is_write for alias in returned):
        return None

    given: dict[str, Any] = {}
    for n, argument in enumerate(func._schema.arguments):
        value = args[n] if n < len(args) else kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write:
            for label in argument.alias_info.before_set:
                given[label] = value
    for tensor in given.values():
        if isinstance(tensor, Far) and tensor.shape != tensor.near.shape:  # squeeze_ and its like
            tensor.data = Far(tensor.near)
    results = [None if alias is None else given.get(next(iter(alias.before_set))) for alias in returned]
    return results[0] if len(results) == 1 else tuple(results)


# notes


def _note_operator(name: str, func: Any, args: Any, far: list[Far], near: list[torch.Tensor], stays: bool) -> None:
    LEDGER.operators[name] += 1
    LEDGER.dtypes.setdefault(name, set()).update(str(tensor.dtype).removeprefix("torch.") for tensor in far)

    plain = func._schema.name
    if plain == "aten::_to_copy" and near and stays:
        _note(LEDGER.uploads, name)
    if not far:
        return
    if plain in WAITING or name in WAITING or (name in INDEXING and _has_bool(args[1])):
        _note(LEDGER.waits, name)
    if plain in MOVING and (not stays or (near and plain == "aten::copy_")):
        _note(LEDGER.waits, name)
    if name in INDEXING:
        # an index of the CPU is copied to the device; values of the CPU, or an index of the device, are errors
        values = args[2] if len(args) > 2 else None
        is_near = isinstance(values, torch.Tensor) and not isinstance(values, Far) and values.ndim > 0
        if not isinstance(args[0], Far) or is_near:
            _note(LEDGER.mixed, name)
        elif near:
            _note(LEDGER.uploads, name)
    elif plain not in MAY_MIX:
        is_pointwise = torch.Tag.pointwise in func.tags  # a number on the CPU may join these
        if any(tensor.ndim > 0 or not is_pointwise for tensor in near):
            _note(LEDGER.mixed, name)


def _has_bool(indices: Any) -> bool:
    """Whether an index is a mask of the device: how many elements it selects, only the device knows."""
    return any(isinstance(index, Far) and index.dtype == torch.bool for index in indices or ())


def _on_device(index: Any) -> Any:
    if isinstance(index, list):
        _note(LEDGER.uploads, "a list as index")
        return torch.tensor(index, dtype=None if index else torch.int64).to(device())
    if isinstance(index, tuple):
        return tuple(_on_device(part) for part in index)
    return index


def _note(counter: Counter[str], name: str) -> None:
    counter[f"{name} at {_caller()}"] += 1


def _caller() -> str:
    """The innermost line of the package that is running."""
    frame = sys._getframe(2)
    while frame is not None:
        folder, package, file = frame.f_code.co_filename.rpartition("/tubelet/")
        if package and folder.endswith("src"):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


# the device in torch


class _Module(_DummyBackendModule):
    """What torch asks the module of a device, `torch.far`."""

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Any, device: Any = None) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_LIBRARIES: list[torch.library.Library] = []
_AUTOCAST = "AutocastPrivateUse1"
# what autocast computes in bfloat16; everything else takes what it is given, as on Apple GPUs
IN_BFLOAT16 = ("conv2d", "conv3d", "conv_transpose2d.input", "conv_transpose3d.input", "linear", "matmul", "bmm")


def _install_autocast() -> None:
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, _AUTOCAST)
    ours = torch.library.Library("aten", "IMPL")
    for name in IN_BFLOAT16:
        ours.impl(name, partial(_in_bfloat16, name), _AUTOCAST)
    _LIBRARIES.extend([others, ours])


def _in_bfloat16(name: str, *args: Any, **kwargs: Any) -> Any:
    operator, _, overload = name.partition(".")
    call = getattr(getattr(torch.ops.aten, operator), overload or "default")
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
    with torch._C._ExcludeDispatchKeyGuard(keys):
        return call(*_mapped(_lower, args), **_mapped(_lower, kwargs))


def _lower(value: Any) -> Any:
    is_single = isinstance(value, torch.Tensor) and value.dtype == torch.float32
    return value.to(torch.bfloat16) if is_single else value


def install() -> None:
    """Add the device to torch, for good."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _install_autocast()

    # an inference tensor cannot be wrapped, and torch.tensor fills the device's memory where no mode sees it
    torch.inference_mode = torch.no_grad  # type: ignore[assignment,misc]
    make = torch.tensor
    as_tensor = torch.as_tensor

    def tensor(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
        if isinstance(data, Far):
            return data.clone()
        made = make(data, **options)
        if device is None or torch.device(device).type != NAME:
            return made
        return made.to(NAME)

    def as_given(data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:
        if isinstance(data, torch.Tensor):
            return data.to(device=device or data.device, dtype=dtype or data.dtype)
        return as_tensor(data, dtype=dtype) if device is None else tensor(data, dtype=dtype, device=device)

    torch.tensor = tensor  # type: ignore[assignment]
    torch.as_tensor = as_given  # type: ignore[assignment]
