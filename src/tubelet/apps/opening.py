"""Load a model in a worker process.

The function can be pickled and sent to the process without importing torch in the parent.
"""

from __future__ import annotations

from typing import Any


def load_model(name: str, device: str, engine: str = "auto", input_size: int | None = None) -> Any:
    """Load a model by name, file or run folder onto a device; see `tubelet.load`."""
    from tubelet.models import weights

    return weights.load(name, device=device, engine=engine, input_size=input_size)
