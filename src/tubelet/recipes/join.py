"""Join a detector's weights and another model's heads to a start of the default recipe.

    python -m tubelet.recipes.join nanodet_plus_m15_coco.safetensors runs/first start.safetensors

The detector is one that `models.weights.start_from` knows, the heads are those of a trained model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tubelet.models import weights
from tubelet.recipes.default import DEFAULT
from tubelet.training.checkpoint import save_model

HEADS = ("mask.", "match.")


def join(detector: str, heads: str, out: Path) -> None:
    """Write a model of the default recipe with the detector of one file and the heads of another.

    Raises WeightsError if a file cannot be read, or if heads do not fit.
    """
    donor = weights.load(heads, device="cpu")
    model = DEFAULT.model.build(donor.classes)
    weights.start_from(model, detector)

    tensors = {name: tensor for name, tensor in donor.state_dict().items() if name.startswith(HEADS)}
    joined = model.state_dict() | tensors
    weights.check_fit(model.config, model.classes, joined, heads)
    described = {"config": model.config.model_dump_json(), "classes": json.dumps(model.classes)}
    save_model(out, {name: tensor.contiguous() for name, tensor in joined.items()}, described)


if __name__ == "__main__":
    join(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
