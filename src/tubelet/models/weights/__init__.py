"""Load weights: bundled models, files, training folders, models of the hub."""

from tubelet.models.weights.loading import (
    BACKBONES,
    BUNDLED,
    FORMAT,
    SSDLITE,
    AnyModel,
    ListedModel,
    ModelConfig,
    check_fit,
    computes_bf16,
    find,
    is_backbone,
    list_models,
    load,
    read_tensors,
    ready_to_predict,
    start_from,
)

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
