"""Fixtures of this room, whose tests build hundreds of models: their memory is given back after every file."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator

import pytest

from model_fixtures import build, make_clip, small_config  # noqa: F401


@pytest.fixture(scope="module", autouse=True)
def give_memory_back() -> Iterator[None]:
    """Free models that hang together in circles, and return what glibc keeps of their tensors: gigabytes."""
    yield
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
