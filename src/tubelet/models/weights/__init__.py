"""Load weights: bundled models, files, training folders, models of the hub."""

from tubelet.models.weights.contents import FORMAT, read_tensors
from tubelet.models.weights.families import AnyModel, ModelConfig
from tubelet.models.weights.finding import BUNDLED, find
from tubelet.models.weights.fitting import check_fit
from tubelet.models.weights.listing import ListedModel, list_models
from tubelet.models.weights.loading import computes_bf16, load, ready_to_predict
from tubelet.models.weights.pretrained import BACKBONES, SSDLITE, is_backbone, start_from

__all__ = [
    "BACKBONES",
    "BUNDLED",
    "FORMAT",
    "SSDLITE",
    "AnyModel",
    "ListedModel",
    "ModelConfig",
    "check_fit",
    "computes_bf16",
    "find",
    "is_backbone",
    "list_models",
    "load",
    "read_tensors",
    "ready_to_predict",
    "start_from",
]
