"""Put a trained model into the package, its heads in half precision.

    python -m tubelet.recipes.bundle runs/default default

The detector's tensors stay as they are: in half precision, boxes would move by up to 0.7 pixels. Further arguments
change fields of the model's config, such as association.birth=0.3; the weights must still fit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torch import Tensor

from tubelet.core.errors import WeightsError
from tubelet.models import weights
from tubelet.models.hub_segmenter.model import HubSegmenter
from tubelet.models.weights import finding
from tubelet.training.checkpoint import save_model

LICENCE = "Apache-2.0; see the card"
EXACT = "detector."  # prefix of the tensors that are stored as they are


def bundle(source: Path, name: str, *overrides: str) -> Path:
    """Write models/bundled/NAME.safetensors from a run's folder or file, and return its path.

    Write a card, NAME.md, beside it. Raises ConfigError or WeightsError if the overrides do not fit the weights.
    """
    model = weights.load(source, device="cpu")
    if isinstance(model, HubSegmenter):
        raise WeightsError(f"{source}: a segmenter of the hub cannot be bundled, its network is transformers'")
    config = model.config.override(*overrides)
    weights.check_fit(config, model.classes, model.state_dict(), str(source))
    tensors = {name: _stored(name, tensor) for name, tensor in model.state_dict().items()}
    path = finding.BUNDLED / f"{name}.safetensors"
    described = {"config": config.model_dump_json(), "classes": json.dumps(model.classes), "licence": LICENCE}
    save_model(path, tensors, described)
    return path


def _stored(name: str, tensor: Tensor) -> Tensor:
    return tensor if name.startswith(EXACT) or not tensor.is_floating_point() else tensor.half()


if __name__ == "__main__":
    made = bundle(Path(sys.argv[1]), *sys.argv[2:])
    sys.stdout.write(f"{made} ({made.stat().st_size / 1e6:.1f} MB)\n")
