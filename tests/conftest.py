"""Shapes are checked while tests run: jaxtyping's hook wraps core and attention before anything imports them."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

_hook = install_import_hook(["tubelet.core", "tubelet.attention"], "beartype.beartype")
torch.set_num_threads(1)

# many small models are loaded: an engine would export each of them
os.environ["TUBELET_ENGINE"] = "torch"

# the same examples in every run; HYPOTHESIS_PROFILE=explore looks for new ones
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


def pytest_collection_finish() -> None:
    """Leave modules and tests, which stay to the end, out of garbage collection: half a million objects each time."""
    gc.collect()
    gc.freeze()


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and pretrained weights that lies beside a developer's checkout; skips where it is not."""
    if not (SHARED / "data").is_dir():
        pytest.skip("real data beside the checkout is not here")
    return SHARED
