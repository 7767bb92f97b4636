"""Opening a model in a worker process: named here, so that it can be sent to the process before torch is imported."""

from __future__ import annotations

from typing import Any


def load_model(name: str, device: str) -> Any:
    """The model of a name, a file or a training's folder, on a device; see `tubelet.load`."""
    from tubelet.models import weights

    return weights.load(name, device=device)
