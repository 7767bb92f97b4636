"""Import torchvision and timm without torch._dynamo, PyTorch's compiler, which takes as long to import as all the rest.

torchvision.ops.roi_align imports the compiler for one function, which it calls on a GPU with deterministic algorithms
alone; timm imports it to mark functions that shall not be compiled. While the two are imported, stand-ins give them
functions that import the compiler at their first call.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

COMPILER, UTILS = "torch._dynamo", "torch._dynamo.utils"
PACKAGES = ("torchvision", "torchvision.transforms.v2", "timm")


def import_packages() -> None:
    """Import torchvision and timm; the compiler is imported with them only if it has to be.

    >>> import sys
    >>> from tubelet.models.without_compiler import import_packages
    >>> import_packages()
    >>> "torchvision" in sys.modules, "timm" in sys.modules
    (True, True)
    """
    if COMPILER in sys.modules or all(name in sys.modules for name in PACKAGES):
        return

    sys.modules[COMPILER] = _module(COMPILER, disable)
    sys.modules[UTILS] = _module(UTILS, is_compile_supported)
    try:
        for name in PACKAGES:
            importlib.import_module(name)
    except (ImportError, AttributeError):  # other versions, which need more of the compiler: import them anew
        for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
            del sys.modules[name]
    finally:
        del sys.modules[COMPILER], sys.modules[UTILS]


def is_compile_supported(device_type: str) -> bool:
    """Whether PyTorch can compile for a device; imports the compiler to find out.

    >>> from tubelet.models.without_compiler import is_compile_supported
    >>> is_compile_supported("meta")
    False
    """
    compiler = importlib.import_module(UTILS)
    return bool(compiler.is_compile_supported(device_type))


def disable(function: Callable[..., Any], recursive: bool = True, *, reason: str | None = None) -> Callable[..., Any]:
    """Mark a function as one that is not compiled; imports the compiler when it is called.

    >>> from tubelet.models.without_compiler import disable
    >>> disable(abs).__name__
    'abs'
    """

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        compiler = importlib.import_module(COMPILER)
        return compiler.disable(function, recursive, reason=reason)(*arguments, **named)

    return call


def _module(name: str, function: Callable[..., Any]) -> ModuleType:
    module = ModuleType(name)
    module.__dict__[function.__name__] = function
    return module
